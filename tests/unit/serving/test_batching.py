from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from holdtrue.serving._batching import Batcher


def run(work):
    with ThreadPoolExecutor(2) as threads:
        return asyncio.run(work(threads))


def double(parts):
    return np.concatenate(parts) * 2.0


def test_everybody_gets_the_scores_of_their_rows():
    calls = []

    async def work(threads):
        batcher = Batcher(double, threads, 8, 0.01, calls.append)
        asked = [np.arange(n, n + 1 + n % 3) for n in range(20)]
        scores = await asyncio.gather(*(batcher.predict(rows, len(rows)) for rows in asked))
        return asked, scores

    asked, scores = run(work)
    for rows, given in zip(asked, scores, strict=True):
        assert given.tolist() == (rows * 2.0).tolist()
    assert max(calls) <= 8
    assert sum(calls) == sum(map(len, asked))
    assert len(calls) < 20


def test_a_request_larger_than_a_batch_is_scored_by_itself():
    calls = []

    async def work(threads):
        batcher = Batcher(double, threads, 4, 0.0, calls.append)
        rows = [np.ones(2), np.ones(9), np.ones(2)]
        return await asyncio.gather(*(batcher.predict(r, len(r)) for r in rows))

    scores = run(work)
    assert [len(given) for given in scores] == [2, 9, 2]
    assert 9 in calls


def test_rows_that_cannot_be_scored_fail_only_who_sent_them():
    def predict(parts):
        rows = np.concatenate(parts)
        if (rows < 0).any():
            message = "negative"
            raise ValueError(message)
        return rows

    async def work(threads):
        batcher = Batcher(predict, threads, 8, 0.01)
        asked = [np.array([1.0]), np.array([-1.0]), np.array([2.0])]
        return await asyncio.gather(
            *(batcher.predict(rows, 1) for rows in asked), return_exceptions=True
        )

    first, second, third = run(work)
    assert (first.tolist(), third.tolist()) == ([1.0], [2.0])
    assert isinstance(second, ValueError)


def test_what_comes_while_it_is_busy_is_scored_together():
    gate, calls = threading.Event(), []

    def predict(parts):
        gate.wait(20)
        return np.concatenate(parts)

    async def work(threads):
        batcher = Batcher(predict, threads, 100, 0.0, calls.append)
        first = asyncio.create_task(batcher.predict(np.ones(1), 1))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(batcher.predict(np.ones(1), 1)) for _ in range(7)]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *others)

    run(work)
    assert calls == [1, 7]


def test_who_goes_away_does_not_stop_the_others():
    async def work(threads):
        batcher = Batcher(double, threads, 8, 0.05)
        gone = asyncio.create_task(batcher.predict(np.ones(1), 1))
        stays = asyncio.create_task(batcher.predict(np.ones(1), 1))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return await stays

    assert run(work).tolist() == [2.0]
