"""Points for the plots of an evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from holdtrue.references import Curves

if TYPE_CHECKING:
    from holdtrue.evaluation._metrics import Floats, Target

_POINTS = 200
_BINS = 10
_RESIDUALS = 1_000


def curves(target: Target, scores: Floats, classes: tuple[str, ...] | None, *, seed: int) -> Curves:
    """Choose the points that show how good the scores are.

    Args:
        target: Shape (n_rows,): indices into `classes`, or numbers for regression.
        scores: Shape (n_rows, n_classes), probabilities; (n_rows,) for regression.
        classes: Names of the classes; None for regression.
        seed: Of the choice of rows that are shown one by one.
    """
    if classes is None:
        chosen = np.arange(len(target))
        if len(target) > _RESIDUALS:
            generator = np.random.default_rng(seed)
            chosen = np.sort(generator.choice(len(target), _RESIDUALS, replace=False))
        return Curves(residuals=_pairs(scores[chosen], target[chosen]))
    n = len(classes)
    counts = np.bincount(target * n + scores.argmax(axis=1), minlength=n * n).reshape(n, n)
    confusion = tuple(tuple(int(count) for count in row) for row in counts)
    if n != 2 or not 0 < target.sum() < len(target):
        return Curves(confusion=confusion)
    roc, precision_recall = _rankings(target == 1, scores[:, 1])
    return Curves(
        roc=roc,
        precision_recall=precision_recall,
        calibration=_calibration(target, scores[:, 1]),
        confusion=confusion,
    )


def _pairs(x: Floats, y: Floats) -> tuple[tuple[float, float], ...]:
    return tuple(zip(x.tolist(), y.tolist(), strict=True))


def _rankings(
    positive: Target, scores: Floats
) -> tuple[tuple[tuple[float, float], ...], tuple[tuple[float, float], ...]]:
    order = np.argsort(-scores, kind="stable")
    # Rows with the same score cannot be told apart by any threshold.
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.cumsum(positive[order])[last]
    false = last + 1 - hits
    recall, alarms = hits / hits[-1], false / false[-1]
    shown = np.unique(np.linspace(0, len(last) - 1, _POINTS).astype(int))
    roc = _pairs(np.append(0.0, alarms[shown]), np.append(0.0, recall[shown]))
    return roc, _pairs(recall[shown], (hits / (last + 1))[shown])


def _calibration(target: Target, scores: Floats) -> tuple[tuple[float, float, int], ...]:
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, _BINS) if len(part)]
    return tuple(
        (float(scores[part].mean()), float(target[part].mean()), len(part)) for part in parts
    )
