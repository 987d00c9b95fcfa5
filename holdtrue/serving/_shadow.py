"""Have a shadow score what others answered, without ever touching an answer."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from holdtrue.serving._asked import Problem, asked
from holdtrue.serving._scoring import FAILED, NOT_FINITE

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdtrue.serving._asked import Answered, Asked, Table
    from holdtrue.serving._live import Held, Live

    Keep = Callable[[Live, Held, Asked, Answered, datetime], None]

MAX_WAITING = 100
"""Requests that a shadow may be behind; more are left out and counted."""
_NICENESS = 10


class Shadow:
    """Scores copies of requests in a thread of its own, one after the other; for one event loop.

    Args:
        keep: Captures the scores; called in that thread.
    """

    def __init__(self, keep: Keep) -> None:
        self.dropped = 0
        self._keep = keep
        self._queue: deque[tuple[Live, Table, Answered]] = deque()
        self._running: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "shadow", initializer=_step_back)

    @property
    def waiting(self) -> int:
        """Requests that it has not scored yet."""
        return len(self._queue)

    def ask(self, live: Live, table: Table, given: Answered) -> None:
        """Have a request scored that was answered.

        Args:
            live: The slate then.
            table: The request.
            given: Its answer.
        """
        if len(self._queue) >= MAX_WAITING:
            self.dropped += 1
            return
        self._queue.append((live, table, given))
        if self._running is None:
            self._running = asyncio.create_task(self._run())

    def close(self) -> None:
        """Score no more."""
        self._queue.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._queue:
                live, table, given = self._queue.popleft()
                shadow = live.shadow
                if shadow is None:
                    continue
                try:
                    seconds, scores, unknown = await loop.run_in_executor(
                        self._thread, self._score, live, shadow, table, given
                    )
                except Problem:
                    # Rows that the champion takes and the shadow does not: its columns are others.
                    shadow.tally.failed("refused")
                except Exception:  # noqa: BLE001 - a shadow may do anything
                    shadow.tally.failed(FAILED)
                else:
                    if np.isfinite(scores).all():
                        shadow.tally.answered(seconds, scores, unknown)
                    else:
                        shadow.tally.failed(NOT_FINITE)
        finally:
            self._running = None

    def _score(
        self, live: Live, shadow: Held, table: Table, given: Answered
    ) -> tuple[float, np.ndarray, dict[str, int]]:
        began = perf_counter()
        question = asked(table, shadow.model, live.slate)
        scores = shadow.model.predict(question.encoded)
        seconds = perf_counter() - began
        if np.isfinite(scores).all():
            model = shadow.model
            said = replace(
                given,
                version=shadow.arm.version,
                digest=shadow.arm.digest,
                scores=scores,
                signature=model.signature,
                answering=model.answering,
                contributions=None,
            )
            self._keep(live, shadow, question, said, datetime.now(UTC))
        return seconds, scores, question.encoded.unknown


def _step_back() -> None:
    """Let the threads that answer go first, where the system knows priorities of threads."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
