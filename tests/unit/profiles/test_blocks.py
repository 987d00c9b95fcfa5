from __future__ import annotations

from datetime import timedelta

import numpy as np

from holdtrue.profiles._blocks import MIN_ROWS, cut

DAY = 86_400.0


def test_a_block_is_a_window_and_blocks_are_in_order() -> None:
    seconds = np.repeat(np.arange(40) * DAY, 250)[::-1].copy()
    blocks = cut(seconds, len(seconds), timedelta(days=1), 0)
    assert len(blocks) == 40
    assert blocks.by_time
    assert blocks.sizes.tolist() == [250] * 40
    assert [seconds[blocks.rows[block]][0] / DAY for block in blocks] == list(range(40))


def test_small_blocks_are_joined_with_the_next() -> None:
    seconds = np.repeat(np.arange(60) * DAY, 90)
    blocks = cut(seconds, len(seconds), timedelta(days=1), 0)
    assert blocks.sizes.sum() == len(seconds)
    assert blocks.sizes.min() >= MIN_ROWS
    assert len(blocks) == 20


def test_too_few_blocks_are_halved() -> None:
    seconds = np.linspace(0, 8 * DAY - 1, 8_000)
    blocks = cut(seconds, len(seconds), timedelta(days=2), 0)
    assert blocks.by_time
    assert len(blocks) == 16


def test_random_blocks_without_a_time_or_with_too_few_rows() -> None:
    for seconds, n_rows in ((None, 50_000), (None, 7), (np.zeros(900), 900)):
        blocks = cut(seconds, n_rows, timedelta(days=1), 0)
        assert not blocks.by_time
        assert len(blocks) == 400
        assert len(set(blocks.sizes.tolist())) == 1
        assert all(len(set(blocks.rows[block].tolist())) == blocks.sizes[0] for block in blocks)
        assert blocks.rows.max() < n_rows


def test_rows_without_a_time_are_in_no_block() -> None:
    seconds = np.repeat(np.arange(20) * DAY, 300)
    seconds[::3] = np.nan
    blocks = cut(seconds, len(seconds), timedelta(days=1), 0)
    assert not np.isnan(seconds[blocks.rows]).any()
    assert len(blocks.rows) == np.isfinite(seconds).sum()
