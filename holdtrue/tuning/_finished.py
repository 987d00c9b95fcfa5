"""What came of the trials of a search, whichever run they were in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.tuning._limits import Tally
from holdtrue.tuning._log import trial_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdtrue.references import Trial
    from holdtrue.tuning._asker import Planned
    from holdtrue.tuning._types import Outcome, Search


class Finished:
    """The finished trials, counted as they end.

    With ``search.deterministic`` the rules look at trials by number, whichever finished first, and
    those behind the one at which a rule ends the search do not count.

    Args:
        search: The rules.
    """

    def __init__(self, search: Search) -> None:
        self.outcomes: dict[int, Outcome] = {}
        """By number of the trial, in the order in which they finished."""
        self.tally = Tally(search)
        self._by_number = search.deterministic
        self._judged = Tally(search) if search.deterministic else self.tally
        self._cut: int | None = None

    def __len__(self) -> int:
        return len(self.outcomes)

    def add(self, number: int, outcome: Outcome) -> None:
        """Count a trial that has finished."""
        self.outcomes[number] = outcome
        self.tally.add(outcome)
        if not self._by_number:
            return
        while self._cut is None and self._judged.done in self.outcomes:
            self._judged.add(self.outcomes[self._judged.done])
            if self._judged.reached() is not None:
                self._cut = self._judged.done

    def reached(self) -> str | None:
        """Which rule about results ends the search, in words; None where none does."""
        return self._judged.reached()

    def trials(self, known: Mapping[int, Planned]) -> tuple[Trial, ...]:
        """Those that count, by number.

        Args:
            known: Their settings.
        """
        numbers = sorted(n for n in self.outcomes if self._cut is None or n < self._cut)
        return tuple(trial_of(n, *known[n], self.outcomes[n]) for n in numbers)
