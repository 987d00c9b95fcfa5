"""What ends a search: a tally of finished trials and the rules over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdtrue.tuning._types import Outcome, Search


class Tally:
    """Counts of finished trials, in the order in which they are added.

    Args:
        search: The rules.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self.counts = {"complete": 0, "pruned": 0, "failed": 0}
        self.best: float | None = None
        """Best value of the complete trials that are within the limits of their costs."""
        self.cpu_seconds = 0.0
        """CPU time of all of them."""
        self.seconds = 0.0
        """Wall time in their workers."""
        self._since_best = 0

    @property
    def done(self) -> int:
        """Finished trials, however they ended."""
        return sum(self.counts.values())

    def add(self, outcome: Outcome) -> None:
        """Count a finished trial."""
        self.counts[outcome.state] += 1
        self.cpu_seconds += outcome.cpu_seconds
        self.seconds += outcome.seconds
        self._since_best += 1
        if outcome.may_win and outcome.value is not None and self._gains(outcome.value):
            self.best = outcome.value
            self._since_best = 0

    def reached(self) -> str | None:
        """Which rule about results ends the search, in words; None where none does."""
        stop, search = self._search.stop, self._search
        if stop.goal is not None and self.best is not None and self._is_goal(stop.goal):
            return f"{search.metric} {self.best:.6g} reaches the goal {stop.goal:g}"
        if stop.no_gain_for and self.best is not None and self._since_best >= stop.no_gain_for:
            return f"no gain in {stop.no_gain_for} trials"
        if stop.failed is not None and self.counts["failed"] >= stop.failed:
            return f"{self.counts['failed']} trials failed"
        return None

    def spent(self, unfinished_s: float) -> str | None:
        """Whether the CPU time is used up, in words; None where it is not.

        Args:
            unfinished_s: Estimate of the CPU time of the trials that run now, and of those that
                earlier runs left unfinished, seconds.
        """
        if self._search.stop.cpu is None:
            return None
        limit = self._search.stop.cpu.total_seconds()
        if self.cpu_seconds + unfinished_s < limit:
            return None
        return f"the CPU time of {limit:g} s is used up"

    def _gains(self, value: float) -> bool:
        if self.best is None:
            return True
        return value > self.best if self._search.direction == "higher" else value < self.best

    def _is_goal(self, goal: float) -> bool:
        if self.best is None:
            return False
        return self.best >= goal if self._search.direction == "higher" else self.best <= goal
