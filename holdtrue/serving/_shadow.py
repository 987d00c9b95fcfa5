"""Have a shadow score what others answered, without ever touching an answer."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from queue import SimpleQueue
from time import perf_counter, sleep, thread_time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from holdtrue.serving._asked import Problem, asked
from holdtrue.serving._scoring import FAILED, NOT_FINITE, REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdtrue.models._served import ServedModel
    from holdtrue.serving._asked import Answered, Asked, Table
    from holdtrue.serving._live import Held, Live

    Keep = Callable[[Live, Held, Asked, Answered, datetime], None]

MAX_WAITING = 100
"""Requests that a shadow may be behind; more are left out and counted."""
MAX_WAITING_ROWS = 10_000
"""Rows of all of them, as many as one request may have: they are kept in memory."""
# A score that takes more CPU time than this keeps answers waiting for the interpreter.
_LONG_S = 0.001
# After one, the thread rests so many times as long as it worked: what it delays is then below the
# 99th percentile.
_REST = 100
_LONGEST_REST_S = 30.0


class Shadow:
    """Scores copies of requests, one after the other; for one event loop.

    Each model has a thread of its own, which is left to itself when another is the shadow: one
    that hangs starves no later one. One that works long, as where it is not compiled, rests much
    longer: no priority of threads keeps it from holding the interpreter that answers need.

    Args:
        keep: Captures the scores; called in that thread.
    """

    def __init__(self, keep: Keep) -> None:
        self.dropped = 0
        self._keep = keep
        self._model: ServedModel | None = None
        self._lane: _Lane | None = None

    @property
    def waiting(self) -> int:
        """Requests that it has not scored yet."""
        return 0 if self._lane is None else len(self._lane.waiting)

    def ask(self, live: Live, table: Table, given: Answered) -> None:
        """Have a request scored that was answered.

        Args:
            live: The slate then.
            table: The request.
            given: Its answer.
        """
        shadow = live.shadow
        if shadow is None or shadow.model is not self._model:  # of a slate of before
            return
        if self._lane is None:
            self._lane = _Lane(self._keep)
        if not self._lane.ask(_Copy(live, shadow, table, given)):
            self.dropped += 1

    def serve(self, live: Live) -> None:
        """Have the shadow of a slate asked from now on; what another has not scored is left."""
        model = None if live.shadow is None else live.shadow.model
        if model is not self._model:
            self.dropped += self.waiting
            self.close()
            self._model = model

    def close(self) -> None:
        """Score no more."""
        lane, self._lane, self._model = self._lane, None, None
        if lane is not None:
            lane.close()


class _Copy(NamedTuple):
    live: Live
    shadow: Held
    table: Table
    given: Answered


class _Lane:
    """The requests that one model is to score, and the thread in which it does."""

    def __init__(self, keep: Keep) -> None:
        self.waiting: deque[_Copy] = deque()
        self.scoring = False
        self._rows = 0
        self._keep = keep
        self._loop = asyncio.get_running_loop()
        # Given one copy at a time; a thread that hangs must not keep the process from ending.
        self._next: SimpleQueue[_Copy | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self.thread.start()

    def ask(self, copy: _Copy) -> bool:
        """Have a copy scored; False where too much waits already."""
        rows = self._rows + copy.table.n_rows
        if self.waiting and (len(self.waiting) >= MAX_WAITING or rows > MAX_WAITING_ROWS):
            return False
        if not self.scoring:
            self.scoring = True
            self._next.put(copy)
            return True
        self.waiting.append(copy)
        self._rows = rows
        return True

    def close(self) -> None:
        """Let the thread end, as soon as it has scored what it scores now."""
        self.waiting.clear()
        self._next.put(None)

    def _run(self) -> None:
        while (copy := self._next.get()) is not None:
            began = thread_time()
            outcome = _outcome(copy, self._keep)
            worked = thread_time() - began
            with suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._scored, copy, outcome)
            if worked > _LONG_S:
                sleep(min(_REST * worked, _LONGEST_REST_S))

    def _scored(self, copy: _Copy, outcome: _Outcome) -> None:
        if isinstance(outcome, str):
            copy.shadow.tally.failed(outcome)
        else:
            copy.shadow.tally.answered(*outcome)
        self.scoring = bool(self.waiting)
        if self.waiting:
            copy = self.waiting.popleft()
            self._rows -= copy.table.n_rows
            self._next.put(copy)


_Outcome = str | tuple[float, np.ndarray, dict[str, int]]
"""Why there is no score; or the seconds it took, the scores, and the unknown categories."""


def _outcome(copy: _Copy, keep: Keep) -> _Outcome:
    try:
        seconds, scores, unknown = _score(copy, keep)
    except Problem:
        # Rows that the champion takes and the shadow does not: its columns are others.
        return REFUSED
    except Exception:  # noqa: BLE001 - a shadow may do anything
        return FAILED
    return (seconds, scores, unknown) if np.isfinite(scores).all() else NOT_FINITE


def _score(copy: _Copy, keep: Keep) -> tuple[float, np.ndarray, dict[str, int]]:
    live, shadow, table, given = copy
    model = shadow.model
    began = perf_counter()
    question = asked(table, model, live.slate)
    scores = model.predict(question.encoded)
    seconds = perf_counter() - began
    if np.isfinite(scores).all():
        said = replace(
            given,
            version=shadow.arm.version,
            digest=shadow.arm.digest,
            scores=scores,
            signature=model.signature,
            answering=model.answering,
            contributions=None,
        )
        keep(live, shadow, question, said, datetime.now(UTC))
    return seconds, scores, question.encoded.unknown
