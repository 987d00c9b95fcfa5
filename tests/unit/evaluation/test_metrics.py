from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from holdtrue.evaluation import UndefinedError, measure
from holdtrue.evaluation._metrics import measure_rows

BINARY = ("no", "yes")
THREE = ("a", "b", "c")


def make_binary(generator: np.random.Generator, n: int, *, ties: bool = False):
    score = generator.normal(size=n)
    target = (generator.random(n) < 1 / (1 + np.exp(1 - 1.5 * score))).astype(int)
    positive = 1 / (1 + np.exp(1 - score - generator.normal(size=n)))
    if ties:
        positive = positive.round(1)
    return target, np.column_stack([1 - positive, positive])


def make_three(generator: np.random.Generator, n: int):
    scores = np.exp(generator.normal(size=(n, 3)))
    scores /= scores.sum(axis=1, keepdims=True)
    target = (generator.random(n)[:, None] > scores.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    return target, scores


SKLEARN_BINARY = {
    "roc_auc": lambda y, s: sklearn_metrics.roc_auc_score(y, s[:, 1]),
    "average_precision": lambda y, s: sklearn_metrics.average_precision_score(y, s[:, 1]),
    "accuracy": lambda y, s: sklearn_metrics.accuracy_score(y, s.argmax(axis=1)),
    "f1": lambda y, s: sklearn_metrics.f1_score(y, s.argmax(axis=1)),
    "log_loss": lambda y, s: sklearn_metrics.log_loss(y, s.clip(1e-15, 1), labels=[0, 1]),
    "brier": lambda y, s: sklearn_metrics.brier_score_loss(y, s[:, 1]),
}
SKLEARN_THREE = {
    "roc_auc": lambda y, s: sklearn_metrics.roc_auc_score(y, s, multi_class="ovr"),
    "average_precision": sklearn_metrics.average_precision_score,
    "accuracy": lambda y, s: sklearn_metrics.accuracy_score(y, s.argmax(axis=1)),
    "f1": lambda y, s: sklearn_metrics.f1_score(y, s.argmax(axis=1), average="macro"),
    "log_loss": lambda y, s: sklearn_metrics.log_loss(y, s, labels=[0, 1, 2]),
    "brier": lambda y, s: ((s - np.eye(3)[y]) ** 2).sum(axis=1).mean(),
}
SKLEARN_REGRESSION = {
    "rmse": sklearn_metrics.root_mean_squared_error,
    "mae": sklearn_metrics.mean_absolute_error,
    "r2": sklearn_metrics.r2_score,
}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [20, 501, 3_000])
@pytest.mark.parametrize("metric", SKLEARN_BINARY)
def test_binary_metrics_equal_those_of_scikit_learn(generator, metric, n, ties):
    target, scores = make_binary(generator, n, ties=ties)
    if ties:  # A probability of exactly 0 or 1 makes the log loss a matter of clipping.
        scores = scores.clip(0.01, 0.99)
    expected = SKLEARN_BINARY[metric](target, scores)
    assert measure(metric, target, scores, BINARY) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", SKLEARN_THREE)
def test_multiclass_metrics_equal_those_of_scikit_learn(generator, metric):
    target, scores = make_three(generator, 700)
    expected = SKLEARN_THREE[metric](target, scores)
    assert measure(metric, target, scores, THREE) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", SKLEARN_REGRESSION)
def test_regression_metrics_equal_those_of_scikit_learn(generator, metric):
    target = generator.normal(size=400)
    scores = target + generator.normal(size=400)
    expected = SKLEARN_REGRESSION[metric](target, scores)
    assert measure(metric, target, scores, None) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", [*SKLEARN_BINARY, *SKLEARN_REGRESSION])
def test_influence_is_the_derivative_of_the_metric(generator, metric):
    """Doubling a row moves the metric by its influence over n, up to the order of 1 / n^2."""
    n = 4_000
    if metric in SKLEARN_BINARY:
        classes = BINARY
        target, scores = make_binary(generator, n, ties=True)
    else:
        classes = None
        target = generator.normal(size=n)
        scores = target + generator.normal(size=n)
    measured = measure_rows(metric, target, scores, classes)
    assert measured.influence.mean() == pytest.approx(0, abs=1e-10)
    for row in range(0, 40):
        again = np.append(np.arange(n), row)
        moved = measure(metric, target[again], scores[again], classes) - measured.value
        assert moved * n == pytest.approx(measured.influence[row], abs=0.02, rel=0.02)


def test_log_loss_is_cut_off_where_a_certain_answer_is_wrong():
    scores = np.array([[1.0, 0.0]])
    assert measure("log_loss", [1], scores, BINARY) == pytest.approx(-np.log(1e-15))
    assert measure("log_loss", [0], scores, BINARY) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("metric", "target", "scores", "classes"),
    [
        ("roc_auc", [1, 1], [[0.5, 0.5], [0.1, 0.9]], BINARY),
        ("average_precision", [0, 0], [[0.5, 0.5], [0.1, 0.9]], BINARY),
        ("roc_auc", [0, 1], [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]], THREE),
        ("f1", [0, 0], [[0.9, 0.1], [0.8, 0.2]], BINARY),
        ("r2", [3.0, 3.0], [1.0, 2.0], None),
        ("rmse", [], [], None),
        ("log_loss", np.empty(0, int), np.empty((0, 2)), BINARY),
    ],
)
def test_undefined_metrics_are_refused_with_the_reason(metric, target, scores, classes):
    with pytest.raises(UndefinedError, match=f"{metric} is undefined: it needs"):
        measure(metric, target, scores, classes)


@pytest.mark.parametrize(
    ("metric", "target", "scores", "classes", "said"),
    [
        ("rmse", [0], [[0.5, 0.5]], BINARY, "not a metric for classification"),
        ("roc_auc", [0.0], [0.5], None, "not a metric for regression"),
        ("auc", [0], [[0.5, 0.5]], BINARY, "not a metric"),
        ("accuracy", [0, 1], [[0.5, 0.5]], BINARY, "shape"),
        ("accuracy", [0], [0.5], BINARY, "shape"),
        ("rmse", [0.0], [float("nan")], None, "finite"),
        ("log_loss", [0, 1], [[0.5, 0.5], [1.5, -0.5]], BINARY, r"add up to 1, got 1\.5, -0\.5"),
        ("accuracy", [0], [[0.2, 0.2]], BINARY, r"add up to 1, got 0\.2, 0\.2"),
    ],
)
def test_what_does_not_fit_is_refused(metric, target, scores, classes, said):
    with pytest.raises(ValueError, match=said) as refused:
        measure(metric, target, scores, classes)
    assert not isinstance(refused.value, UndefinedError)
