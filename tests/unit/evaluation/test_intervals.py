from __future__ import annotations

import numpy as np
import pytest

from holdtrue.evaluation import estimate, measure
from holdtrue.evaluation._intervals import difference
from holdtrue.evaluation._metrics import measure_rows

BINARY = ("no", "yes")


def make_binary(generator: np.random.Generator, n: int, noise: float = 0.5):
    signal = generator.normal(size=n)
    target = (generator.random(n) < 1 / (1 + np.exp(1 - 1.2 * signal))).astype(int)
    positive = 1 / (1 + np.exp(1 - 1.2 * signal - generator.normal(scale=noise, size=n)))
    return target, np.column_stack([1 - positive, positive])


def make_numbers(generator: np.random.Generator, n: int):
    known = generator.normal(size=n)
    return known + generator.standard_t(6, size=n), 0.9 * known


@pytest.mark.parametrize(
    ("make", "classes", "metrics"),
    [
        (
            make_binary,
            BINARY,
            ["roc_auc", "average_precision", "accuracy", "f1", "log_loss", "brier"],
        ),
        (make_numbers, None, ["rmse", "mae", "r2"]),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(generator, make, classes, metrics):
    target, scores = make(generator, 300_000)
    truth = {metric: measure(metric, target, scores, classes) for metric in metrics}
    held = dict.fromkeys(metrics, 0)
    repeats = 200
    for _ in range(repeats):
        target, scores = make(generator, 300)
        for metric in metrics:
            found = estimate(metric, target, scores, classes, confidence=0.95)
            held[metric] += found.low <= truth[metric] <= found.high
    shares = {metric: count / repeats for metric, count in held.items()}
    assert all(0.90 <= share <= 0.99 for share in shares.values()), shares


def test_standard_error_of_the_bootstrap_is_met(generator):
    target, scores = make_binary(generator, 1_500)
    for metric in ("roc_auc", "average_precision", "f1"):
        draws = generator.integers(0, 1_500, (300, 1_500))
        replicates = [measure(metric, target[rows], scores[rows], BINARY) for rows in draws]
        found = estimate(metric, target, scores, BINARY, confidence=0.95)
        assert (found.high - found.low) / 3.92 == pytest.approx(np.std(replicates), rel=0.2)


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "accuracy", "f1"])
def test_perfect_scores_still_have_an_interval(metric):
    target = np.repeat([0, 1], [80, 20])
    scores = np.eye(2)[target]
    found = estimate(metric, target, scores, BINARY, confidence=0.95)
    assert found.value == found.high == pytest.approx(1)
    assert 0.8 < found.low < 0.99


def test_wilson_interval_of_the_accuracy():
    """Newcombe (1998), Statistics in Medicine 17, 857-872, table I."""
    target = np.zeros(263, dtype=int)
    scores = np.eye(2)[np.repeat([0, 1], [81, 182])]
    found = estimate("accuracy", target, scores, BINARY, confidence=0.95)
    # One row fewer in the effective size than in the table: the error is taken with n - 1.
    assert (found.low, found.high) == (
        pytest.approx(0.2553, abs=2e-4),
        pytest.approx(0.3662, abs=2e-4),
    )


def test_more_confidence_is_a_wider_interval(generator):
    target, scores = make_binary(generator, 500)
    widths = []
    for confidence in (0.5, 0.9, 0.99, 1.0):
        found = estimate("log_loss", target, scores, BINARY, confidence=confidence)
        assert 0 < found.low < found.value < found.high < float("inf")
        widths.append(found.high - found.low)
    assert widths == sorted(widths)


def compare(metric, direction, target, ours, theirs):
    candidate = measure_rows(metric, target, ours, BINARY)
    champion = measure_rows(metric, target, theirs, BINARY)
    return difference(metric, direction, candidate, champion, 0.95)


def test_the_same_scores_are_no_better(generator):
    target, scores = make_binary(generator, 400)
    found = compare("log_loss", "lower", target, scores, scores)
    assert (found.gain, found.low, found.high, found.probability) == (0, 0, 0, 0.5)


@pytest.mark.parametrize(("metric", "direction"), [("roc_auc", "higher"), ("log_loss", "lower")])
def test_a_gain_is_positive_whatever_the_direction(generator, metric, direction):
    target, scores = make_binary(generator, 2_000)
    noise = generator.normal(scale=0.1, size=2_000)
    worse = np.clip(scores[:, 1] + noise, 0.01, 0.99)
    worse = np.column_stack([1 - worse, worse])
    found = compare(metric, direction, target, scores, worse)
    assert 0 < found.low < found.gain < found.high
    assert found.probability > 0.99
    back = compare(metric, direction, target, worse, scores)
    assert back.gain == -found.gain
    assert back.probability == pytest.approx(1 - found.probability)


def test_the_probability_is_not_fooled_by_chance(generator):
    """Of two equally good models one is called better in about 5 % of the comparisons."""
    called = 0
    for _ in range(300):
        target = (generator.random(300) < 0.3).astype(int)
        ours, theirs = (generator.uniform(0.2, 0.4, 300) for _ in range(2))
        found = compare(
            "log_loss",
            "lower",
            target,
            np.column_stack([1 - ours, ours]),
            np.column_stack([1 - theirs, theirs]),
        )
        called += found.probability >= 0.95
    assert 3 <= called <= 30
