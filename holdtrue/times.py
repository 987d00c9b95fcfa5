"""Moments as counts of microseconds, and the numbers that a model sees of them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Moments = npt.NDArray[np.datetime64]

DAY = 86_400_000_000
HOUR = 3_600_000_000
"""In microseconds, as all counts here are: since 1970, in UTC."""
# What nanoseconds since 1970 can count, in whole years: pandas and Arrow go no further in them.
FIRST = -9_214_560_000_000_000
"""The start of 1678."""
LAST = 9_214_646_399_999_999
"""The end of 2261."""
PARTS = ("days", "month", "day", "weekday", "hour")
"""What a moment becomes.

Days since 1970 with their fraction, month 1..12, day of the month 1..31, day of the week 0..6 from
Monday on, and hour 0..23; in UTC.
"""
NULL = np.int64(np.iinfo(np.int64).min)
"""The count of NaT."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - what has no zone is UTC
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_THURSDAY = 3
"""The day of the week that 1970 began with."""


def count_of(text: str) -> int:
    """Read a date or time as in ISO 8601; without an offset it is UTC.

    Raises:
        ValueError: It is none.
    """
    moment = datetime.fromisoformat(text)
    since = moment - (_NAIVE_EPOCH if moment.tzinfo is None else _EPOCH)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def text_of(count: int) -> str:
    """The inverse of `count_of`, as RFC 3339 has it: with seconds and Z.

    Args:
        count: From `FIRST` to `LAST`.
    """
    moment = _NAIVE_EPOCH + timedelta(microseconds=count)
    return f"{moment.isoformat()}Z"


def is_inside(count: int) -> bool:
    """Whether models take the moment."""
    return FIRST <= count <= LAST


def parts_of(count: int) -> tuple[float, int, int, int, int]:
    """The `PARTS` of a moment.

    Args:
        count: From `FIRST` to `LAST`.
    """
    days, rest = divmod(count, DAY)
    on = date_of(count)
    # As a float first: beyond 2^53 the quotient of whole numbers is rounded otherwise than NumPy's.
    return float(count) / DAY, on.month, on.day, (days + _THURSDAY) % 7, rest // HOUR


def date_of(count: int) -> date:
    """The date of a moment, in UTC.

    Args:
        count: From `FIRST` to `LAST`.
    """
    return date.fromordinal(count // DAY + _EPOCH_ORDINAL)


def part(counts: Counts, name: str) -> npt.NDArray[np.float64]:
    """One of the `PARTS` of many moments, shape (n,).

    Args:
        counts: shape (n,), from `FIRST` to `LAST`.
        name: Which part.
    """
    if name == "days":
        return counts.astype(np.float64) / DAY
    days = counts // DAY
    if name == "weekday":
        return ((days + _THURSDAY) % 7).astype(np.float64)
    if name == "hour":
        return (counts % DAY // HOUR).astype(np.float64)
    months = days.view("M8[D]").astype("M8[M]")
    if name == "month":
        return (months.view(np.int64) % 12 + 1).astype(np.float64)
    return (days - months.astype("M8[D]").view(np.int64) + 1).astype(np.float64)
