"""Which intervals of time are to be scored: a function of the clock and of what is done."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from holdtrue.references import Interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def over_until(
    now: datetime, every: timedelta, delay: timedelta, counted_from: datetime | None
) -> datetime:
    """End of the last interval whose rows are all there.

    Args:
        now: The moment.
        every: Length of an interval.
        delay: How long after its end its rows are all there.
        counted_from: Start of any interval; 1 January 1970 where left out. In UTC days have 24
            hours, whatever the clocks of a country do.
    """
    begin = counted_from or _EPOCH
    return begin + (now - delay - begin) // every * every


def next_start(moment: datetime, every: timedelta, counted_from: datetime | None) -> datetime:
    """Start of the first interval that starts at a moment or later; arguments as `over_until`."""
    begin = counted_from or _EPOCH
    return begin - (begin - moment) // every * every


def due(
    start: datetime,
    end: datetime,
    every: timedelta,
    done: Iterable[Interval],
    counted_from: datetime | None = None,
) -> list[Interval]:
    """The intervals between two moments that are not scored yet, oldest first.

    No moment is in two of them, nor in one that is done. Where intervals had another length before,
    what is left of one that was scored in part is an interval of its own.

    Args:
        start: The first moment.
        end: The first moment after, as `over_until` gives it.
        every: Length of an interval.
        done: Those that are scored; they do not overlap.
        counted_from: As for `over_until`.
    """
    begin = counted_from or _EPOCH
    return [
        interval
        for low, high in _gaps(start, end, done)
        for interval in _cut(low, high, every, begin)
    ]


def _gaps(
    start: datetime, end: datetime, done: Iterable[Interval]
) -> Iterator[tuple[datetime, datetime]]:
    """The stretches between two moments that lie in no interval."""
    at = start
    for interval in sorted(done, key=lambda one: one.start):
        if at < min(interval.start, end):
            yield at, min(interval.start, end)
        at = max(at, interval.end)
    if at < end:
        yield at, end


def _cut(low: datetime, high: datetime, every: timedelta, begin: datetime) -> Iterator[Interval]:
    """A stretch in parts that end where intervals end."""
    while low < high:
        stop = min(begin + ((low - begin) // every + 1) * every, high)
        yield Interval(start=low, end=stop)
        low = stop
