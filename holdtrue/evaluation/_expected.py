"""How good probabilities are in expectation, as long as the truth of their rows is not known."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from holdtrue.evaluation._intervals import interval
from holdtrue.evaluation._metrics import UndefinedError, measure
from holdtrue.models._calibration import Calibration, Sigmoid, fit_calibration
from holdtrue.references import Estimate, Expectation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdtrue.evaluation._metrics import Floats, Target

CONFIDENCE = 0.95
"""Level of the interval of an expected metric."""
_DRAWS = 50
_ROWS = 10_000
"""Of more rows so many are looked at: by then chance is the least part of the error."""
_BLOCKS = 40
_FEWEST_BLOCKS = 5
_BLOCK_ROWS = 200
_MOST_BLOCK_ROWS = 500
_AS_IT_IS = Sigmoid(a=-1.0, b=0.0)


def learn_expectation(
    target: Target, scores: Floats, metrics: Sequence[str], *, seed: int
) -> Expectation | None:
    """Learn on rows with truth how the metrics follow from the probabilities alone.

    The probabilities are corrected by Platt's curve, and the rows are cut into 40 blocks: how much
    further than chance the expected metric is from the real one there is its spread. Where rows are
    in order of time that is what days and weeks do.

    Args:
        target: Shape (n_rows,), index of the true class.
        scores: Shape (n_rows, n_classes), probabilities of rows that the model was not fitted on,
            in the same order.
        metrics: Which ones; one that is undefined for too many blocks is left out.
        seed: Of the draws.

    Returns:
        None where there are fewer than 1,000 rows (5 blocks of 200), or rows of one class only.
    """
    n_blocks = min(_BLOCKS, len(target) // _BLOCK_ROWS)
    if n_blocks < _FEWEST_BLOCKS or len(np.unique(target)) < 2:
        return None
    fitted = fit_calibration("sigmoid", scores, target)
    curves = [one if isinstance(one, Sigmoid) else _AS_IT_IS for one in fitted.curves]
    learnt = Expectation(curves=tuple((curve.a, curve.b) for curve in curves), spread={})
    corrected = _calibration(learnt)(scores)
    blocks = [
        block[:: math.ceil(len(block) / _MOST_BLOCK_ROWS)]
        for block in np.array_split(np.arange(len(target)), n_blocks)
    ]
    spread = {}
    for metric in metrics:
        beyond = []
        for block in blocks:
            drawn = _draw(metric, scores[block], corrected[block], seed)
            with suppress(UndefinedError):
                real = measure(metric, target[block], scores[block], _names(scores))
                if drawn is not None:
                    beyond.append((real - drawn[0]) ** 2 - drawn[1])
        if len(beyond) >= _FEWEST_BLOCKS:
            spread[metric] = math.sqrt(max(float(np.mean(beyond)), 0.0))
    return learnt.model_copy(update={"spread": spread})


def expect(metric: str, scores: Floats, expectation: Expectation, *, seed: int) -> Estimate | None:
    """Say what a metric will be if the truth of the rows follows their probabilities.

    The truth is drawn 50 times from the corrected probabilities, and the metric of the scores as
    they are is computed each time; its mean is the value. The 95 % interval has the variance of the
    draws and the spread in it. That the truth no longer follows from the columns as it did is not
    seen.

    Args:
        metric: One that the expectation was learnt for.
        scores: Shape (n_rows, n_classes), probabilities; of more than 10,000 rows some are looked
            at, always the same.
        expectation: Of the model, learnt on rows with truth.
        seed: Of the draws, and of the choice of rows.

    Returns:
        None where the metric was not learnt, or is undefined for the rows.

    References:
        Garg, Balakrishnan, Lipton, Neyshabur and Sedghi (2022), Leveraging unlabeled data to
        predict out-of-distribution performance, ICLR: there for accuracy, as average confidence.
    """
    spread = expectation.spread.get(metric)
    if spread is None or not len(scores):
        return None
    rows = len(scores)
    if rows > _ROWS:
        chosen = np.random.default_rng(seed).choice(rows, _ROWS, replace=False)
        scores = scores[np.sort(chosen)]
    drawn = _draw(metric, scores, _calibration(expectation)(scores), seed)
    if drawn is None:
        return None
    value, variance = drawn
    error = math.sqrt(variance + spread**2)
    low, high = interval(metric, value, error, confidence=CONFIDENCE, rows=rows)
    return Estimate(value=value, low=low, high=high)


def _calibration(expectation: Expectation) -> Calibration:
    curves = tuple(Sigmoid(a=a, b=b) for a, b in expectation.curves)
    return Calibration(method="sigmoid", curves=curves, rows=0)


def _names(scores: Floats) -> tuple[str, ...]:
    """Names of the classes, which no metric depends on."""
    return tuple(map(str, range(scores.shape[1])))


def _draw(metric: str, scores: Floats, truth: Floats, seed: int) -> tuple[float, float] | None:
    """Mean and variance of a metric where truth is drawn; None where it is always undefined."""
    generator = np.random.default_rng(seed)
    steps = truth.cumsum(axis=1)[:, :-1]
    values = []
    for _ in range(_DRAWS):
        target = (generator.random((len(scores), 1)) > steps).sum(axis=1)
        with suppress(UndefinedError):  # of few rows all may be of one class
            values.append(measure(metric, target, scores, _names(scores)))
    if not values:
        return None
    return float(np.mean(values)), float(np.var(values))
