"""The rows that a backtest goes through, and the steps that it takes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from holdtrue.errors import ConfigError, DataError
from holdtrue.plan import read_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from holdtrue.system import System

Span = tuple[datetime, datetime]
"""From its first moment up to, and without, its end."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Before all data, for sources that are declared to be asked for windows; within what pandas counts.
_LONG_AGO = datetime(1900, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Past:
    """The rows of a span."""

    table: pa.Table
    """In order of time."""
    times: npt.NDArray[np.int64]
    """When each was, in microseconds since 1970."""
    steps: tuple[Span, ...]
    """What the model is asked, and the monitor looks at, at a time."""
    length: timedelta
    """Of a step; the last one may be shorter."""

    def between(self, span: Span) -> slice:
        """Which rows are of a span."""
        first, stop = np.searchsorted(self.times, [microseconds(moment) for moment in span])
        return slice(int(first), int(stop))


def read_past(
    system: System, start: datetime | None, end: datetime | None
) -> tuple[Past, datetime]:
    """Read the rows of a span.

    Args:
        system: Names the source.
        start: First moment, in UTC; the middle of the rows where left out.
        end: End, in UTC; ``data.as_of`` or now where left out.

    Returns:
        The rows, and the moment up to which their truth is known today.

    Raises:
        ConfigError: No time is declared, or the span is none.
        DataError: There are no rows in it, or none to train on before it.
    """
    import pyarrow.compute as pc

    declared, data = system.declaration, system.declaration.data
    if data.time is None:
        message = "a backtest needs it: the column with the time of the event"
        hint = "declare it, where the rows have one"
        raise ConfigError(message, hint=hint, key=("data", "time"))
    now = data.as_of or datetime.now(UTC).replace(microsecond=0)
    end = end or now
    first = None
    if data.window is not None:
        first = _LONG_AGO if start is None else start - data.labels_after - data.window
    if start is not None:
        _refuse_span(start, end)
    context = system.context(as_of=now)
    table = read_rows(context, first, end, declared.features.times)
    table = table.filter(pc.is_valid(table[data.time]))
    times = table[data.time].cast("int64").to_numpy()
    if not len(times):
        message = f"the source has no rows before {end:%Y-%m-%d %H:%M}"
        raise DataError(message, hint="give another --to, or look at data.source")
    start = start or _middle(times, declared.monitor.window)
    _refuse_span(start, end)
    trained_on, asked = np.searchsorted(
        times, [microseconds(start - data.labels_after), microseconds(start)]
    )
    if not trained_on:
        message = f"there are no labelled rows before {start:%Y-%m-%d %H:%M} to train on"
        raise DataError(message, hint=f"give a later --from: the rows are of {_span(times)}")
    if asked == len(times):
        message = f"there are no rows from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}"
        hint = f"give an earlier --from, or a later --to: the rows are of {_span(times)}"
        raise DataError(message, hint=hint)
    length = max(declared.monitor.every, declared.monitor.window)
    steps = steps_between(start, end, length, last=int(times[-1]))
    past = Past(table.slice(int(asked)), times[asked:], steps, length)
    return past, max(now, end) - data.labels_after


def _span(times: npt.NDArray[np.int64]) -> str:
    first, last = (_EPOCH + timedelta(microseconds=int(times[place])) for place in (0, -1))
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"


def _refuse_span(start: datetime, end: datetime) -> None:
    if start >= end:
        message = (
            f"the backtest would begin at {start:%Y-%m-%d %H:%M}, and end at {end:%Y-%m-%d %H:%M}"
        )
        raise ConfigError(message, hint="give a --from that is before --to, or before data.as_of")


def _middle(times: npt.NDArray[np.int64], window: timedelta) -> datetime:
    """The middle between the first and the last row, where a window of the monitor begins."""
    middle = timedelta(microseconds=(int(times[0]) + int(times[-1])) // 2)
    return _EPOCH + middle // window * window


def steps_between(
    start: datetime, end: datetime, length: timedelta, *, last: int
) -> tuple[Span, ...]:
    """Cut a span into steps, up to that with the last row.

    Args:
        start: Of the first step.
        end: Of the last step, at the latest.
        length: Of all steps but the last, which may be shorter.
        last: When the last row was, in microseconds since 1970; not before `start`.
    """
    count = (last - microseconds(start)) // (length // timedelta(microseconds=1)) + 1
    return tuple(
        (start + number * length, min(start + (number + 1) * length, end))
        for number in range(count)
    )


def microseconds(moment: datetime) -> int:
    """A moment as microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
