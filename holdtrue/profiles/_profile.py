"""Profiles of rows as whylogs sketches: taken once, merged, stored and read as numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self
from zlib import crc32

import numpy as np

from holdtrue.errors import DataError, MonitoringError
from holdtrue.profiles._normalise import labels, numbers
from holdtrue.references import ColumnSummary
from holdtrue.store import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

# whylogs reports its use over the network when it is imported, unless this is set.
os.environ.setdefault("WHYLOGS_NO_ANALYTICS", "1")

N_QUANTILES = 401  # every second one is a quantile of the summary, the others measure distances
N_BUCKETS = 64
SUMMARY_LEVELS = 200
_BUCKETS = "\x1fbuckets"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, eq=False)
class Column:
    """What a profile knows about one column.

    Args:
        rows: All rows, also those where it is missing.
        missing: Rows where it is missing; infinite numbers count as missing.
        distinct: Estimated number of distinct values.
        quantiles: For numbers: shape (401,), the quantiles 0, 1/400, ... 1; empty without values.
        levels: For categories: rows by label; exact up to 768 labels, incomplete above.
        buckets: For categories: shape (64,), rows by hash of the label; always exact.
    """

    rows: int
    missing: int
    distinct: float
    quantiles: NDArray[np.float64]
    levels: dict[str, int] | None
    buckets: NDArray[np.int64]

    @property
    def present(self) -> int:
        """Rows that have a value."""
        return self.rows - self.missing


def spread(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    """The 401 quantiles of sorted values, as the sketch defines them.

    Args:
        ordered: shape (n,), increasing.

    Returns:
        Shape (401,); empty where there is no value.
    """
    n = len(ordered)
    if n == 0:
        return ordered
    at = np.arange(N_QUANTILES) * n // (N_QUANTILES - 1)
    return ordered[np.minimum(at, n - 1)]


def bucket_of(label: str) -> int:
    """The bucket that a label falls into: 0..63, the same on every machine."""
    return crc32(label.encode()) % N_BUCKETS


class Profile:
    """Counts and sketches of the feature columns of some rows, without the rows.

    The labels of categories are kept in plain text: leave out columns with personal data.

    Args:
        view: A whylogs DatasetProfileView as made by `take`.
    """

    def __init__(self, view: Any) -> None:
        self._view = view

    @classmethod
    def take(
        cls,
        frame: pd.DataFrame,
        numeric: Sequence[str],
        categorical: Sequence[str],
        *,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> Self:
        """Profile rows. Columns that the frame lacks are left out.

        Args:
            frame: shape (n_rows, n_columns).
            numeric: Columns read as numbers.
            categorical: Columns read as categories.
            start: First moment of the rows (inclusive), with a time zone.
            end: End of the rows (exclusive), with a time zone.

        Raises:
            DataError: A column occurs twice, or holds values that are not categories.
        """
        wanted = [*numeric, *categorical]
        twice = sorted({name for name in wanted if list(frame.columns).count(name) > 1})
        if twice:
            message = f"the columns {', '.join(twice)} occur twice in the data"
            raise DataError(message, hint="give every column its own name")
        columns: dict[str, Any] = {}
        for name in numeric:
            if name in frame:
                columns[name] = _numeric_column(*numbers(frame[name]))
        for name in categorical:
            if name in frame:
                codes, names = labels(frame[name])
                counts = np.bincount(codes[codes >= 0], minlength=len(names))
                columns[name] = _level_column(names, counts, len(codes))
                hashed = np.zeros(N_BUCKETS, dtype=np.int64)
                np.add.at(hashed, [bucket_of(label) for label in names], counts)
                columns[name + _BUCKETS] = _level_column(
                    [str(bucket) for bucket in range(N_BUCKETS)], hashed, len(codes)
                )
        return cls(_view(columns, len(frame), start, end))

    @property
    def rows(self) -> int:
        """How many rows were profiled."""
        return int(self._view.metadata["rows"])

    @property
    def start(self) -> datetime | None:
        """First moment of the rows, where known."""
        return _moment(self._view.metadata.get("start"))

    @property
    def end(self) -> datetime | None:
        """End of the rows (exclusive), where known."""
        return _moment(self._view.metadata.get("end"))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the profiled columns, sorted."""
        return tuple(sorted(c for c in self._view.get_columns() if not c.endswith(_BUCKETS)))

    def column(self, name: str) -> Column | None:
        """What is known about a column; None where the rows did not have it."""
        view = self._view.get_column(name)
        if view is None:
            return None
        counts = view.get_metric("counts")
        numeric = view.get_metric("distribution")
        quantiles = np.empty(0)
        levels = None
        buckets = np.zeros(N_BUCKETS, dtype=np.int64)
        if numeric is None:
            levels = _levels(view)
            for bucket, rows in _levels(self._view.get_column(name + _BUCKETS)).items():
                buckets[int(bucket)] = rows
        elif not numeric.kll.value.is_empty():  # asking an empty sketch ends the process
            fractions = (np.arange(N_QUANTILES) / (N_QUANTILES - 1)).tolist()
            quantiles = np.asarray(numeric.kll.value.get_quantiles(fractions), dtype=np.float64)
        return Column(
            rows=int(counts.n.value),
            missing=int(counts.null.value),
            distinct=float(view.get_metric("cardinality").estimate or 0.0),
            quantiles=quantiles,
            levels=levels,
            buckets=buckets,
        )

    def merge(self, other: Profile) -> Profile:
        """The profile of both sets of rows together. Neither is changed."""
        columns = dict(self._view.get_columns())
        for name, column in other._view.get_columns().items():
            columns[name] = columns[name].merge(column) if name in columns else column
        starts = [moment for moment in (self.start, other.start) if moment is not None]
        ends = [moment for moment in (self.end, other.end) if moment is not None]
        start, end = min(starts, default=None), max(ends, default=None)
        return Profile(_view(columns, self.rows + other.rows, start, end))

    def summary(self) -> dict[str, ColumnSummary]:
        """Every column in numbers: 201 quantiles or the 200 most frequent labels."""
        columns = {name: self.column(name) for name in self.columns}
        return {name: summarise(column) for name, column in columns.items() if column is not None}

    def serialize(self) -> bytes:
        """The profile in the file format of whylogs."""
        return bytes(self._view.serialize())

    @classmethod
    def deserialize(cls, content: bytes) -> Self:
        """The inverse of `serialize`.

        Raises:
            MonitoringError: These are not the bytes of a profile.
        """
        from google.protobuf.message import DecodeError
        from whylogs.core.errors import Error
        from whylogs.core.view.dataset_profile_view import DatasetProfileView

        try:
            profile = cls(DatasetProfileView.deserialize(content))
            _ = profile.rows, profile.start, profile.end
        except (Error, DecodeError, KeyError, ValueError, OSError, RuntimeError) as err:
            message = "the content is not a whylogs profile made by holdtrue"
            raise MonitoringError(message, hint="take the profile again") from err
        return profile

    def write(self, path: Path) -> None:
        """Write the profile to a file."""
        write_atomically(path, self.serialize())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a profile that `write` wrote.

        Raises:
            MonitoringError: There is no such file, or it is damaged.
        """
        try:
            return cls.deserialize(path.read_bytes())
        except OSError as err:
            message = f"the profile {path} cannot be read: {err.strerror or err}"
            raise MonitoringError(message) from err
        except MonitoringError as err:
            message = f"{path}: {err.message}"
            raise MonitoringError(message, hint=err.hint) from err


def summarise(column: Column) -> ColumnSummary:
    """A column in numbers, for reports."""
    share = column.missing / column.rows if column.rows else 0.0
    if column.levels is None:
        return ColumnSummary(
            kind="numeric",
            missing=share,
            quantiles=tuple(column.quantiles[::2].tolist()),
            distinct=column.distinct,
        )
    most = sorted(column.levels.items(), key=lambda item: (-item[1], item[0]))[:SUMMARY_LEVELS]
    return ColumnSummary(
        kind="categorical", missing=share, levels=dict(most), distinct=column.distinct
    )


def _numeric_column(values: NDArray[np.float64], infinite: int) -> Any:
    from whylogs.core.metrics.metrics import CardinalityMetric, DistributionMetric

    present = values[~np.isnan(values)]
    distribution = DistributionMetric.zero()
    distribution.kll.value.update(array=present)
    if len(present):
        distribution.mean.set(float(present.mean()))
        distribution.m2.set(float(present.var() * len(present)))
    cardinality = CardinalityMetric.zero()
    cardinality.hll.value.update_np(present)
    return _column_view(
        len(values),
        len(values) - len(present),
        infinite,
        {"distribution": distribution, "cardinality": cardinality},
    )


def _level_column(names: Sequence[str], counts: NDArray[np.int64], rows: int) -> Any:
    from whylogs.core.metrics.metrics import CardinalityMetric, FrequentItemsMetric

    items = FrequentItemsMetric.zero()
    # One weighted update a label instead of one a row: the same sketch, many times faster.
    for label, count in zip(names, counts.tolist(), strict=True):
        if count:
            items.frequent_strings.value.update(label, count)
    cardinality = CardinalityMetric.zero()
    cardinality.hll.value.update_str_list([n for n, c in zip(names, counts, strict=True) if c])
    return _column_view(
        rows, rows - int(counts.sum()), 0, {"frequent_items": items, "cardinality": cardinality}
    )


def _column_view(rows: int, missing: int, infinite: int, metrics: dict[str, Any]) -> Any:
    """A column as whylogs would make it, but without its type mapper, which fails on NumPy 2."""
    from whylogs.core.metrics.column_metrics import ColumnCountsMetric, TypeCountersMetric
    from whylogs.core.view.column_profile_view import ColumnProfileView

    counts = ColumnCountsMetric.zero()
    counts.n.set(rows)
    counts.null.set(missing)
    counts.inf.set(infinite)
    types = TypeCountersMetric.zero()
    kind = types.fractional if "distribution" in metrics else types.string
    kind.set(rows - missing)
    return ColumnProfileView({"counts": counts, "types": types, **metrics}, success_count=rows)


def _levels(view: Any) -> dict[str, int]:
    items = view.get_metric("frequent_items").strings
    return {item.value: int(item.est) for item in items}


def _view(columns: dict[str, Any], rows: int, start: datetime | None, end: datetime | None) -> Any:
    from whylogs.core.view.dataset_profile_view import DatasetProfileView

    metadata = {"rows": str(rows)}
    if start is not None:
        metadata["start"] = start.isoformat()
    if end is not None:
        metadata["end"] = end.isoformat()
    stamp = start or _EPOCH
    return DatasetProfileView(
        columns=columns, dataset_timestamp=stamp, creation_timestamp=stamp, metadata=metadata
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
