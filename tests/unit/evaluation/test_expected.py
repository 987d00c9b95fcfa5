"""What a metric is expected to be: against closed forms, and against the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit, logit

from holdtrue.evaluation import expect, learn_expectation, measure
from holdtrue.references import Estimate, Expectation

METRICS = ("log_loss", "roc_auc", "accuracy")
YES_NO = ("no", "yes")


def as_it_is(n_classes: int = 2, **spread: float) -> Expectation:
    """The truth follows the probabilities as they are."""
    n_curves = 1 if n_classes == 2 else n_classes
    return Expectation(curves=((-1.0, 0.0),) * n_curves, spread=spread)


def two(yes: np.ndarray) -> np.ndarray:
    return np.column_stack([1 - yes, yes])


def drawn(generator: np.random.Generator, probabilities: np.ndarray) -> np.ndarray:
    """Truth that follows probabilities, shape (n_rows, n_classes)."""
    steps = probabilities.cumsum(axis=1)[:, :-1]
    return (generator.random((len(probabilities), 1)) > steps).sum(axis=1)


def expected(
    metric: str, scores: np.ndarray, expectation: Expectation | None, seed: int = 0
) -> Estimate:
    assert expectation is not None
    found = expect(metric, scores, expectation, seed=seed)
    assert found is not None
    return found


def error_of(found: Estimate) -> float:
    """Standard error of the mean of the draws, of an estimate without spread."""
    return (found.high - found.low) / (2 * 1.96) / math.sqrt(50)


def test_log_loss_is_the_entropy_where_the_truth_follows_the_scores(
    generator: np.random.Generator,
) -> None:
    scores = two(generator.uniform(0.02, 0.98, 2_000))
    found = expected("log_loss", scores, as_it_is(log_loss=0.0))
    entropy = -(scores * np.log(scores)).sum(axis=1).mean()
    assert abs(found.value - entropy) < 4 * error_of(found)


@pytest.mark.parametrize("shift", [-1.0, 0.5, 2.0])
def test_log_loss_is_the_cross_entropy_where_it_follows_others(
    generator: np.random.Generator, shift: float
) -> None:
    yes = generator.uniform(0.02, 0.98, 2_000)
    scores, truth = two(yes), two(expit(logit(yes) + shift))
    moved = Expectation(curves=((-1.0, -shift),), spread={"log_loss": 0.0})
    found = expected("log_loss", scores, moved)
    cross = -(truth * np.log(scores)).sum(axis=1).mean()
    assert abs(found.value - cross) < 4 * error_of(found)


def test_of_more_classes(generator: np.random.Generator) -> None:
    scores = generator.dirichlet([1.0, 2.0, 0.5], 2_000)
    expectation = as_it_is(3, accuracy=0.0, brier=0.0)
    accuracy = expected("accuracy", scores, expectation)
    assert abs(accuracy.value - scores.max(axis=1).mean()) < 4 * error_of(accuracy)
    brier = expected("brier", scores, expectation)
    assert abs(brier.value - (1 - (scores**2).sum(axis=1)).mean()) < 4 * error_of(brier)


def test_the_interval_holds_chance_and_spread(generator: np.random.Generator) -> None:
    scores = two(generator.uniform(0.02, 0.98, 2_000))
    chance = expected("brier", scores, as_it_is(brier=0.0))
    wide = expected("brier", scores, as_it_is(brier=0.02))
    assert chance.value == wide.value
    error = math.log(chance.high / chance.value) * chance.value / 1.96
    both = math.hypot(error, 0.02)
    assert wide.high == pytest.approx(wide.value * math.exp(1.96 * both / wide.value), rel=1e-4)
    share = expected("accuracy", scores, as_it_is(accuracy=0.5))
    assert 0 <= share.low < share.value < share.high <= 1


def test_other_rows_are_seen_and_scores_are_corrected(generator: np.random.Generator) -> None:
    """The model says twice the log-odds; rows to come are easier than those it was tested on."""

    def rows(count: int, width: float) -> tuple[np.ndarray, np.ndarray]:
        odds = generator.normal(0, width, count)
        return drawn(generator, two(expit(odds))), two(expit(2 * odds))

    target, scores = rows(8_000, 1.0)
    expectation = learn_expectation(target, scores, METRICS, seed=0)
    assert expectation is not None
    ((a, b),) = expectation.curves
    assert (a, b) == (pytest.approx(-0.5, abs=0.05), pytest.approx(0, abs=0.1))
    truth, later = rows(8_000, 2.5)
    for metric in METRICS:
        real = measure(metric, truth, later, YES_NO)
        found = expected(metric, later, expectation)
        guess = measure(metric, target, scores, YES_NO)
        assert abs(found.value - real) < 0.3 * abs(guess - real)
        assert found.low < real < found.high


def test_a_changed_rule_is_not_seen(generator: np.random.Generator) -> None:
    """The limit that the guide tells: the same columns, and the truth turned round."""
    scores = two(generator.uniform(0.02, 0.98, 8_000))
    target = drawn(generator, scores)
    expectation = learn_expectation(target[:4_000], scores[:4_000], METRICS, seed=0)
    later = scores[4_000:]
    before = measure("roc_auc", target[4_000:], later, YES_NO)
    after = measure("roc_auc", 1 - target[4_000:], later, YES_NO)
    found = expected("roc_auc", later, expectation)
    assert after < 0.5 < found.low < before < found.high


def test_what_days_do_beyond_chance_is_spread(generator: np.random.Generator) -> None:
    odds = generator.normal(2, 1, 8_000)
    bad_days = np.repeat(generator.normal(0, 1, 40), 200)
    alike = drawn(generator, two(expit(odds)))
    uneven = drawn(generator, two(expit(odds + bad_days)))
    quiet, shaken = (
        learn_expectation(target, two(expit(odds)), ["brier"], seed=0) for target in (alike, uneven)
    )
    assert quiet is not None
    assert shaken is not None
    assert quiet.spread["brier"] < 0.01 < 0.03 < shaken.spread["brier"]


def test_of_few_rows_or_one_class_nothing_is_learnt(generator: np.random.Generator) -> None:
    scores = two(generator.uniform(0.02, 0.98, 1_000))
    target = drawn(generator, scores)
    assert learn_expectation(target, scores, METRICS, seed=0) is not None
    assert learn_expectation(target[1:], scores[1:], METRICS, seed=0) is None
    assert learn_expectation(np.ones(1_000, dtype="int64"), scores, METRICS, seed=0) is None


def test_a_rare_class_is_left_as_it_is_and_a_metric_without_it_left_out(
    generator: np.random.Generator,
) -> None:
    scores = generator.dirichlet([5.0, 5.0, 0.01], 1_000)
    target = scores[:, :2].argmax(axis=1)
    target[:2] = 2
    found = learn_expectation(target, scores, METRICS, seed=0)
    assert found is not None
    assert found.curves[2] == (-1.0, 0.0)
    assert {*found.spread} == {"log_loss", "accuracy"}  # roc_auc needs rows of every class
    assert expect("roc_auc", scores, found, seed=0) is None


def test_where_there_is_nothing_to_say() -> None:
    expectation = as_it_is(roc_auc=0.0)
    assert expect("roc_auc", np.empty((0, 2)), expectation, seed=0) is None
    sure = two(np.ones(300))  # of one class for sure, so that nothing can be ranked
    assert expect("roc_auc", sure, expectation, seed=0) is None
    assert expect("f1", two(np.full(300, 0.5)), expectation, seed=0) is None


def test_of_many_rows_always_the_same_are_looked_at(generator: np.random.Generator) -> None:
    scores = two(generator.uniform(0.02, 0.98, 30_000))
    first, second = (expected("log_loss", scores, as_it_is(log_loss=0.01)) for _ in range(2))
    assert first == second
    entropy = -(scores * np.log(scores)).sum(axis=1).mean()
    assert first.low < entropy < first.high
    assert first != expected("log_loss", scores, as_it_is(log_loss=0.01), seed=1)
