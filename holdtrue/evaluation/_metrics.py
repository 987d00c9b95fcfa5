"""The metrics, each with the influence of every row on it: intervals follow from that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from holdtrue.declaration import METRICS

if TYPE_CHECKING:
    from collections.abc import Callable

Floats = npt.NDArray[np.float64]
Target = npt.NDArray[Any]
"""Class indices, or numbers for regression."""

CLIP = 1e-15
"""Probabilities are cut to [CLIP, 1 - CLIP] before a logarithm is taken."""

# How far from 0, 1 and a sum of 1 probabilities may be: of single precision and many classes.
_ROUNDING = 1e-3

# What a metric needs to be defined, in words that fit after "it needs".
NEEDS = {
    "roc_auc": "rows of every class",
    "average_precision": "rows of every class",
    "accuracy": "at least one row",
    "f1": "rows that are, or are taken for, the class in question",
    "log_loss": "at least one row",
    "brier": "at least one row",
    "rmse": "at least one row",
    "mae": "at least one row",
    "r2": "rows with different targets",
}


class UndefinedError(ValueError):
    """The rows do not hold what a metric needs."""


class Measured(NamedTuple):
    """A metric and how each row moves it."""

    value: float
    influence: Floats
    """Shape (n_rows,), mean 0: the metric's variance is the mean of its squares over n_rows."""
    size: int
    """Rows that bear the metric: for rankings those of the smallest class."""


def measure(
    metric: str,
    target: npt.ArrayLike,
    scores: npt.ArrayLike,
    classes: tuple[str, ...] | None,
    *,
    every: bool = True,
) -> float:
    """Compute one metric.

    Binary ``roc_auc``, ``average_precision``, ``f1`` and ``brier`` are those of the second class;
    with more classes the first three are the unweighted mean over classes (one against the rest)
    and ``brier`` is the squared error summed over the classes, from 0 to 2. The predicted class is
    the most probable one.

    Args:
        metric: One of `holdtrue.declaration` METRICS.
        target: Shape (n_rows,): indices into `classes`, or numbers for regression.
        scores: Shape (n_rows, n_classes), probabilities; (n_rows,) for regression.
        classes: Names of the classes; None for regression.
        every: Whether ``roc_auc`` and ``average_precision`` of more than two classes need rows of
            each; else they are the mean over those that have rows.

    Raises:
        UndefinedError: A ValueError: the rows do not hold what the metric needs.
        ValueError: The arrays do not fit, or the metric does not fit the task.
    """
    return measure_rows(metric, target, scores, classes, every=every).value


def measure_rows(
    metric: str,
    target: npt.ArrayLike,
    scores: npt.ArrayLike,
    classes: tuple[str, ...] | None,
    *,
    every: bool = True,
) -> Measured:
    """Compute one metric and the influence of each row on it; arguments as for `measure`.

    Raises:
        UndefinedError: A ValueError: the rows do not hold what the metric needs.
        ValueError: The arrays do not fit, or the metric does not fit the task.
    """
    task = "regression" if classes is None else "classification"
    if metric not in METRICS or task not in METRICS[metric][1]:
        message = f"{metric} is not a metric for {task}"
        raise ValueError(message)
    truth = np.asarray(target, dtype=np.float64 if classes is None else np.int64)
    given = np.asarray(scores, dtype=np.float64)
    expected = truth.shape if classes is None else (*truth.shape, len(classes))
    if given.shape != expected:
        message = f"{metric}: scores have the shape {given.shape}, expected {expected}"
        raise ValueError(message)
    if not np.isfinite(given).all():
        message = f"{metric}: scores must be finite"
        raise ValueError(message)
    if classes is not None and len(given):
        off = np.maximum(np.abs(given - 0.5).max(axis=1) - 0.5, np.abs(given.sum(axis=1) - 1))
        if off.max() > _ROUNDING:
            odd = ", ".join(f"{value:.4g}" for value in given[int(off.argmax())])
            message = f"{metric}: a row's probabilities must be 0 to 1 and add up to 1, got {odd}"
            raise ValueError(message)
    if len(given) == 0:
        raise _undefined(metric)
    if metric in _RANKINGS:
        return _one_against_rest(metric, truth, given, every=every)
    return _COMPUTE[metric](truth, given)


def _undefined(metric: str) -> UndefinedError:
    return UndefinedError(f"{metric} is undefined: it needs {NEEDS[metric]}")


def _mean(losses: Floats) -> Measured:
    value = float(losses.mean())
    return Measured(value, losses - value, len(losses))


def _one_against_rest(metric: str, target: Target, scores: Floats, *, every: bool) -> Measured:
    """Rank by the second of two classes; of more take the mean over them."""
    rank, n_classes = _RANKINGS[metric], scores.shape[1]
    present = np.flatnonzero(np.bincount(target, minlength=n_classes))
    if len(present) < (n_classes if every or n_classes == 2 else 2):
        raise _undefined(metric)
    if n_classes == 2:
        return rank(target == 1, scores[:, 1])
    return _average([rank(target == label, scores[:, label]) for label in present])


