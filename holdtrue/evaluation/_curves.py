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
    taken = confusion(target, scores.argmax(axis=1), len(classes))
    calibration = reliability(target, scores)
    if len(classes) != 2 or not 0 < target.sum() < len(target):
        return Curves(calibration=calibration, confusion=taken)
    roc, precision_recall = _rankings(target == 1, scores[:, 1])
    return Curves(
        roc=roc, precision_recall=precision_recall, calibration=calibration, confusion=taken
    )


def confusion(target: Target, decided: Target, n_classes: int) -> tuple[tuple[int, ...], ...]:
    """Count rows by true class, then by decided class.

    Args:
        target: Shape (n_rows,), index of the true class.
        decided: Shape (n_rows,), index of the decided class.
        n_classes: How many there are.
    """
    counts = np.bincount(target * n_classes + decided, minlength=n_classes**2)
    return tuple(tuple(int(count) for count in row) for row in counts.reshape(n_classes, n_classes))


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


def reliability(target: Target, scores: Floats) -> tuple[tuple[float, float, int], ...]:
    """Compare predicted probability and observed share, by tenths of the rows in their order.

    Args:
        target: Shape (n_rows,), index of the true class.
        scores: Shape (n_rows, n_classes). Of two classes the second is looked at; of more all,
            each against the rest, together.

    Returns:
        (mean predicted probability, observed share, rows) of each tenth.
    """
    if scores.shape[1] == 2:
        given, hit = scores[:, 1], target == 1
    else:
        given, hit = scores.ravel(), (np.arange(scores.shape[1]) == target[:, None]).ravel()
    order = np.argsort(given, kind="stable")
    parts = [part for part in np.array_split(order, _BINS) if len(part)]
    return tuple((float(given[part].mean()), float(hit[part].mean()), len(part)) for part in parts)
