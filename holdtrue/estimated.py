"""How good the answers probably were, before their labels have come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from holdtrue.profiles import MIN_ROWS
from holdtrue.quality import PERFORMANCE_WINDOWS, evaluations_of, floor
from holdtrue.references import EstimatedQuality
from holdtrue.serving import some_answers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from holdtrue.models import Signature
    from holdtrue.plan import Context
    from holdtrue.references import Expectation, WindowCheck
    from holdtrue.registry import Champion, RegisteredVersion


# Of these `expect` looks at half or more.
_ROWS = 20_000


class _Span(NamedTuple):
    of: Literal["window", "unlabelled"]
    start: datetime
    end: datetime


def estimate_quality(
    context: Context,
    champion: Champion,
    signature: Signature,
    table: Path,
    windows: Sequence[WindowCheck],
) -> tuple[EstimatedQuality, ...]:
    """Estimate the metric of the champion's answers from their probabilities, see `expect`.

    Args:
        context: Its moment is taken for now. The metric is that of ``monitor.performance``, or that
            of the search where none is declared.
        champion: Whose answers.
        signature: What it takes and gives.
        table: What was captured.
        windows: Those that were compared now; of the last 14 each is estimated.

    Returns:
        One for each window with 200 of its answers or more, oldest first; then, where labels come
        later than after one window, one of all rows whose labels are not due. Empty where the
        version's evaluation did not learn it: for regression, for fewer than 1,000 test rows, for
        a metric that was not evaluated, and for a refit that knows other classes.
    """
    import pyarrow.compute as pc

    from holdtrue.evaluation import expect

    version, monitor = champion.version, context.declaration.monitor
    metric = (monitor.performance or context.declaration.tune).metric
    expected, learnt = version.metrics.get(metric), _learnt(context, version, signature)
    if expected is None or learnt is None:
        return ()
    found = []
    for span in _spans(context, version, windows):
        answered, n_answers = some_answers(
            table, span.start, span.end, version.number, "scores", _ROWS
        )
        if n_answers < MIN_ROWS:
            continue
        scores = pc.list_flatten(answered).to_numpy().reshape(len(answered), -1)
        value = expect(metric, scores, learnt, seed=context.declaration.seed)
        if value is None:
            continue
        found.append(
            EstimatedQuality(
                version=version.number,
                metric=metric,
                of=span.of,
                rows=n_answers,
                start=span.start,
                end=span.end,
                value=value,
                expected=expected.value,
                detail=(
                    f"{metric} of version {version.number} about {value.value:.4g} "
                    f"({value.low:.4g} to {value.high:.4g}) on {n_answers:,} rows "
                    f"{_when(span)}, {expected.value:.4g} when evaluated"
                ),
            )
        )
    return tuple(found)


def in_words(estimated: Sequence[EstimatedQuality]) -> str:
    """The newest estimates in a sentence; empty where there are none."""
    details = "; ".join(one.detail for one in newest(estimated))
    return f"Estimated from the probabilities, without labels: {details}." if details else ""


def newest(estimated: Sequence[EstimatedQuality]) -> tuple[EstimatedQuality, ...]:
    """The last one of a window, and that of rows without labels."""
    return tuple({one.of: one for one in estimated}.values())


def _learnt(
    context: Context, version: RegisteredVersion, signature: Signature
) -> Expectation | None:
    """What the evaluation of a version learnt; None where there is none for what it serves."""
    for found in evaluations_of(context, version):
        if found.classes == signature.classes and found.expectation is not None:
            return found.expectation
    return None


def _spans(
    context: Context, version: RegisteredVersion, windows: Sequence[WindowCheck]
) -> list[_Span]:
    data, length = context.declaration.data, context.declaration.monitor.window
    compared = [window for window in windows if window.state != "too_few_rows"]
    spans = [_Span("window", one.start, one.end) for one in compared[-PERFORMANCE_WINDOWS:]]
    start = max(floor(version.as_of, length), context.labelled_until)
    if data.time is not None and data.labels_after > length and start < context.as_of:
        spans.append(_Span("unlabelled", start, context.as_of))
    return spans


def _when(span: _Span) -> str:
    if span.of == "unlabelled":
        return f"since {span.start:%Y-%m-%d %H:%M}, whose labels are not due yet"
    return f"from {span.start:%Y-%m-%d %H:%M} to {span.end:%Y-%m-%d %H:%M}"
