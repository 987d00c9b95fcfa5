"""What calibration, decisions by cost and intervals are worth on unseen rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from holdtrue.evaluation._curves import confusion, reliability
from holdtrue.evaluation._intervals import cost, covered
from holdtrue.evaluation._metrics import measure
from holdtrue.references import Calibrated, Coverage, Decisions

if TYPE_CHECKING:
    from holdtrue.evaluation._metrics import Floats, Target
    from holdtrue.models import Answering


def decisions(
    target: Target, scores: Floats, answering: Answering, confidence: float
) -> Decisions | None:
    """Say what the decided classes cost; None where no costs are declared.

    Args:
        target: Shape (n_rows,), index of the true class.
        scores: Shape (n_rows, n_classes), probabilities.
        answering: Has the costs.
        confidence: Level of the intervals, between 0 and 1.
    """
    if answering.costs is None:
        return None
    table, decided = np.array(answering.costs), answering.decide(scores)
    ours, others = table[target, decided], table[target, scores.argmax(axis=1)]
    return Decisions(
        costs=answering.costs,
        threshold=answering.threshold,
        cost=cost(ours, confidence),
        most_probable=cost(others, confidence),
        gain=cost(others - ours, confidence, signed=True),
        confusion=confusion(target, decided, scores.shape[1]),
    )


def coverage(
    target: Target, ends: Floats | None, answering: Answering, confidence: float
) -> Coverage | None:
    """Say how often the truth is in its interval; None where no interval is declared.

    Args:
        target: Shape (n_rows,), the true values.
        ends: Shape (n_rows, 2), of the answered intervals.
        answering: Knows how often the truth is to be inside.
        confidence: Level of the interval of that share, between 0 and 1.
    """
    if ends is None or answering.interval is None:
        return None
    low, high = ends.T
    return Coverage(
        share=answering.interval.share,
        covered=covered((low <= target) & (target <= high), confidence),
        below=float(np.mean(target < low)),
        above=float(np.mean(target > high)),
        width=float(np.mean(high - low)),
    )


def calibrated(
    target: Target,
    before: Floats | None,
    after: Floats,
    classes: tuple[str, ...],
    answering: Answering,
) -> Calibrated | None:
    """Compare probabilities before and after calibration; None where none is declared.

    Args:
        target: Shape (n_rows,), index of the true class.
        before: Shape (n_rows, n_classes), as the pipeline gave them.
        after: The same after calibration.
        classes: Names of the classes.
        answering: Has the calibration.
    """
    if before is None or answering.calibration is None:
        return None
    return Calibrated(
        method=answering.calibration.method,
        rows=answering.calibration.rows,
        uncorrected=tuple(classes[index] for index in answering.calibration.uncorrected),
        before=_losses(target, before, classes),
        after=_losses(target, after, classes),
        curve=reliability(target, before),
    )


def _losses(target: Target, scores: Floats, classes: tuple[str, ...]) -> dict[str, float]:
    losses = {name: measure(name, target, scores, classes) for name in ("log_loss", "brier")}
    return losses | {"calibration_error": _calibration_error(target, scores)}


def _calibration_error(target: Target, scores: Floats) -> float:
    """Mean distance of predicted and observed share over tenths of the rows.

    References:
        Naeini, Cooper and Hauskrecht (2015), Obtaining well calibrated probabilities using
        Bayesian binning, AAAI, 2901-2907 (there with bins of equal width).
    """
    points = np.array(reliability(target, scores))
    return float(np.average(np.abs(points[:, 0] - points[:, 1]), weights=points[:, 2]))
