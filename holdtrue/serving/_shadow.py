"""Have a shadow score what others answered, without ever touching an answer."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from queue import SimpleQueue
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from holdtrue.errors import ServingError
from holdtrue.serving._asked import Problem, asked
from holdtrue.serving._beside import THREAD
from holdtrue.serving._scoring import FAILED, NOT_FINITE, REFUSED, ModelError, words

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdtrue.models._served import ServedModel
    from holdtrue.serving._asked import Answered, Table
    from holdtrue.serving._beside import Request
    from holdtrue.serving._captures import Captures
    from holdtrue.serving._child import Child
    from holdtrue.serving._live import Held, Live

MAX_WAITING = 100
"""Requests that a shadow may be behind; more are left out and counted."""
MAX_WAITING_ROWS = 10_000
"""Rows of all of them, as many as one request may have: they are kept in memory."""
MAX_WAITING_BYTES = 50_000_000
"""Bytes of their contents."""


class Shadow:
    """Scores copies of requests, one after the other; for one event loop.

    Each model has a thread of its own, which is left to itself when another is the shadow: one
    that hangs starves no later one. One that is not compiled scores in a process of its own, which
    the thread waits for, and which is killed when another is the shadow.

    Args:
        captures: Where scores are captured; in that thread.
        say: Writes a line to the log: what happened, and its fields; in that thread.
    """

    def __init__(self, captures: Captures, say: Callable[..., None]) -> None:
        self.dropped = 0
        self._captures = captures
        self._say = say
        self._said = (0, "")
        self._model: ServedModel | None = None
        self._child: Child | None = None
        self._lane: _Lane | None = None

    @property
    def waiting(self) -> int:
        """Requests that it has not scored yet."""
        return 0 if self._lane is None else len(self._lane.waiting)

    def ask(self, live: Live, table: Table, given: Answered, request: Request) -> None:
        """Have a request scored that was answered.

        Args:
            live: The slate then.
            table: The rows.
            given: The answer.
            request: As it came.
        """
        shadow = live.shadow
        if shadow is None or shadow.model is not self._model:  # of a slate of before
            return
        if self._lane is None:
            self._lane = _Lane(self._outcome, self._drop)
        if not self._lane.ask(_Copy(live, shadow, table, given, request)):
            self._drop()

    def serve(self, live: Live) -> None:
        """Have the shadow of a slate asked from now on; what another has not scored is left."""
        model = None if live.shadow is None else live.shadow.model
        if model is not self._model:
            self.dropped += self.waiting
            self.close()
            self._model = model
            self._child = None if live.shadow is None else live.shadow.child

    def close(self) -> None:
        """Score no more."""
        lane, self._lane, self._model = self._lane, None, None
        if lane is not None:
            lane.close()
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _drop(self) -> None:
        self.dropped += 1

    def _outcome(self, copy: _Copy) -> _Outcome | None:
        """What a shadow makes of a copy; None where it was ended before it was done."""
        child = copy.shadow.child
        if child is None:
            return _scored_here(copy, self._captures)
        try:
            return _scored_by(child, copy, self._captures)
        except ServingError as err:
            if child.closed:
                return None
            said = (copy.shadow.arm.version, err.message)
            if said != self._said:  # each copy finds it so
                self._said = said
                self._say("a shadow failed", version=said[0], error=said[1])
            return ModelError(FAILED, err.message)


class _Copy(NamedTuple):
    live: Live
    shadow: Held
    table: Table
    given: Answered
    request: Request


_Outcome = ModelError | tuple[float, np.ndarray, dict[str, int]]
"""Why there is no score; or the seconds it took, the scores, and the unknown categories."""


class _Lane:
    """The requests that one model is to score, and the thread in which that is done.

    Args:
        outcome: Has a copy scored, as long as that takes; in the thread.
        drop: Called for a copy without an outcome.
    """

    def __init__(
        self, outcome: Callable[[_Copy], _Outcome | None], drop: Callable[[], None]
    ) -> None:
        self.waiting: deque[_Copy] = deque()
        self.scoring = False
        self._rows = self._bytes = 0
        self._outcome = outcome
        self._drop = drop
        self._loop = asyncio.get_running_loop()
        # Given one copy at a time; a thread that hangs must not keep the process from ending.
        self._next: SimpleQueue[_Copy | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name=THREAD, daemon=True)
        self.thread.start()

    def ask(self, copy: _Copy) -> bool:
        """Have a copy scored; False where too much waits already."""
        if not self.scoring:
            self.scoring = True
            self._next.put(copy)
            return True
        rows = self._rows + copy.table.n_rows
        n_bytes = self._bytes + len(copy.request.body)
        if self.waiting and (
            len(self.waiting) >= MAX_WAITING
            or rows > MAX_WAITING_ROWS
            or n_bytes > MAX_WAITING_BYTES
        ):
            return False
        self.waiting.append(copy)
        self._rows, self._bytes = rows, n_bytes
        return True

    def close(self) -> None:
        """Let the thread end, as soon as it is done with what it has now."""
        self.waiting.clear()
        self._next.put(None)

    def _run(self) -> None:
        while (copy := self._next.get()) is not None:
            outcome = self._outcome(copy)
            with suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._done, copy, outcome)

    def _done(self, copy: _Copy, outcome: _Outcome | None) -> None:
        if outcome is None:
            self._drop()
        elif isinstance(outcome, ModelError):
            copy.shadow.tally.failed(outcome)
        else:
            copy.shadow.tally.answered(*outcome)
        self.scoring = bool(self.waiting)
        if self.waiting:
            copy = self.waiting.popleft()
            self._rows -= copy.table.n_rows
            self._bytes -= len(copy.request.body)
            self._next.put(copy)


def _scored_by(child: Child, copy: _Copy, captures: Captures) -> _Outcome:
    """In another process.

    Raises:
        ServingError: It has ended.
    """
    slate = copy.live.slate
    found = child.score(slate, copy.request, copy.given.ids)
    if isinstance(found, ModelError):
        return found
    if slate.capture is not None:
        captures.of(slate.capture).append(found.lines)
    return found.seconds, found.scores, found.unknown


def _scored_here(copy: _Copy, captures: Captures) -> _Outcome:
    """In this one."""
    live, shadow, table, given, _ = copy
    model = shadow.model
    try:
        began = perf_counter()
        question = asked(table, model, live.slate)
        scores = model.predict(question.encoded)
        seconds = perf_counter() - began
    except Problem as problem:
        # Rows that the champion takes and the shadow does not: its columns are others.
        return ModelError(REFUSED, problem.detail)
    except Exception as err:  # noqa: BLE001 - a shadow may do anything
        return ModelError(FAILED, words(err))
    if not np.isfinite(scores).all():
        return ModelError(NOT_FINITE, "a score is no number")
    said = replace(
        given,
        version=shadow.arm.version,
        digest=shadow.arm.digest,
        scores=scores,
        signature=model.signature,
        answering=model.answering,
        contributions=None,
    )
    captures.keep(live, shadow, question, said, datetime.now(UTC))
    return seconds, scores, question.encoded.unknown
