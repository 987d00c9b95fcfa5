from __future__ import annotations

import math
import pickle
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.declaration import Pruner
from holdtrue.tuning._prune import Direction, Table, bracket_of, report_rounds, stops
from holdtrue.tuning._types import Ladder, Outcome, Report

DIRECTIONS: list[Direction] = ["higher", "lower"]


def rule(name: str, **arguments: Any) -> Pruner:
    return Pruner(rule=name, **arguments)


def reports(values: list[float], ladder: Ladder = "steps") -> tuple[Report, ...]:
    return tuple(Report(ladder, step, value) for step, value in enumerate(values, start=1))


def complete(values: list[float], ladder: Ladder = "steps") -> Outcome:
    return Outcome("complete", values[-1], 1.0, 1.0, reports=reports(values, ladder))


def folded(values: list[float]) -> Outcome:
    return Outcome("complete", sum(values) / len(values), 1.0, 1.0, fold_values=tuple(values))


def fold_reports(values: list[float]) -> list[Report]:
    return [
        Report("folds", n, sum(values[:n]) / n, tuple(values[:n]))
        for n in range(1, len(values) + 1)
    ]


def decisions(
    which: Pruner, direction: Direction, pruner: optuna.pruners.BasePruner, seed: int, n_folds: int
) -> list[tuple[bool, bool]]:
    """Run trials in turns, by chance, before our rule and before Optuna's; returns both answers.

    With folds, Optuna hears of each fold, we of the mean and of all of them.
    """
    chance = np.random.default_rng(seed)
    study = optuna.create_study(
        direction="maximize" if direction == "higher" else "minimize", pruner=pruner
    )
    n_steps = n_folds or 10
    ours, answers = Table(), []
    running: dict[int, tuple[optuna.Trial, list[float], list[Report]]] = {}
    for _ in range(250):
        if len(running) < 4:
            trial = study.ask()
            values = (chance.normal() + chance.normal(size=n_steps)).tolist()
            running[trial.number] = trial, values, []
        number = int(chance.choice(list(running)))
        trial, values, own = running[number]
        step = len(own) + 1
        trial.report(values[step - 1], step)
        now = fold_reports(values)[step - 1] if n_folds else Report("steps", step, values[step - 1])
        own.append(now)
        ours.report(number, now)
        theirs = trial.should_prune()
        answers.append((stops(which, direction, ours, number, own), theirs))
        state, value = ("pruned", now.value) if theirs else ("complete", now.value)
        if theirs or step == n_steps:
            folds = tuple(values) if n_folds and not theirs else ()
            outcome = Outcome(state, value, 1.0, 1.0, folds, tuple(own))
            ours.finish(number, outcome)
            if theirs:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, value)
            del running[number]
    return answers


OPTUNA = {
    "median": (
        rule("median", startup=3),
        lambda _: optuna.pruners.MedianPruner(n_startup_trials=3),
        0,
    ),
    "percentile": (
        rule("percentile", startup=2, keep=0.4),
        lambda _: optuna.pruners.PercentilePruner(40.0, n_startup_trials=2),
        0,
    ),
    "threshold": (
        rule("threshold", worse_than=0.5),
        lambda direction: optuna.pruners.ThresholdPruner(
            **({"upper": 0.5} if direction == "lower" else {"lower": 0.5})
        ),
        0,
    ),
    # Optuna's patience counts the reports after the first one without a gain.
    "patient": (
        rule("patient", patience=3),
        lambda _: optuna.pruners.PatientPruner(None, patience=2),
        0,
    ),
    "halving": (
        rule("halving", factor=3),
        lambda _: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        0,
    ),
    "wilcoxon": (
        rule("wilcoxon", startup=1, p_value=0.1),
        lambda _: optuna.pruners.WilcoxonPruner(p_threshold=0.1),
        8,
    ),
}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", list(OPTUNA))
@settings(max_examples=4)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_rule_decides_as_optunas_pruner_of_that_name(
    name: str, direction: Direction, seed: int
) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    which, make, n_folds = OPTUNA[name]
    answers = decisions(which, direction, make(direction), seed, n_folds)
    assert [ours for ours, _ in answers] == [theirs for _, theirs in answers]
    assert {theirs for _, theirs in answers} == {True, False}


EVERY = [
    rule("median", startup=0),
    rule("percentile", startup=0),
    rule("halving"),
    rule("hyperband"),
    rule("wilcoxon", startup=0, p_value=0.4),
    rule("patient", patience=2),
    rule("threshold", worse_than=0.0),
]


