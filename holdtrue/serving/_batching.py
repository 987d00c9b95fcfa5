"""Score rows of several requests together, where one call costs more than the rows do."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    import numpy as np


@dataclass(frozen=True)
class _Waiting:
    encoded: Any
    n_rows: int
    scores: asyncio.Future[np.ndarray]


class Batcher:
    """Collects what is asked of one model while it is busy, and asks it once; for one event loop.

    Args:
        predict: Scores several encoded tables as one; gives the rows of all of them in order.
        executor: What it runs in.
        max_rows: Rows in one call, as long as a single request has no more.
        wait_s: How long the first row waits for others, where there is room for more.
        counted: Told the rows of each call.
    """

    def __init__(
        self,
        predict: Callable[[Sequence[Any]], np.ndarray],
        executor: Executor,
        max_rows: int,
        wait_s: float,
        counted: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._predict = predict
        self._executor = executor
        self._max_rows = max_rows
        self._wait_s = wait_s
        self._counted = counted
        self._queue: list[_Waiting] = []
        self._full = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def predict(self, encoded: Any, n_rows: int) -> np.ndarray:
        """Score rows, perhaps with those of others.

        Args:
            encoded: As the model's `encode` gives it.
            n_rows: How many they are.
        """
        waiting = _Waiting(encoded, n_rows, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._rows() >= self._max_rows:
            self._full.set()
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await waiting.scores

    def _rows(self) -> int:
        return sum(waiting.n_rows for waiting in self._queue)

    async def _run(self) -> None:
        try:
            while self._queue:
                if self._wait_s and self._rows() < self._max_rows:
                    self._full.clear()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._full.wait(), self._wait_s)
                await self._score(self._next())
        finally:
            self._running = None

    def _next(self) -> list[_Waiting]:
        """The oldest ones, as many as fit together."""
        rows, count = 0, 0
        for waiting in self._queue:
            if count and rows + waiting.n_rows > self._max_rows:
                break
            rows, count = rows + waiting.n_rows, count + 1
        batch, self._queue = self._queue[:count], self._queue[count:]
        return batch

    async def _score(self, batch: list[_Waiting]) -> None:
        batch = [waiting for waiting in batch if not waiting.scores.done()]
        if not batch:
            return
        loop = asyncio.get_running_loop()
        parts = [waiting.encoded for waiting in batch]
        try:
            scores = await loop.run_in_executor(self._executor, self._predict, parts)
        except Exception as err:  # noqa: BLE001 - given to whom it concerns
            if len(batch) == 1:
                _give(batch[0], error=err)
            else:  # whose rows they are that it cannot score, shows one by one
                for waiting in batch:
                    await self._score([waiting])
            return
        self._counted(len(scores))
        first = 0
        for waiting in batch:
            _give(waiting, scores=scores[first : first + waiting.n_rows])
            first += waiting.n_rows


def _give(
    waiting: _Waiting, scores: np.ndarray | None = None, error: Exception | None = None
) -> None:
    if waiting.scores.done():  # who asked has gone
        return
    if scores is not None:
        waiting.scores.set_result(scores)
    elif error is not None:
        waiting.scores.set_exception(error)
