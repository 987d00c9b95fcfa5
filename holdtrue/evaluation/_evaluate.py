"""The evaluation of one model: metrics, baseline, slices, and the champion on the same rows."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from holdtrue.declaration import METRICS
from holdtrue.evaluation._answers import calibrated, coverage, decisions
from holdtrue.evaluation._curves import curves
from holdtrue.evaluation._intervals import difference, estimate
from holdtrue.evaluation._metrics import UndefinedError, measure_rows
from holdtrue.references import Evaluation, SliceResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from holdtrue.evaluation._metrics import Floats, Target
    from holdtrue.models import Answering
    from holdtrue.references import Difference, Estimate

SLICE_ROWS = 50
"""Slices with fewer rows are left out: their intervals would say nothing."""
SLICE_VALUES = 50
"""At most so many values of a column are looked at, those with most rows."""


def evaluate(
    *,
    model_digest: str,
    target: npt.ArrayLike,
    scores: npt.ArrayLike,
    classes: tuple[str, ...] | None,
    metrics: Sequence[str],
    slices: Mapping[str, npt.ArrayLike],
    confidence: float,
    seed: int,
    train_target: npt.ArrayLike,
    champion: tuple[int, npt.ArrayLike] | None = None,
    importance: Mapping[str, float] | None = None,
    answering: Answering | None = None,
    raw: npt.ArrayLike | None = None,
) -> Evaluation:
    """Say how good a model is on rows that it has never seen.

    A metric that is undefined for the rows (one class only, say) is left out. All metrics are of
    the scores; accuracy and f1 are those of the most probable class, also where costs decide.

    Args:
        model_digest: Digest of the model's bundle.
        target: Shape (n_rows,): indices into `classes`, or numbers for regression.
        scores: Shape (n_rows, n_classes), probabilities; (n_rows,) for regression.
        classes: Names of the classes; None for regression.
        metrics: Which ones.
        slices: By column, the value of each row as text, shape (n_rows,). Values with fewer than
            50 rows are left out, and all but the 50 most frequent.
        confidence: Level of the intervals, between 0 and 1.
        seed: Of the choice of rows that plots show.
        train_target: Target of the training rows; from it comes the baseline.
        champion: Version that is served now and its scores on the same rows.
        importance: By feature.
        answering: How the model's scores become answers.
        raw: The scores before calibration; looked at where that is declared.

    Raises:
        ValueError: The arrays do not fit each other.
    """
    truth = np.asarray(target, dtype=np.float64 if classes is None else np.int64)
    rows = Rows(truth, np.asarray(scores, dtype=np.float64), classes)
    share = _baseline(np.asarray(train_target), classes)
    constant = rows._replace(scores=np.broadcast_to(share, rows.scores.shape))
    baseline = estimates(metrics, constant, confidence)
    gains: dict[str, Difference] = {}
    answers = {} if answering is None else _answers(rows, raw, answering, confidence)
    if champion is not None:
        served = rows._replace(scores=np.asarray(champion[1], dtype=np.float64))
        gains = differences(metrics, rows, served, confidence)
    return Evaluation(
        model=model_digest,
        rows=len(truth),
        classes=classes,
        confidence=confidence,
        metrics=estimates(metrics, rows, confidence),
        baseline={metric: found.value for metric, found in baseline.items()},
        over_baseline=differences(metrics, rows, constant, confidence),
        slices={
            column: _slices(metrics, rows, np.asarray(values).astype(str), confidence)
            for column, values in slices.items()
        },
        champion=None if champion is None else champion[0],
        differences=gains,
        curves=curves(rows.target, rows.scores, classes, seed=seed),
        importance=dict(sorted((importance or {}).items(), key=lambda item: -item[1])),
        **answers,
    )


class Rows(NamedTuple):
    """Rows with the truth and what a model says to them."""

    target: Target
    """Shape (n_rows,): indices into `classes`, or numbers for regression."""
    scores: Floats
    """Shape (n_rows, n_classes), probabilities; (n_rows,) for regression."""
    classes: tuple[str, ...] | None
    """Names of the classes; None for regression."""


def _answers(
    rows: Rows, raw: npt.ArrayLike | None, answering: Answering, confidence: float
) -> dict[str, Any]:
    if rows.classes is None:
        return {"coverage": coverage(rows.target, rows.scores, answering, confidence)}
    before = None if raw is None else np.asarray(raw, dtype=np.float64)
    return {
        "calibrated": calibrated(rows.target, before, rows.scores, rows.classes, answering),
        "decisions": decisions(rows.target, rows.scores, answering, confidence),
    }


def _baseline(train_target: Target, classes: tuple[str, ...] | None) -> Floats:
    if classes is None:
        return np.asarray(train_target.astype(np.float64).mean())
    counts = np.bincount(train_target.astype(np.int64), minlength=len(classes))
    shares: Floats = counts / counts.sum()
    return shares


def estimates(metrics: Sequence[str], rows: Rows, confidence: float) -> dict[str, Estimate]:
    """The metrics with their intervals, without those that are undefined for the rows.

    Args:
        metrics: Which ones.
        rows: What a model says, with the truth.
        confidence: Level of the intervals, between 0 and 1.
    """
    found = {}
    for metric in metrics:
        with suppress(UndefinedError):
            found[metric] = estimate(metric, *rows, confidence=confidence)
    return found


def _slices(
    metrics: Sequence[str], rows: Rows, values: npt.NDArray[np.str_], confidence: float
) -> dict[str, SliceResult]:
    names, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    order = [i for i in np.argsort(-counts, kind="stable") if counts[i] >= SLICE_ROWS]
    results = {}
    for i in order[:SLICE_VALUES]:
        chosen = index == i
        part = rows._replace(target=rows.target[chosen], scores=rows.scores[chosen])
        results[str(names[i])] = SliceResult(
            rows=int(counts[i]), metrics=estimates(metrics, part, confidence)
        )
    return results


def differences(
    metrics: Sequence[str], candidate: Rows, champion: Rows, confidence: float
) -> dict[str, Difference]:
    """Compare two models on the same rows, by the metrics that are defined for them.

    Args:
        metrics: Which ones.
        candidate: What the one says; a gain above 0 is in its favour.
        champion: What the other, or the baseline, says to the same rows, in the same order.
        confidence: Level of the intervals, between 0 and 1.
    """
    found = {}
    for metric in metrics:
        with suppress(UndefinedError):
            ours, theirs = measure_rows(metric, *candidate), measure_rows(metric, *champion)
            found[metric] = difference(metric, METRICS[metric][0], ours, theirs, confidence)
    return found
