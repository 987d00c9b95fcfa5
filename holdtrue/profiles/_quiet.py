"""Compares each block of a reference with all the others: how much do quiet windows differ?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from holdtrue.profiles import _difference as difference
from holdtrue.profiles._calibration import ColumnCalibration
from holdtrue.profiles._profile import N_BUCKETS, Column, bucket_of, spread, summarise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from holdtrue.profiles._blocks import Blocks
    from holdtrue.profiles._difference import Measured, Test
    from holdtrue.references import ColumnSummary

_MOST_LABELS = 500  # with more, single labels say little and window sketches are not exact any more


@dataclass(frozen=True, eq=False)
class Quiet:
    """One column of a reference.

    Args:
        column: What later windows are compared with; its effects are still empty.
        summary: For reports.
        values: By test, shape (n_blocks,): how far each block lies from the others.
        p_values: By test, shape (n_blocks,): the p-value of that.
    """

    column: ColumnCalibration
    summary: ColumnSummary
    values: dict[Test, NDArray[np.float64]]
    p_values: dict[Test, NDArray[np.float64]]


def quiet_numbers(name: str, values: NDArray[np.float64], blocks: Blocks) -> Quiet:
    """Compare the blocks of a column of numbers.

    Args:
        name: The column.
        values: shape (n_rows,), NaN where missing.
        blocks: The blocks of these rows.
    """
    n_missing = int(np.isnan(values).sum())
    ordered = np.sort(values)[: len(values) - n_missing]
    quantiles = spread(ordered)
    deviation = float(ordered.std()) if len(ordered) else 0.0
    block_of = np.repeat(np.arange(len(blocks)), blocks.sizes)
    inside = values[blocks.rows]
    inside = inside[np.lexsort((inside, block_of))]
    found: dict[Test, list[Measured]] = {"location": [], "missing": []}
    may_be_empty = False
    for block in blocks:
        part = inside[block]
        absent = int(np.isnan(part).sum())
        present = len(part) - absent
        may_be_empty |= present == 0
        found["location"].append(
            difference.location(
                quantiles, len(ordered), deviation, spread(part[:present]), present, inside=True
            )
        )
        found["missing"].append(
            difference.missing(len(values), n_missing, len(part), absent, inside=True)
        )
    distinct = int((np.diff(ordered) > 0).sum()) + 1 if len(ordered) else 0
    column = Column(
        len(values), n_missing, distinct, quantiles, None, np.zeros(N_BUCKETS, np.int64)
    )
    calibration = ColumnCalibration(
        name=name,
        kind="numeric",
        rows=len(values),
        missing=n_missing,
        deviation=deviation,
        quantiles=tuple(quantiles.tolist()),
        may_be_empty=may_be_empty,
    )
    return _quiet(calibration, summarise(column), found)


def quiet_labels(
    name: str, codes: NDArray[np.int64], names: Sequence[str], blocks: Blocks
) -> Quiet:
    """Compare the blocks of a column of categories.

    Args:
        name: The column.
        codes: shape (n_rows,), -1 where missing.
        names: The label of each code.
        blocks: The blocks of these rows.
    """
    n_missing = int((codes < 0).sum())
    totals = np.bincount(codes[codes >= 0], minlength=len(names))
    by_label = dict(zip(names, totals.tolist(), strict=True))
    many = len(names) > _MOST_LABELS
    cells, n_cells, reference = codes, len(names), totals
    if many:
        bucket = np.asarray([bucket_of(label) for label in names], dtype=np.int64)
        cells, n_cells = np.where(codes >= 0, bucket[codes], -1), N_BUCKETS
        reference = np.bincount(cells[cells >= 0], minlength=N_BUCKETS)
    found: dict[Test, list[Measured]] = {"levels": [], "missing": []}
    if not many:
        found["unseen"] = []
    may_be_empty = False
    for block in blocks:
        part = cells[blocks.rows[block]]
        counts = np.bincount(part[part >= 0], minlength=n_cells)
        absent = len(part) - int(counts.sum())
        may_be_empty |= absent == len(part)
        found["levels"].append(difference.levels(reference, counts, inside=True))
        found["missing"].append(
            difference.missing(len(codes), n_missing, len(part), absent, inside=True)
        )
        if not many:
            found["unseen"].append(difference.unseen(reference, counts, 0, inside=True))
    column = Column(len(codes), n_missing, len(names), np.empty(0), by_label, reference)
    calibration = ColumnCalibration(
        name=name,
        kind="categorical",
        rows=len(codes),
        missing=n_missing,
        levels=None if many else by_label,
        buckets=tuple(reference.tolist()) if many else (),
        may_be_empty=may_be_empty,
    )
    return _quiet(calibration, summarise(column), found)


def _quiet(
    column: ColumnCalibration, summary: ColumnSummary, found: dict[Test, list[Measured]]
) -> Quiet:
    return Quiet(
        column,
        summary,
        {test: np.asarray([one.value for one in ones]) for test, ones in found.items()},
        {test: np.asarray([one.p_value for one in ones]) for test, ones in found.items()},
    )