@pytest.mark.parametrize("which", EVERY, ids=lambda which: which.rule)
@given(
    values=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=12),
    others=st.lists(
        st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=12),
        max_size=5,
    ),
    direction=st.sampled_from(DIRECTIONS),
    ladder=st.sampled_from(["rounds", "folds", "steps"]),
)
def test_any_values_are_judged(
    which: Pruner,
    values: list[float],
    others: list[list[float]],
    direction: Direction,
    ladder: Ladder,
) -> None:
    table = Table.of(enumerate(complete(other, ladder) for other in others))
    own = reports(values, ladder)
    assert stops(which, direction, table, 99, own) in (True, False)


@pytest.mark.parametrize("which", EVERY[:5], ids=lambda which: which.rule)
@pytest.mark.parametrize("ladder", ["rounds", "folds", "steps"])
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12))
def test_a_trial_is_never_compared_with_itself(
    which: Pruner, ladder: Ladder, values: list[float]
) -> None:
    better = complete([value - 1 for value in values], ladder)
    own = reports(values, ladder)
    assert not stops(which, "lower", Table.of([(7, better)]), 7, own)
    assert not stops(which, "lower", Table(), 7, own)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", ["median", "percentile", "halving", "threshold"])
def test_a_value_that_is_no_number_ends_a_trial(name: str, direction: Direction) -> None:
    arguments: dict[str, Any] = {"threshold": {"worse_than": 0.0}, "halving": {}}.get(
        name, {"startup": 1}
    )
    table = Table.of([(0, complete([1.0]))])
    assert stops(rule(name, **arguments), direction, table, 1, reports([math.nan]))


def test_nothing_is_judged_by_the_median_before_enough_trials_are_complete() -> None:
    table = Table()
    own = reports([9.0])
    for number in range(6):
        assert stops(rule("median", startup=4), "lower", table, 99, own) == (number >= 4)
        table.finish(number, complete([1.0]))
        table.finish(100 + number, Outcome("pruned", 1.0, 1.0, 1.0, reports=reports([1.0])))


@pytest.mark.parametrize("name", ["median", "percentile", "halving", "hyperband", "threshold"])
def test_the_first_fold_alone_never_ends_a_trial(name: str) -> None:
    arguments = {"worse_than": 0.0} if name == "threshold" else {}
    table = Table.of((number, folded([0.1, 0.2, 0.3])) for number in range(9))
    own = fold_reports([9.0, 9.0, 9.0])
    assert not stops(rule(name, **arguments), "lower", table, 18, own[:1])
    # 18 is of hyperband's first bracket.
    assert bracket_of(18, 2) == 0
    assert stops(rule(name, **arguments), "lower", table, 18, own[:2])


def test_an_easy_first_fold_does_not_cover_for_the_others() -> None:
    table = Table.of((number, folded([0.1, 0.5, 0.5])) for number in range(5))
    own = fold_reports([0.1, 0.9, 0.9])
    assert own[0].value < 0.3
    assert stops(rule("median"), "lower", table, 9, own[:2])


def test_folds_are_compared_with_the_same_folds_of_trials_that_went_in_rounds() -> None:
    outcome = Outcome(
        "complete", 0.3, 1.0, 1.0, (0.2, 0.3, 0.4), (Report("rounds", 10, 0.5, (0.4, 0.5, 0.6)),)
    )
    table = Table.of((number, outcome) for number in range(5))
    assert table.at("folds", 2)[0] == (0.25, (0.2, 0.3))
    assert stops(rule("median"), "lower", table, 9, fold_reports([0.25, 0.26]))
    assert not stops(rule("median"), "lower", table, 9, fold_reports([0.25, 0.24]))


@pytest.mark.parametrize("name", ["median", "percentile", "halving", "wilcoxon"])
def test_a_setting_that_is_bad_on_one_fold_only_goes_on(name: str) -> None:
    """It is worse than all others on the first fold, and better than all on the mean."""
    chance = np.random.default_rng(0)
    table = Table()
    for number in range(12):
        folds = tuple(0.5 + 0.01 * chance.random(5))
        steps = tuple(Report("rounds", n, float(np.mean(folds)), folds) for n in (5, 10, 15))
        table.finish(
            number, Outcome("complete", float(np.mean(folds)), 1.0, 1.0, folds, reports=steps)
        )
    odd = (0.6, 0.4, 0.4, 0.4, 0.4)
    assert all(odd[0] > folds[0] for _, folds in table.at("rounds", 10).values())
    own = [Report("rounds", n, 0.44, odd) for n in (5, 10, 15)]
    which = rule(name)
    assert not any(stops(which, "lower", table, 50, own[:n]) for n in (1, 2, 3))
    # The same table ends one that is worse on the mean.
    bad = [Report("rounds", n, 0.6, (0.6,) * 5) for n in (5, 10, 15)]
    assert any(stops(which, "lower", table, 50, bad[:n]) for n in (1, 2, 3))


