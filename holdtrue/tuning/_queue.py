"""Which trials a worker is given next, and how many of them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from holdtrue.tuning._asker import LAG
from holdtrue.tuning._batch import HEEDLESS, RETRIES, batch_size
from holdtrue.tuning._pace import Pace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdtrue.tuning._asker import Asker, Ready
    from holdtrue.tuning._batch import Sent
    from holdtrue.tuning._space import Space
    from holdtrue.tuning._types import Outcome, Search, Setting

# Trials that the mean time is taken from.
_RECENT = 50
# So many trials for each worker, the last ones, run longest first. Behind so many others hides one
# that takes as many times as long as they do.
_ENDING = 8


class Queue:
    """The trials that wait for a worker; the driver alone asks it.

    Args:
        space: Where the settings are from.
        search: The rules.
        asker: Chooses them.
        earlier: What came of settings in earlier runs.
    """

    def __init__(
        self,
        space: Space,
        search: Search,
        asker: Asker,
        earlier: Iterable[tuple[Setting, Outcome]],
    ) -> None:
        self._search, self._asker = search, asker
        self._again: deque[list[Ready]] = deque()  # of batches that died
        self._last: list[Ready] = []  # the longest one first
        # What learns from results would choose its last settings without the ones before.
        heedless = search.sampler in HEEDLESS and not search.deterministic
        self._pace = Pace(space) if heedless else None
        self._struck: set[int] = set()  # trials whose worker died, perhaps because of them
        self._recent: deque[float] = deque(maxlen=_RECENT)
        for setting, outcome in earlier:
            self._learn(setting, outcome)

    @property
    def n_again(self) -> int:
        """Trials that were sent before, and must be again."""
        return sum(map(len, self._again))

    def take(self, left: int, slots: int, in_flight: int) -> list[Ready]:
        """The next batch; empty where none is ready.

        Args:
            left: Trials that were not sent in this run.
            slots: Trials that run at a time.
            in_flight: Batches that are with Ray at a time.
        """
        if self._again:
            return self._again.popleft()
        search = self._search
        mean = sum(self._recent) / len(self._recent) if self._recent else None
        if self._pace is not None and (self._last or left <= _ENDING * slots):
            return self._take_longest(self._pace, left, slots, mean)
        size = batch_size(mean, left, slots, search.sampler)
        if search.deterministic:  # so few are chosen ahead that each worker gets its share
            size = min(size, max(1, LAG // in_flight))
        self._asker.expect(size, size * (1 + slots // 4))
        return self._asker.take(min(size, left))

    def _take_longest(self, pace: Pace, left: int, slots: int, mean: float | None) -> list[Ready]:
        """Of all trials that are left, those that are expected to take longest.

        So that none of them begins when the other workers have nothing more to do: where one trial
        takes several times as long as another, they would wait for it at the end.
        """
        self._asker.expect(left, left)
        self._last += self._asker.take(left - len(self._last))
        expected = pace.expect([ready.setting for ready in self._last])
        if self._last and expected is not None:
            paired = zip(expected, self._last, strict=True)
            self._last = [ready for _, ready in sorted(paired, key=lambda pair: -pair[0])]
            mean = max(expected)
        size = batch_size(mean, left, slots, self._search.sampler)
        taken, self._last = self._last[:size], self._last[size:]
        return taken

    def retries(self, batch: Sequence[Ready]) -> int:
        """How often Ray may run a batch again by itself: it would run all of it."""
        return 0 if len(batch) > 1 else RETRIES - (batch[0].number in self._struck)

    def put_back(self, task: Sent) -> None:
        """Have the trials of a batch run again whose worker died, each suspect by itself."""
        suspects = task.suspects()
        self._struck |= {ready.number for ready in suspects}
        self._again += [[ready] for ready in suspects]
        if others := [*task.left.values()][len(suspects) :]:
            self._again.append(others)

    def ended(self, setting: Setting, outcome: Outcome) -> None:
        """Learn from a trial how long others will take."""
        self._recent.append(outcome.seconds)
        self._learn(setting, outcome)

    def _learn(self, setting: Setting, outcome: Outcome) -> None:
        if self._pace is not None:
            self._pace.add(setting, outcome)
