"""An interval of time whose rows are scored together, and what came of it."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import AwareDatetime, Field

from holdtrue.references._reference import Digest, Reference


def moment_words(moment: datetime) -> str:
    """A moment in UTC as ISO 8601 has it, such as ``2013-07-01T00:00:00Z``."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


class Interval(Reference):
    """The moments from `start` (inclusive) to `end` (exclusive)."""

    start: AwareDatetime
    end: AwareDatetime

    def __str__(self) -> str:
        return moment_words(self.start)

    @property
    def bounds(self) -> tuple[datetime, datetime]:
        """Start and end."""
        return self.start, self.end

    @property
    def name(self) -> str:
        """Name of its files: its start, without what a file's name should not have."""
        return f"{self.start.astimezone(UTC):%Y-%m-%dT%H%M%SZ}"


class ScoredInterval(Interval):
    """What came of scoring the rows of an interval."""

    system: str
    version: int
    """That has scored them."""
    digest: Digest
    """Of its bundle."""
    rows: int
    """That were scored."""
    rejected: int
    """Rows that were not, because they are not acceptable."""
    unknown: dict[str, int] = Field(default_factory=dict)
    """By column, how many values are no category that the model knows; they were scored."""
    at: AwareDatetime
    """When they were scored, in UTC."""
    output: str
    """The file, or the Delta table, that they are in."""
    rejects: str | None
    """The file that says which rows were rejected, and why; None where none was."""
