"""The study in memory and the thread that owns it: learns what was told, asks ahead."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdtrue.tuning._log import CONSTRAINT, Asked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from holdtrue.references import Origin
    from holdtrue.tuning._log import Logged, StudyLog
    from holdtrue.tuning._prune import Table
    from holdtrue.tuning._space import Space
    from holdtrue.tuning._types import Outcome, Search, Setting

LAG = 8
"""With deterministic, trial k is chosen knowing trials 0 to k - LAG, whatever else is finished.

A constant, so that the choice does not depend on the number of workers; at most so many trials run
at a time.
"""


Planned = tuple["Setting", "Origin"]
"""A setting that is tried without asking the sampler, and where it is from."""


@dataclass(frozen=True)
class Ready:
    """A trial that waits for a worker."""

    number: int
    setting: Setting
    origin: Origin = "sampler"
    frozen: Table | None = None
    """With deterministic and a pruner: what the trials before it reported."""


class Asker:
    """Chooses settings in a thread of its own, ahead of the workers.

    Only that thread touches the study, so nothing waits for a sampler that thinks; every other
    method may be called from one other thread.

    Args:
        space: What is searched.
        search: The limits and the rules.
        log: Where each choice is written before it is handed out; with what happened so far.
        planned: Settings of the first trials, by number. After these, and in place of those of a
            grid that were tried already, the sampler is asked.
        wanted: So many settings are chosen in all.
    """

    def __init__(
        self, space: Space, search: Search, log: StudyLog, planned: Sequence[Planned], wanted: int
    ) -> None:
        import optuna

        from holdtrue.tuning._samplers import make_sampler

        self._space, self._search, self._log = space, search, log
        self._planned, self._wanted = planned, wanted
        self._sampler = make_sampler(search.sampler, space, search.seed, search.past)
        self._storage = optuna.storages.InMemoryStorage()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            storage=self._storage,
            sampler=self._sampler,
            direction="maximize" if search.direction == "higher" else "minimize",
        )
        self._next = 0
        self._told = 0
        self._held: dict[int, Outcome] = {}  # finished, not yet told
        self._table = _new_table(search)
        self._ready: deque[Ready] = deque()
        self._inbox: list[tuple[int, Outcome]] = []
        self._group = self._depth = 1
        self._closed = self._busy = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._replay(log.trials)
        self._thread = threading.Thread(target=self._run, name="holdtrue-asker", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def close(self) -> None:
        """End the thread, after what it is doing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def expect(self, group: int, depth: int) -> None:
        """Say how fast settings are taken.

        Args:
            group: So many at a time.
            depth: So many are kept ready.
        """
        with self._changed:
            self._group, self._depth = group, max(group, depth)
            self._changed.notify_all()

    def take(self, most: int) -> list[Ready]:
        """Settings that are ready, in the order of their numbers; none where none is.

        Raises:
            Exception: What the sampler, or writing the log, raised.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            taken = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
            self._changed.notify_all()
            return taken

    def wait(self, timeout_s: float) -> None:
        """Wait until a setting is ready, or none will be before a trial ends; at most so long."""
        with self._changed:
            self._changed.wait_for(
                lambda: bool(self._ready or self._error or not self._is_busy()), timeout_s
            )

    def tell(self, group: Iterable[tuple[int, Outcome]]) -> None:
        """Hand over what came of trials; the thread tells the study."""
        with self._changed:
            self._inbox += group
            self._changed.notify_all()

    def is_busy(self) -> bool:
        """Whether a setting is ready or being chosen; if not, nothing comes before a trial ends."""
        with self._changed:
            return bool(self._ready or self._error) or self._is_busy()

    def _is_busy(self) -> bool:
        return self._busy or self._has_work()

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
                    self._changed.wait_for(self._has_work)
                    if self._closed:
                        return
                    inbox, self._inbox = self._inbox, []
                    room, self._busy = self._room(), True
                self._learn(inbox)
                self._choose(room)
        except BaseException as err:  # noqa: BLE001 - raised again where settings are taken
            with self._changed:
                self._error = err
                self._changed.notify_all()

    def _has_work(self) -> bool:
        return self._closed or bool(self._inbox) or self._room() > 0

    def _room(self) -> int:
        """How many settings to choose now; whole groups, which are written in one go."""
        left = self._wanted - self._next
        if self._search.deterministic:
            return min(left, 1) if self._may_choose() else 0
        room = min(self._depth - len(self._ready), left)
        return room if room >= min(self._group, left) else 0

    def _may_choose(self) -> bool:
        return all(number in self._held for number in range(self._told, self._next - LAG + 1))

    def _learn(self, told: Iterable[tuple[int, Outcome]]) -> None:
        if self._search.deterministic:
            self._held.update(told)
            return
        for number, outcome in told:
            self._tell_study(number, outcome)

    def _choose(self, room: int) -> None:
        group: list[tuple[Asked, Setting]] = []
        for _ in range(room):
            if self._search.deterministic:
                self._catch_up(self._next)
            group.append(self._ask(self._next))
            self._next += 1
        if not group:
            return
        self._log.ask([asked for asked, _ in group])
        with self._changed:
            self._ready += [
                Ready(asked.number, setting, asked.origin, self._freeze())
                for asked, setting in group
            ]
            self._changed.notify_all()

    def _catch_up(self, number: int) -> None:
        """Tell the study exactly the trials that a trial may know."""
        while self._told <= number - LAG:
            self._tell_study(self._told, self._held.pop(self._told))

    def _ask(self, number: int) -> tuple[Asked, Setting]:
        from holdtrue.tuning._samplers import seed_for

        if number < len(self._planned) and self._is_due(number):
            setting, origin = self._planned[number]
            params, distributions = self._space.to_optuna(setting)
            asked = Asked(number, params, distributions, origin)
            self._add(asked, None)
            return asked, setting
        # Anew for each trial, so that a search that was interrupted goes on as if it were not.
        seed_for(self._sampler, self._search.seed, number)
        trial = self._study.ask()
        setting = self._space.suggest(trial)
        known = self._storage.get_trial(number)
        asked = Asked(number, known.params, known.distributions, system_attrs=known.system_attrs)
        return asked, setting

    def _is_due(self, number: int) -> bool:
        """Whether a planned setting is still to be tried.

        A grid's is not where it was tried under another number: a search goes on with other first
        settings than it began with once there is a live model, and that shifts the rest.
        """
        setting, origin = self._planned[number]
        return origin != "sampler" or self._sampler.is_new(self._study, number, setting)

    def _tell_study(self, number: int, outcome: Outcome) -> None:
        from optuna.trial import TrialState

        for report in outcome.reports:
            self._storage.set_trial_intermediate_value(number, report.step, report.value)
        for key, by in _constraints(outcome).items():
            self._storage.set_trial_system_attr(number, key, by)
        state = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}.get(
            outcome.state, TrialState.FAIL
        )
        value = outcome.value if outcome.state == "complete" else None
        self._study.tell(number, value, state=state)
        self._told += 1
        if self._table is not None:
            self._table.finish(number, outcome)

    def _freeze(self) -> Table | None:
        return None if self._table is None else self._table.copy()

    def _replay(self, trials: Sequence[Logged]) -> None:
        """Bring the study where it was when the log ended."""
        ordered = self._search.deterministic
        for logged in trials:
            asked, outcome = logged.asked, logged.outcome
            number = asked.number
            if ordered:
                self._catch_up(number)
            known = ordered or outcome is None
            self._add(asked, None if known else outcome)
            if outcome is None:
                setting = self._space.from_optuna(asked.params)
                self._ready.append(Ready(number, setting, asked.origin, self._freeze()))
            elif ordered:
                self._held[number] = outcome
            self._next = number + 1

    def _add(self, asked: Asked, outcome: Outcome | None) -> None:
        self._storage.create_new_trial(0, _frozen(asked, outcome))


def _new_table(search: Search) -> Table | None:
    if search.pruner is None or not search.deterministic:
        return None
    from holdtrue.tuning._prune import Table

    return Table()


def _frozen(asked: Asked, outcome: Outcome | None) -> FrozenTrial:
    """A trial of an in-memory study."""
    from optuna.trial import TrialState, create_trial

    params: Mapping[str, Any] = asked.params
    distributions: Mapping[str, BaseDistribution] = asked.distributions
    origin: Origin = asked.origin
    known: dict[str, Any] = {"state": TrialState.RUNNING}
    if outcome is not None:
        state = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}.get(
            outcome.state, TrialState.FAIL
        )
        failed = outcome.state == "failed"
        known = {
            "state": state,
            "value": None if failed else outcome.value,
            "intermediate_values": {report.step: report.value for report in outcome.reports},
        }
    return create_trial(
        params=dict(params),
        distributions=dict(distributions),
        user_attrs={"origin": origin},
        system_attrs=dict(asked.system_attrs) | ({} if outcome is None else _constraints(outcome)),
        **known,
    )


def _constraints(outcome: Outcome) -> dict[str, float]:
    """As system attributes of a trial."""
    return {f"{CONSTRAINT}{name}": by for name, by in outcome.constraints.items()}
