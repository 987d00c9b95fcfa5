"""The evaluation of one model: metrics, baseline, slices, and the champion on the same rows."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.declaration import METRICS
from holdtrue.evaluation._answers import calibrated, coverage, decisions
from holdtrue.evaluation._curves import curves
from holdtrue.evaluation._expected import learn_expectation
from holdtrue.evaluation._intervals import difference, estimate
from holdtrue.evaluation._metrics import UndefinedError, measure_rows
from holdtrue.evaluation._slices import most_frequent
from holdtrue.evaluation._together import Rows, together
from holdtrue.references import Evaluation, PartResult, SliceResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from holdtrue.evaluation._metrics import Floats, Target
    from holdtrue.models import Answering
    from holdtrue.references import Difference, Estimate, PartFit

SLICE_ROWS = 50
"""Slices with fewer rows are left out: their intervals would say nothing."""


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
    untaught: Mapping[str, tuple[int, int]] | None = None,
    champion: tuple[int, Rows] | None = None,
    importance: Mapping[str, float] | None = None,
    answering: Answering | None = None,
    raw: npt.ArrayLike | None = None,
    intervals: npt.ArrayLike | None = None,
    parts: tuple[npt.ArrayLike, Sequence[PartFit]] | None = None,
) -> Evaluation:
    """Say how good a model is on rows that it has never seen.

    A metric that is undefined for the rows (one class only, say) is left out. All metrics are of
    the scores; accuracy and f1 are those of the most probable class, also where costs decide.

    Args:
        model_digest: Digest of the model's bundle.
        target: Shape (n_rows,): indices into `classes`, or numbers for regression; in order of time
            where there is one. Rows with -1 are of a class that the model does not know, and are
            left out.
        scores: Shape (n_rows, n_classes), probabilities; (n_rows,) for regression.
        classes: Names of the classes; None for regression.
        metrics: Which ones.
        slices: By column, the value of each row as text, shape (n_rows,). Values with fewer than
            50 rows are left out, and all but the 50 most frequent.
        confidence: Level of the intervals, between 0 and 1.
        seed: Of the choice of rows that plots show, and of what is drawn.
        train_target: Target of the training rows; from it comes the baseline.
        untaught: By class that is left out: its training and its test rows.
        champion: Version that is served now and what it says to the same rows, in the same order.
            Where one of the two models knows all classes of the other and more, they are compared
            on rows of these.
        importance: By feature.
        answering: How the model's scores become answers.
        raw: The scores before calibration; looked at where that is declared.
        intervals: Shape (n_rows, 2): the answered intervals; None where none is declared.
        parts: Shape (n_rows,), which part, from 0 on, each row is of, and the fits of the parts;
            None: all rows are answered by one fit.

    Raises:
        ValueError: The arrays do not fit each other.
    """
    every = Rows.of(target, scores, classes)
    known = every.known
    rows = every.where(known)
    share = _baseline(np.asarray(train_target), classes)
    constant = rows._replace(scores=np.broadcast_to(share, rows.scores.shape))
    baseline = estimates(metrics, constant, confidence)
    answers = {}
    if answering is not None:
        before, ends = (
            None if one is None else np.asarray(one, dtype=np.float64)[known]
            for one in (raw, intervals)
        )
        answers = _answers(rows, before, ends, answering, confidence)
    expectation = None
    if classes is not None:
        expectation = learn_expectation(rows.target, rows.scores, metrics, seed=seed)
    return Evaluation(
        model=model_digest,
        rows=len(rows.target),
        classes=classes,
        confidence=confidence,
        metrics=estimates(metrics, rows, confidence),
        baseline={metric: found.value for metric, found in baseline.items()},
        over_baseline=differences(metrics, rows, constant, confidence),
        slices={
            column: _slices(metrics, rows, np.asarray(values).astype(str)[known], confidence)
            for column, values in slices.items()
        },
        untaught={**(untaught or {})},
        **({} if champion is None else _against(metrics, every, *champion, confidence)),
        curves=curves(rows.target, rows.scores, classes, seed=seed),
        importance=dict(sorted((importance or {}).items(), key=lambda item: -item[1])),
        parts=() if parts is None else _parts(metrics, every, champion, *parts, confidence),
        expectation=expectation,
        **answers,
    )


def _against(
    metrics: Sequence[str], rows: Rows, number: int, theirs: Rows, confidence: float
) -> dict[str, Any]:
    ours, served = set(rows.classes or ()), set(theirs.classes or ())
    both = together(rows, theirs)
    found: dict[str, Difference] = {}
    if both is not None:
        found = differences(metrics, both[0], both[1], confidence, every=ours == served)
    return {
        "champion": number,
        "champion_lacks": tuple(sorted(ours - served)),
        "champion_only": tuple(sorted(served - ours)),
        "differences": found,
    }


def _parts(
    metrics: Sequence[str],
    rows: Rows,
    champion: tuple[int, Rows] | None,
    part: npt.ArrayLike,
    fits: Sequence[PartFit],
    confidence: float,
) -> tuple[PartResult, ...]:
    """How good the model is in each part, and the champion, where it is of the same classes."""
    other = None if champion is None else champion[1]
    results = []
    for number, fit in enumerate(fits):
        chosen = (np.asarray(part) == number) & rows.known
        theirs = {}
        if other is not None and other.classes == rows.classes:
            theirs = estimates(metrics, other.where(chosen), confidence)
        results.append(
            PartResult(
                since=fit.since,
                learnt=fit.rows,
                rows=int(chosen.sum()),
                metrics=estimates(metrics, rows.where(chosen), confidence),
                champion={metric: found.value for metric, found in theirs.items()},
            )
        )
    return tuple(results)


def _answers(
    rows: Rows,
    raw: Floats | None,
    intervals: Floats | None,
    answering: Answering,
    confidence: float,
) -> dict[str, Any]:
    if rows.classes is None:
        return {"coverage": coverage(rows.target, intervals, answering, confidence)}
    return {
        "calibrated": calibrated(rows.target, raw, rows.scores, rows.classes, answering),
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
    return {
        name: SliceResult(
            rows=int(chosen.sum()), metrics=estimates(metrics, rows.where(chosen), confidence)
        )
        for name, chosen in most_frequent(values, SLICE_ROWS)
    }


def differences(
    metrics: Sequence[str],
    candidate: Rows,
    champion: Rows,
    confidence: float,
    *,
    every: bool = True,
) -> dict[str, Difference]:
    """Compare two models on the same rows, by the metrics that are defined for them.

    Args:
        metrics: Which ones.
        candidate: What the one says; a gain above 0 is in its favour.
        champion: What the other, or the baseline, says to the same rows, in the same order.
        confidence: Level of the intervals, between 0 and 1.
        every: As for `measure`.
    """
    found = {}
    for metric in metrics:
        with suppress(UndefinedError):
            ours, theirs = (measure_rows(metric, *r, every=every) for r in (candidate, champion))
            found[metric] = difference(metric, METRICS[metric][0], ours, theirs, confidence)
    return found
