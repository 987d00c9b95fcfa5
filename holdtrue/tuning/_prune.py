"""The rules that end a trial early: pure functions of what trials reported."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from holdtrue.tuning._types import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from holdtrue.declaration import Pruner
    from holdtrue.tuning._types import Ladder, Outcome

    Fitting = Callable[[int], bool]

Direction = Literal["higher", "lower"]

# The first rung of each ladder. The first fold alone never decides; the first few boosting rounds
# say more about the learning rate than about the setting.
_FIRST_RUNG: dict[Ladder, int] = {"rounds": 5, "folds": 2, "steps": 1}
_FIRST_FOLDS = 2
# Without rungs boosting reports at 8, 10, 13, 16, 20, 25, 32, 40, 50, 63, 79, 100, ... rounds: the
# preferred numbers of ISO 3, ten to a decade, so that trials of any length meet at equal steps.
_PER_DECADE = 10
_FIRST_POWER = 9
_BRACKETS = 3
# Its multiples spread evenly over 0..1 (Weyl): brackets are mixed from the first trials on.
_GOLDEN = (5**0.5 - 1) / 2

Reported = tuple[float, tuple[float, ...]]
"""What a trial reported at one step: the value, and the value on each fold."""


class Table:
    """What the trials of a study reported, by ladder and step, and how the complete ones ended.

    A value that is not finite is no standard to compare with, and is left out.
    """

    def __init__(self) -> None:
        # Plain tuples: a table of thousands of trials is sent to workers, and these pickle fast.
        self._at: dict[tuple[Ladder, int], dict[int, Reported]] = {}
        self._complete: dict[int, float] = {}

    @classmethod
    def of(cls, history: Iterable[tuple[int, Outcome]]) -> Table:
        """Make the table of finished trials.

        Args:
            history: Number and outcome of each, in any order.
        """
        table = cls()
        for number, outcome in history:
            table.finish(number, outcome)
        return table

    def copy(self) -> Table:
        """A table of its own, to which nothing is added when this one goes on."""
        other = Table()
        other._at = {key: dict(reports) for key, reports in self._at.items()}
        other._complete = dict(self._complete)
        return other

    def report(self, number: int, report: Report) -> None:
        """Add what a trial reported; once more does no harm."""
        if math.isfinite(report.value):
            at = self._at.setdefault((report.ladder, report.step), {})
            at[number] = report.value, report.folds

    def finish(self, number: int, outcome: Outcome) -> None:
        """Add how a trial ended, with all that it reported.

        A complete trial counts on the ladder of folds too, by its value on each fold. One that
        failed, or costs more than it may, cannot win, so it is no standard for others: what it
        reported is taken out.
        """
        if outcome.state == "failed" or (outcome.state == "complete" and not outcome.may_win):
            for reports in self._at.values():
                reports.pop(number, None)
            return
        for report in outcome.reports:
            self.report(number, report)
        if outcome.state == "complete" and outcome.value is not None:
            self._complete[number] = outcome.value
            folds = outcome.fold_values
            for n_folds in range(1, len(folds) + 1):
                first = folds[:n_folds]
                self.report(number, Report("folds", n_folds, sum(first) / n_folds, first))

    def at(self, ladder: Ladder, step: int) -> Mapping[int, Reported]:
        """What was reported there, by number of the trial."""
        return self._at.get((ladder, step), {})

    def between(self, ladder: Ladder, start: int, end: int) -> Mapping[int, Reported]:
        """The first report of each trial from `start` (inclusive) to `end` (exclusive)."""
        steps = sorted(at for of, at in self._at if of == ladder and start <= at < end)
        if len(steps) == 1:
            return self._at[ladder, steps[0]]
        found: dict[int, Reported] = {}
        for step in steps:
            found = self._at[ladder, step] | found
        return found

    @property
    def complete(self) -> Mapping[int, float]:
        """The value of each complete trial, by number."""
        return self._complete


@dataclass(frozen=True)
class _Case:
    """One trial before the rule. Values are compared by `loss`: smaller is better."""

    rule: Pruner
    sign: float
    table: Table
    number: int
    own: tuple[Report, ...]
    """Its reports on the ladder of the last one."""

    @property
    def now(self) -> Report:
        return self.own[-1]

    def loss(self, value: float) -> float:
        return self.sign * value

    def others(self, reports: Mapping[int, Reported], fitting: Fitting) -> list[tuple[int, float]]:
        """Number and loss of the trials to compare with.

        Never the trial itself: it may have run before, in a worker that died.
        """
        return [
            (number, self.sign * value)
            for number, (value, _) in reports.items()
            if number != self.number and fitting(number)
        ]

    def complete(self, number: int) -> bool:
        return number in self.table.complete

    def started(self) -> bool:
        """Whether enough trials are complete for the rule to begin."""
        complete = len(self.table.complete) - (self.number in self.table.complete)
        return complete >= max(self.rule.startup, 1)


def stops(
    rule: Pruner, direction: Direction, table: Table, number: int, own: Sequence[Report]
) -> bool:
    """Whether a trial ends after its last report.

    Args:
        rule: With its arguments.
        direction: Which values are better.
        table: What the other trials reported. The trial's own entries in it do not matter.
        number: Of the trial.
        own: All that the trial reported, in order; at least one.
    """
    now = own[-1]
    if now.ladder == "folds" and now.step < _FIRST_FOLDS:
        return False
    same = tuple(report for report in own if report.ladder == now.ladder)
    sign = 1.0 if direction == "lower" else -1.0
    return _RULES[rule.rule](_Case(rule, sign, table, number, same))


def report_rounds(rule: Pruner, n_rounds: int) -> list[int]:
    """After how many boosting rounds a trial reports, rising; the same for all trials of a rule.

    Args:
        rule: Which one will judge.
        n_rounds: Rounds of the trial.
    """
    if rule.rule in ("halving", "hyperband"):
        return _rungs(_FIRST_RUNG["rounds"], rule.one_in, n_rounds)
    steps = []
    power = _FIRST_POWER
    while (step := round(10 ** (power / _PER_DECADE))) <= n_rounds:
        steps.append(step)
        power += 1
    return steps


def _rungs(first: int, factor: int, last: int) -> list[int]:
    rungs = []
    while first <= last:
        rungs.append(first)
        first *= factor
    return rungs


def _median(case: _Case) -> bool:
    return _beyond(case, 0.5)


def _percentile(case: _Case) -> bool:
    return _beyond(case, case.rule.keep)


def _beyond(case: _Case, share: float) -> bool:
    """Whether it is worse than the best `share` of the complete trials were at the same step.

    Of boosting rounds the best value so far counts, as in Golovin et al. (2017), Google Vizier,
    section 3.2.2. Of folds the mean of exactly the same folds counts: one that was easy must not
    cover for those after it.
    """
    if not case.started():
        return False
    at = case.table.at(case.now.ladder, case.now.step)
    losses = [loss for _, loss in case.others(at, case.complete)]
    own = case.own[-1:] if case.now.ladder == "folds" else case.own
    mine = [case.loss(report.value) for report in own if not math.isnan(report.value)]
    if not mine:
        return True
    return bool(losses) and min(mine) > _quantile(losses, share)


def _quantile(values: list[float], share: float) -> float:
    """Linear between the two nearest values: definition 7 of Hyndman and Fan (1996)."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def _halving(case: _Case) -> bool:
    return _at_rung(case, _FIRST_RUNG[case.now.ladder], lambda _: True)


