"""What is known of the rows: what was extracted, held to the contract, profiled and split."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from holdtrue.references._reference import Digest, Kind, Reference

if TYPE_CHECKING:
    from collections.abc import Mapping


class Snapshot(Reference):
    """One version of the system's table: what was extracted."""

    table: str
    """Folder of the Delta table, relative to the store."""
    version: int
    """Version of the Delta table."""
    digest: Digest
    """Digest of names, kinds and values."""
    rows: int
    start: datetime | None
    """First moment of the window (inclusive); None where the declaration has no time column."""
    end: datetime | None
    """End of the window (exclusive)."""
    columns: dict[str, Kind]


class Prepared(Reference):
    """Rows that a step of the project's own made."""

    files: tuple[str, ...]
    """Parquet files, relative to the store: one for each run, in the order of `foreach`."""
    digests: tuple[Digest, ...]
    """Of names, kinds and values in each of them."""
    runs: tuple[str, ...]
    """What each run was for, such as ``region north``; of one run alone, its step."""
    rows: int

    @property
    def content(self) -> object:
        """The rows, wherever they are kept."""
        return self.digests


class Finding(Reference):
    """The result of one rule of the contract."""

    rule: str
    """Such as ``distance: min 1``."""
    column: str | None
    passed: bool
    blocking: bool
    """Whether a failure stops the training; others are warnings."""
    rows: int = 0
    """Rows that break the rule."""
    detail: str = ""
    """What was found, in words."""


class NewClass(Reference):
    """A class that none of the first half of the rows is of."""

    rows: int
    since: datetime
    """Of the first of them."""

    def __str__(self) -> str:
        """How many and since when, in words."""
        return f"{self.rows:,} rows, the first of {self.since:%Y-%m-%d %H:%M} UTC"


class Derived(Reference):
    """A column that is computed of others."""

    name: str
    expression: str
    kind: Literal["number", "string"]
    """Of what it gives."""
    used: Literal["numeric", "categorical"] | None
    """How the model sees it; None: only others are made of it."""


class Roles(NamedTuple):
    """Names of columns by how a profile takes them."""

    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    times: tuple[str, ...]


def roles(
    numeric: tuple[str, ...],
    categorical: tuple[str, ...],
    temporal: tuple[str, ...],
    inputs: Mapping[str, Kind],
) -> Roles:
    """Features and what derived ones are made of, by how a profile takes them."""
    texts = [name for name, kind in inputs.items() if kind == "string"]
    times = [name for name, kind in inputs.items() if kind == "time"]
    others = [name for name in inputs if name not in (*texts, *times)]
    return Roles((*numeric, *others), (*categorical, *texts), (*temporal, *times))


class DataCheck(Reference):
    """What the contract said about a snapshot, and which rows are left to learn from."""

    rows: int
    """Rows of the snapshot."""
    unlabelled: int
    """Rows without a target; not learnt from."""
    quarantined: int
    """Rows that break a rule; set aside."""
    quarantine: str | None
    """Parquet file with the quarantined rows and reasons, relative to the store."""
    kept: str
    """Parquet file with the rows to learn from, relative to the store."""
    kept_rows: int
    asked: str
    """Parquet file with the feature columns (and the time) of every sound row, labelled or not:
    what a served model would have been asked. Relative to the store."""
    findings: tuple[Finding, ...]
    numeric: tuple[str, ...]
    """Feature columns used as numbers."""
    categorical: tuple[str, ...]
    """Feature columns used as categories."""
    temporal: tuple[str, ...] = ()
    """Feature columns used as times."""
    derived: tuple[Derived, ...] = ()
    """Columns that are computed of others, in order."""
    inputs: dict[str, Kind] = {}
    """Columns that nothing but the derived ones are made of, with the kinds of their values."""
    derived_missing: dict[str, float] = {}
    """Of what is derived and used, the share of missing values in the rows to learn from."""
    classes: tuple[str, ...] | None
    """Names of the classes, sorted; None for regression."""
    new_classes: dict[str, NewClass] = {}
    """Those of them that came late, where rows have a time."""

    @property
    def roles(self) -> Roles:
        """The columns that a row has, as a profile takes them."""
        return roles(self.numeric, self.categorical, self.temporal, self.inputs)

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The rules that stop the training."""
        return tuple(found for found in self.findings if found.blocking and not found.passed)


class ColumnSummary(Reference):
    """One column in numbers, for reports."""

    kind: Literal["numeric", "categorical"]
    missing: float
    """Share of missing values, 0..1."""
    quantiles: tuple[float, ...] = ()
    """For numbers: 201 quantiles from the smallest to the largest value."""
    levels: dict[str, int] = {}
    """For categories: the most frequent values with their counts, most frequent first."""
    distinct: float = 0.0
    """Estimated number of distinct values."""


class ProfileRef(Reference):
    """A whylogs profile of rows on disk, with the alarm thresholds calibrated on it."""

    path: str
    """Folder with profile.bin, summary.json and calibration.json, relative to the store."""
    digest: Digest
    rows: int
    blocks: int
    """Blocks of the monitoring window's length that the thresholds were calibrated on."""
    columns: dict[str, ColumnSummary]


class Split(Reference):
    """Which rows are trained on and which are only tested on."""

    train: str
    """Parquet file, relative to the store."""
    test: str
    """Parquet file, relative to the store."""
    train_rows: int
    test_rows: int
    boundary: datetime | None
    """First moment of the test rows, where the split follows time."""
    target_share: dict[str, tuple[float, float]]
    """For classification, by class: share of it in the training and in the test rows."""
    untaught: dict[str, tuple[int, int]] = {}
    """By class with too few training rows to learn it: how many there are, which are not trained
    on, and how many test rows are of it."""
    note: str = ""
    """That the rows end long before the test rows do, in a sentence; empty where they do not."""
