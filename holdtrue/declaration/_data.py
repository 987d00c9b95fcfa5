"""What a declaration says of the rows: where they come from, and what must hold for them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from holdtrue.declaration._section import ImportPath, Section
from holdtrue.declaration._values import Duration, Share


def _utc(value: Any) -> datetime:
    """Read a date or a time; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if not isinstance(moment, datetime):
            raise TypeError
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, OverflowError) as err:
        message = "expected a time such as 2013-07-01 or 2013-07-01T12:00:00Z"
        raise ValueError(message) from err


Moment = Annotated[
    datetime,
    BeforeValidator(_utc),
    WithJsonSchema({"type": "string", "examples": ["2013-07-01", "2013-07-01T12:00:00Z"]}),
]


SOURCES = ("python", "files", "database", "delta", "step")
"""The keys of a source."""


# What in a URL's options is nobody's business, by a part of its name.
_SECRET = re.compile(r"(?i)([?&;][^=&;?]*(?:pass|pwd|secret|token|key|credential)[^=&;?]*=)[^&]*")
_INSIDE = re.compile(r"(?i)((?:pwd|password)(?:=|%3D))[^&]*")


def without_password(url: str) -> str:
    """What is shown of a URL, and written down: whose password changes, the data do not.

    Of one that is none, rather more is hidden than less.
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        head, colon, tail = url.partition(":")
        return f"{head}:***{tail[tail.rindex('@') :]}" if colon and "@" in tail else url
    name, colon, after = rest.partition(":")
    if colon and "/" not in name:
        if "@" in after:
            rest = f"{name}:***{after[after.rindex('@') :]}"
        elif not re.match(r"\d*(?:[/?#,]|$)", after):  # no port, so a password without its host
            rest = f"{name}:***"
    shown = _SECRET.sub(r"\1***", f"{scheme}://{rest}")
    return _INSIDE.sub(r"\1***", shown)


SHOWN = PlainSerializer(without_password, when_used="json")
DatabaseUrl = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9_]*(\+[a-z0-9_]+)?://", repr=False), SHOWN
]


class Database(Section):
    """A query that is put to a database."""

    url: DatabaseUrl
    """URL of SQLAlchemy, such as ``postgresql://user:password@host/name`` or ``sqlite:///a.db``.

    Best as ``${env:NAME}``: the password is not written down anywhere. A relative path of SQLite
    starts from the project's folder.
    """
    query: str = Field(min_length=1)
    """A SELECT. Where it says ``:start`` and ``:end``, they are the window's, in UTC.

    What it gives beyond them is left out, too.
    """


class Delta(Section):
    """A Delta table."""

    table: Annotated[str, Field(min_length=1), SHOWN]
    """Folder, from the project's folder, or a URL such as ``s3://bucket/orders``."""
    version: NonNegativeInt | None = None
    """The newest where left out."""


class Source(Section):
    """Where the rows come from: exactly one of the keys."""

    python: ImportPath | None = None
    """Import path of a function ``(start, end) -> DataFrame or Arrow table``.

    It returns the rows with event time in [start, end).
    """
    files: Annotated[str, Field(min_length=1), SHOWN] | None = None
    """Path or glob of Parquet (.parquet), CSV (.csv, .csv.gz) or JSON lines (.jsonl) files.

    It starts from the project's folder, or is a URL such as ``s3://bucket/orders/*.parquet``.
    """
    database: Database | None = None
    """A query."""
    delta: Delta | None = None
    """A Delta table."""
    step: Annotated[str, Field(min_length=1)] | None = None
    """Name of a step of `steps`, which makes them."""

    @classmethod
    def chosen(cls, value: dict[str, Any]) -> object:
        return [name for name in SOURCES if value.get(name) is not None] or None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(getattr(self, name) is not None for name in SOURCES) != 1:
            message = f"expected exactly one of: {', '.join(SOURCES)}"
            raise ValueError(message)
        return self

    def __str__(self) -> str:
        if self.database is not None:
            return f"the database {without_password(self.database.url)}"
        if self.delta is not None:
            return f"the Delta table {without_password(self.delta.table)}"
        if self.files is not None:
            return f"the files {without_password(self.files)}"
        if self.step is not None:
            return f"the step {self.step}"
        return f"the source {self.python}"


class Bounds(Section):
    """The smallest and the largest number that is acceptable."""

    min: float | None = None
    """Smallest acceptable value (inclusive)."""
    max: float | None = None
    """Largest acceptable value (inclusive)."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            message = f"min ({self.min:g}) is greater than max ({self.max:g})"
            raise ValueError(message)
        return self


class ColumnContract(Bounds):
    """What must hold for the values of one column."""

    type: Literal["integer", "number", "string", "boolean", "time"] | None = None
    """Kind of the values."""
    missing: Share = 1.0
    """Largest acceptable share of missing values."""
    allowed: tuple[str | int | float | bool, ...] | None = None
    """The only acceptable values."""
    unique: bool = False
    """Whether each value may occur only once."""


class Contract(Section):
    """What must hold before a row is learnt from."""

    rows: Bounds = Bounds(min=1)
    """How many rows a snapshot must have."""
    columns: dict[str, ColumnContract] = Field(default={})
    """Rules by column."""
    quarantine: Share = 0.01
    """Largest acceptable share of rows that break a rule; they are set aside, with the reason."""


class Data(Section):
    """What the model learns from."""

    source: Source
    """Where the rows come from."""
    target: str
    """Column to predict. A row without it has no label and is not learnt from."""
    time: str | None = None
    """Column with the time of the event: it orders the split and windows the monitor.

    Without a zone it is UTC.
    """
    key: tuple[str, ...] = ()
    """Columns that identify a row: they join labels to predictions when they arrive."""
    labels_after: Duration = timedelta(days=1)
    """How late the truth is known."""
    window: Duration | None = None
    """How much history one training reads; all there is where left out. Needs `time`."""
    half_life: Duration | None = None
    """A row that is so much older than another counts half as much in training. Needs `time`.

    All rows count the same where left out.
    """
    as_of: Moment | None = None
    """Pretend that it is this moment: for data that have ended.

    The command's --as-of goes before it.
    """
    contract: Contract = Contract()
    """What must hold before a row is learnt from."""

    @model_validator(mode="after")
    def _needs_time(self) -> Self:
        given = [key for key in ("window", "half_life") if getattr(self, key) is not None]
        if given and self.time is None:
            message = f"{given[0]} needs `time`: the column with the time of the event"
            raise ValueError(message)
        return self