def _hyperband(case: _Case) -> bool:
    bracket = bracket_of(case.number, case.rule.one_in)
    first = _FIRST_RUNG[case.now.ladder] * case.rule.one_in**bracket
    return _at_rung(case, first, lambda other: bracket_of(other, case.rule.one_in) == bracket)


def _at_rung(case: _Case, first: int, competes: Fitting) -> bool:
    """Asynchronous successive halving: a rung is judged with those who have reached it so far.

    References:
        Li et al. (2020), A system for massively parallel hyperparameter tuning, algorithm 2; a
        trial that may not go on at once ends, rather than wait to be promoted later.
    """
    now, factor = case.now, case.rule.one_in
    rungs = _rungs(first, factor, now.step)
    if not rungs or any(report.step >= rungs[-1] for report in case.own[:-1]):
        return False
    if math.isnan(now.value):
        return True
    reached = case.table.between(now.ladder, rungs[-1], rungs[-1] * factor)
    losses = [loss for _, loss in case.others(reached, competes)]
    places = max((len(losses) + 1) // factor, 1)
    better = sum(loss < case.loss(now.value) for loss in losses)
    return better >= places


@cache
def bracket_of(number: int, factor: int) -> int:
    """Hyperband's bracket of a trial, 0 (judged from the first rung on) to 2 (from the third on).

    Args:
        number: Of the trial; nothing else decides, so that it is the same in every run.
        factor: Of the halving.

    References:
        Li et al. (2018), Hyperband, algorithm 1: the size of a bracket.
    """
    sizes = [
        math.ceil(_BRACKETS * factor**rungs / (rungs + 1)) for rungs in reversed(range(_BRACKETS))
    ]
    place = (number * _GOLDEN) % 1 * sum(sizes)
    bracket = 0
    while bracket < _BRACKETS - 1 and place >= sizes[bracket]:
        place -= sizes[bracket]
        bracket += 1
    return bracket


def _wilcoxon(case: _Case) -> bool:
    """Whether it is worse than the best complete trial, fold by fold at the same step.

    Signed ranks, one-sided; zeros split as Pratt's. Never where its mean is at least as good as
    what the best one ended with.
    """
    from scipy.stats import wilcoxon

    if not case.started():
        return False
    at = case.table.at(case.now.ladder, case.now.step)
    finals = {
        number: case.loss(case.table.complete[number])
        for number, _ in case.others(at, case.complete)
    }
    if not finals:
        return False
    best = min(finals, key=lambda number: (finals[number], number))
    mine, theirs = case.now.folds, at[best][1]
    differences = [
        case.loss(one) - case.loss(other) for one, other in zip(mine, theirs, strict=False)
    ]
    if len(differences) < _FIRST_FOLDS or not all(map(math.isfinite, differences)):
        return False
    if case.loss(case.now.value) <= finals[best]:
        return False
    tested = wilcoxon(differences, alternative="greater", zero_method="zsplit")
    return bool(tested.pvalue < case.rule.p_value)


def _threshold(case: _Case) -> bool:
    limit = case.rule.worse_than
    value = case.now.value
    return math.isnan(value) or (limit is not None and case.loss(value) > case.loss(limit))


def _patient(case: _Case) -> bool:
    """Whether the last reports brought no gain.

    Not for folds: their mean moves because the folds differ, not because the trial learns.
    """
    patience = case.rule.patience
    if case.now.ladder == "folds" or len(case.own) <= patience:
        return False
    losses = [
        math.inf if math.isnan(report.value) else case.loss(report.value) for report in case.own
    ]
    return min(losses[:-patience]) <= min(losses[-patience:])


_RULES: dict[str, Callable[[_Case], bool]] = {
    "median": _median,
    "percentile": _percentile,
    "halving": _halving,
    "hyperband": _hyperband,
    "wilcoxon": _wilcoxon,
    "threshold": _threshold,
    "patient": _patient,
}
