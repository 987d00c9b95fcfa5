"""Read rows of a Parquet file in parts, so that the whole table is never in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

BATCH_ROWS = 65_536
# Of a column, so much of the file is read at a time: without it, all of a row group.
_BUFFER_BYTES = 65_536


def count_rows(path: Path) -> int:
    """Rows of a Parquet file, from its footer."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def read_range(
    path: Path,
    start: int,
    stop: int,
    columns: Sequence[str] | None = None,
    *,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[tuple[int, pd.DataFrame]]:
    """Read the rows [start, stop) of a Parquet file, a batch at a time.

    Row groups outside the range are not read.

    Args:
        path: The file, as pandas wrote it.
        start: First row, from 0.
        stop: Row after the last; may be beyond the end.
        columns: Which columns; all where left out.
        batch_rows: Most rows at a time.

    Yields:
        The number of the batch's first row, and the batch: shape (1..batch_rows, n_columns), in
        the dtypes of `pandas.read_parquet`.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES) as file:
        names = None if columns is None else list(columns)
        at = 0
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if at < stop and at + rows > start:
                # One group after the other: for all of them pyarrow takes buffers at once.
                for batch in file.iter_batches(batch_rows, row_groups=[group], columns=names):
                    first, last = max(start, at), min(stop, at + len(batch))
                    if first < last:
                        yield first, batch.slice(first - at, last - first).to_pandas()
                    at += len(batch)
                    if at >= stop:
                        return
            else:
                at += rows


def read_sample(
    path: Path, n: int, seed: int, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read rows of a Parquet file at random, each set of `n` rows as likely as any other.

    Args:
        path: The file, as pandas wrote it.
        n: How many rows; all where there are not more.
        seed: Seed of the choice.
        columns: Which columns; all where left out.

    Returns:
        shape (min(n, rows), n_columns), in the file's order; the index is the number of the row
        in the file.
    """
    random = np.random.default_rng(seed)
    left = count_rows(path)
    wanted = min(n, left)
    parts = []
    # How many of a batch are chosen follows the hypergeometric law: no list of all rows is needed.
    for start, batch in read_range(path, 0, left, columns):
        chosen = int(random.hypergeometric(wanted, left - wanted, len(batch)))
        rows = np.sort(random.choice(len(batch), chosen, replace=False))
        part = batch.iloc[rows]
        part.index = pd.Index(start + rows)
        parts.append(part)
        wanted -= chosen
        left -= len(batch)
    return pd.concat(parts)