def test_patience_is_not_lost_over_folds() -> None:
    own = fold_reports([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert not stops(rule("patient", patience=2), "lower", Table(), 0, own)
    assert stops(
        rule("patient", patience=2), "lower", Table(), 0, reports([0.1, 0.1, 0.2], "rounds")
    )


def test_a_failed_trial_is_no_standard() -> None:
    table = Table()
    for report in reports([0.0, 0.0]):
        table.report(3, report)
    assert stops(rule("halving"), "lower", table, 4, reports([1.0]))
    table.finish(3, Outcome("failed", None, 1.0, 1.0, reports=reports([0.0, 0.0])))
    assert not stops(rule("halving"), "lower", table, 4, reports([1.0]))


def test_a_trial_that_costs_too_much_is_no_standard() -> None:
    table = Table()
    for number, by in ((3, 0.1), (4, 0.0)):
        outcome = replace(complete([0.0, 0.0]), constraints={"model_kb": by})
        for report in outcome.reports:
            table.report(number, report)
        table.finish(number, outcome)
        assert set(table.at("steps", 1)) == {n for n in (4,) if n <= number}
    assert set(table.complete) == {4}


def test_a_copy_of_a_table_stays_as_it_is() -> None:
    table = Table.of([(0, complete([1.0, 2.0]))])
    kept = table.copy()
    sent = pickle.loads(pickle.dumps(table))  # noqa: S301 - our own
    table.finish(1, complete([0.0, 0.0]))
    for other in (kept, sent):
        assert set(other.at("steps", 1)) == {0}
        assert other.complete == {0: 2.0}
    assert set(table.at("steps", 1)) == {0, 1}


@given(n_rounds=st.integers(1, 5_000), longer=st.integers(0, 5_000))
@pytest.mark.parametrize("which", EVERY, ids=lambda which: which.rule)
def test_trials_of_any_length_report_at_the_same_rounds(
    which: Pruner, n_rounds: int, longer: int
) -> None:
    steps = report_rounds(which, n_rounds)
    assert steps == [step for step in report_rounds(which, n_rounds + longer) if step <= n_rounds]
    assert all(a < b for a, b in pairwise(steps))
    assert len(steps) < 40


def test_the_rounds_at_which_trials_are_judged() -> None:
    assert report_rounds(rule("halving", factor=3), 405) == [5, 15, 45, 135, 405]
    assert report_rounds(rule("halving"), 44) == [5, 10, 20, 40]
    assert report_rounds(rule("hyperband"), 50) == [5, 15, 45]
    assert report_rounds(rule("median"), 32) == [8, 10, 13, 16, 20, 25, 32]


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_brackets_have_the_sizes_of_hyperband_and_are_mixed(factor: int) -> None:
    brackets = [bracket_of(number, factor) for number in range(1_000)]
    counts = np.bincount(brackets)
    assert len(counts) == 3
    sizes = np.array([math.ceil(3 * factor**s / (s + 1)) for s in (2, 1, 0)])
    np.testing.assert_allclose(counts / 1_000, sizes / sizes.sum(), atol=0.01)
    longest = int(1_000 / counts.min()) + 2
    for start in range(0, 900, 50):
        assert set(brackets[start : start + 2 * longest]) == {0, 1, 2}


def test_a_bracket_judges_at_its_own_rungs_and_among_its_own() -> None:
    late = next(number for number in range(100) if bracket_of(number, 3) == 1)
    peers = [number for number in range(100) if bracket_of(number, 3) == 1 and number != late]
    strangers = [number for number in range(100) if bracket_of(number, 3) == 0]

    def judged(others: list[int], step: int) -> bool:
        table = Table()
        for number in others:
            for rung in (5, 15, 45):
                table.report(number, Report("rounds", rung, 0.1))
        own = [Report("rounds", rung, 0.9) for rung in (5, 15, 45) if rung <= step]
        return stops(rule("hyperband", factor=3), "lower", table, late, own)

    assert not judged(peers, 5)
    assert judged(peers, 15)
    assert not judged(strangers, 15)
