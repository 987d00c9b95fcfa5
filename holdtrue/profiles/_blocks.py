"""Cuts a reference into blocks like the windows that will be compared with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from numpy.typing import NDArray

MIN_ROWS = 200
"""Fewer rows are not compared; they are added to the next window."""
_FEW_BLOCKS = 10  # below this, shorter blocks say more than a handful of long ones
_TOO_FEW_BLOCKS = 5
_RANDOM_BLOCKS = 400
_RANDOM_ROWS = 1_000


@dataclass(frozen=True, eq=False)
class Blocks:
    """Rows of a reference, block by block.

    Args:
        rows: shape (n,), positions of rows in the reference, block after block.
        starts: shape (n_blocks + 1,), where each block begins in `rows`, and the end.
        by_time: Whether blocks are stretches of time, in order; random rows otherwise.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    by_time: bool

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __iter__(self) -> Iterator[slice]:
        return (
            slice(int(a), int(b)) for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)
        )

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Rows of each block."""
        return np.diff(self.starts)


def cut(seconds: NDArray[np.float64] | None, n_rows: int, window: timedelta, seed: int) -> Blocks:
    """Cut a reference into blocks.

    With times, a block is one window long, from a multiple of the window since 1970 on as the
    monitor's windows; blocks of fewer than 200 rows are joined with the next. Where that gives
    fewer than 10, the length is halved as long as there are rows for it: shorter blocks differ
    more, so that the limits come out careful. Without times, or with fewer than 5 blocks, blocks
    are random rows: they know the noise of chance but not that of the days.

    Args:
        seconds: shape (n_rows,), seconds since 1970, NaN where unknown; None without a time.
        n_rows: Rows of the reference, at least 2.
        window: Length of the monitor's windows.
        seed: Seed of the random rows.
    """
    if seconds is not None:
        length = window.total_seconds()
        blocks = _by_time(seconds, length)
        while len(blocks) < _FEW_BLOCKS <= len(blocks.rows) // MIN_ROWS and length > 1:
            length /= 2
            blocks = _by_time(seconds, length)
        if len(blocks) >= _TOO_FEW_BLOCKS:
            return blocks
    return _random(n_rows, seed)


def _by_time(seconds: NDArray[np.float64], length_s: float) -> Blocks:
    order = np.argsort(seconds, kind="stable")
    order = order[: int((~np.isnan(seconds)).sum())]
    window = np.floor(seconds[order] / length_s)
    edges = np.flatnonzero(np.diff(window)) + 1
    starts = [0]
    for edge in edges.tolist():
        if edge - starts[-1] >= MIN_ROWS:
            starts.append(edge)
    if len(starts) > 1 and len(order) - starts[-1] < MIN_ROWS:
        starts.pop()
    return Blocks(order, np.asarray([*starts, len(order)], dtype=np.int64), by_time=True)


def _random(n_rows: int, seed: int) -> Blocks:
    rng = np.random.default_rng(seed)
    size = max(1, min(max(MIN_ROWS, n_rows // 100), _RANDOM_ROWS, n_rows // 2))
    each = n_rows // size
    parts = [rng.permutation(n_rows)[: each * size] for _ in range(-(-_RANDOM_BLOCKS // each))]
    rows = np.concatenate(parts)[: _RANDOM_BLOCKS * size]
    starts = np.arange(0, len(rows) + 1, size, dtype=np.int64)
    return Blocks(rows, starts, by_time=False)