def _average(parts: list[Measured]) -> Measured:
    value = float(np.mean([part.value for part in parts]))
    influence = np.mean([part.influence for part in parts], axis=0)
    return Measured(value, influence, min(part.size for part in parts))


def _auc(positive: npt.NDArray[np.bool_], scores: Floats) -> Measured:
    """Area under the ROC curve; the influences are DeLong's structural components.

    References:
        DeLong, DeLong and Clarke-Pearson (1988), Comparing the areas under two or more correlated
        receiver operating characteristic curves, Biometrics 44, 837-845, equations 3 to 5.
    """
    above, below = np.sort(scores[positive]), np.sort(scores[~positive])
    share = len(above) / len(scores)
    # The share of the other class that a row beats, ties counting one half.
    wins = _midrank(below, scores[positive]) / len(below)
    losses = 1 - _midrank(above, scores[~positive]) / len(above)
    value = float(wins.mean())
    influence = np.empty(len(scores))
    influence[positive] = (wins - value) / share
    influence[~positive] = (losses - value) / (1 - share)
    return Measured(value, influence, min(len(above), len(below)))


def _midrank(ordered: Floats, values: Floats) -> Floats:
    left, right = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return (left + right) / 2


def _average_precision(positive: npt.NDArray[np.bool_], scores: Floats) -> Measured:
    """Mean over the positive rows of the precision among rows scored at least as high.

    With A(s) = P(score >= s, positive) and G(s) = P(score >= s) it is
    E[positive A(score) / G(score)] / P(positive). The influence is the derivative of that
    ratio in the direction of one row.
    """
    n = len(scores)
    distinct, group = np.unique(-scores, return_inverse=True)
    hits = np.bincount(group, weights=positive, minlength=len(distinct)) / n
    reached = np.cumsum(np.bincount(group, minlength=len(distinct))) / n
    hit = np.cumsum(hits)
    precision = hit / reached
    share = float(positive.mean())
    value = float(hits @ precision) / share
    # Sums over the positive rows that are scored no higher than the row in question.
    gained = np.cumsum((hits / reached)[::-1])[::-1]
    diluted = np.cumsum((hits * precision / reached)[::-1])[::-1]
    moved = positive * (precision + gained)[group] - diluted[group] - value * share
    influence = (moved - value * (positive - share)) / share
    n_positive = int(positive.sum())
    return Measured(value, influence, min(n_positive, n - n_positive))


def _f1(target: Target, scores: Floats) -> Measured:
    predicted = scores.argmax(axis=1)
    labels = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    parts = []
    for label in labels:
        both = 2.0 * ((target == label) & (predicted == label))
        either = (target == label).astype(np.float64) + (predicted == label)
        if not either.any():
            continue
        value = float(both.sum() / either.sum())
        influence = (both - value * either) / either.mean()
        parts.append(Measured(value, influence, max(int((target == label).sum()), 1)))
    if not parts:
        message = "f1"
        raise _undefined(message)
    return _average(parts)


def _accuracy(target: Target, scores: Floats) -> Measured:
    return _mean((scores.argmax(axis=1) == target).astype(np.float64))


def _log_loss(target: Target, scores: Floats) -> Measured:
    given = scores[np.arange(len(target)), target]
    return _mean(-np.log(np.clip(given, CLIP, 1 - CLIP)))


def _brier(target: Target, scores: Floats) -> Measured:
    if scores.shape[1] == 2:
        return _mean((scores[:, 1] - target) ** 2)
    return _mean(((scores - np.eye(scores.shape[1])[target]) ** 2).sum(axis=1))


def _rmse(target: Target, scores: Floats) -> Measured:
    squared = _mean((scores - target) ** 2)
    value = squared.value**0.5
    influence = squared.influence / (2 * value) if value > 0 else squared.influence
    return Measured(value, influence, squared.size)


def _mae(target: Target, scores: Floats) -> Measured:
    return _mean(np.abs(scores - target))


def _r2(target: Target, scores: Floats) -> Measured:
    deviation = (target - target.mean()) ** 2
    variance = float(deviation.mean())
    if np.ptp(target) == 0 or variance == 0:
        message = "r2"
        raise _undefined(message)
    squared = (scores - target) ** 2
    left = float(squared.mean()) / variance
    return Measured(1 - left, (left * deviation - squared) / variance, len(target))


_RANKINGS: dict[str, Callable[[npt.NDArray[np.bool_], Floats], Measured]] = {
    "roc_auc": _auc,
    "average_precision": _average_precision,
}
_COMPUTE: dict[str, Callable[[Target, Floats], Measured]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "log_loss": _log_loss,
    "brier": _brier,
    "rmse": _rmse,
    "mae": _mae,
    "r2": _r2,
}
