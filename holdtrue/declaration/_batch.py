"""What a declaration says of a table that is scored at each interval of time."""

from __future__ import annotations

from datetime import timedelta
from pathlib import PurePath
from typing import Annotated

from pydantic import Field, field_validator

from holdtrue.declaration._data import SHOWN, Moment, Source
from holdtrue.declaration._section import Section
from holdtrue.declaration._values import Duration, DurationOrNone

_SHORTEST = timedelta(minutes=1)


class ToDelta(Section):
    """A Delta table that scored rows are written to."""

    delta: Annotated[str, Field(min_length=1), SHOWN]
    """Folder, from the project's folder, or a URL such as ``s3://bucket/scored``."""


class Batch(Section):
    """Rows that are scored interval by interval, without anybody asking. Needs `data.time`."""

    source: Source | None = None
    """Where the rows come from, without the target; data.source where left out."""
    every: Duration = timedelta(days=1)
    """Length of an interval: rows with `data.time` in [start, end) are scored together.

    Intervals are counted from `since`, or from 1 January 1970 (UTC): days begin at midnight.
    """
    delay: DurationOrNone = timedelta(0)
    """How long after the end of an interval its rows are all there."""
    deadline: Duration | None = None
    """How long after that an interval may be scored, before it is late.

    Who is in `notify` is told once that intervals are late, and why, and once that none is.
    """
    to: Annotated[str, Field(min_length=1)] | ToDelta | None = None
    """Where the scored rows go; a Delta table of the store where left out.

    A folder, from the project's folder: a Parquet file for each interval; or ``{delta: TABLE}``.
    """
    since: Moment | None = None
    """Start of the first interval; left out, of the last one that is over when it first runs."""

    @field_validator("every")
    @classmethod
    def _long_enough(cls, every: timedelta) -> timedelta:
        if every < _SHORTEST:
            message = "expected at least 1m"
            raise ValueError(message)
        return every

    @field_validator("to")
    @classmethod
    def _a_folder_of_its_own(cls, to: str | ToDelta | None) -> str | ToDelta | None:
        if isinstance(to, str) and "://" in to:
            message = "expected a folder of this machine, or {delta: URL}"
            raise ValueError(message)
        if isinstance(to, str) and PurePath(to) == PurePath():
            message = "expected a folder in the project's, not that itself"
            raise ValueError(message)
        return to
