"""Scores the rows of requests: alone or with others, by another version where one fails."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from holdtrue.models._served import joined
from holdtrue.serving._asked import Answered, Asked, Problem, UnscoredError, asked
from holdtrue.serving._batching import Batcher
from holdtrue.serving._capture import new_ids
from holdtrue.serving._log import shown
from holdtrue.serving._scoring import FAILED, REFUSED, ModelError, answered, score, words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from holdtrue.serving._asked import Table
    from holdtrue.serving._live import Held, Live

# More threads make pandas slower: they take turns at the interpreter lock.
SCORING_THREADS = 2


class Scorer:
    """Asks versions for scores; for one event loop.

    Args:
        say: Writes a line to the log: what happened, and its fields.
    """

    def __init__(self, say: Callable[..., None]) -> None:
        self.batches = 0
        """Calls in which the rows of several requests were scored, or could have been."""
        self.batched_rows = 0
        self._say = say
        self._threads = ThreadPoolExecutor(SCORING_THREADS, thread_name_prefix="scoring")
        self._batchers: dict[int, Batcher] = {}

    def serve(self) -> None:
        """Let go of the models of another slate."""
        self._batchers.clear()

    async def in_thread(self, work: Callable[[], Any]) -> Any:
        """Do something off the event loop, in one of the threads that score."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def scored(
        self, live: Live, held: Held, table: Table, small: bool, alone: bool
    ) -> tuple[Held, Answered, Asked]:
        """What a version says, or the champion in its place: a challenger never costs an answer.

        Args:
            live: What is served.
            held: The version that is to answer.
            table: The rows.
            small: Whether they may be encoded in the event loop, and scored where that is quick.
            alone: Whether they are not scored together with those of other requests.

        Returns:
            The version that answers, what it says, and what it was asked.

        Raises:
            Problem: The champion does not take the rows either, or there is no score for them
                (500).
        """
        champion = live.champion
        # Who asks for a version is not answered by another.
        tried = (held,) if held is champion or table.version is not None else (held, champion)
        errors: list[tuple[Held, ModelError]] = []
        ids: Sequence[str] = ()
        try:
            for one in tried:
                try:
                    given, question = await self._score(live, one, table, small, alone)
                except ModelError as err:
                    errors.append((one, err))
                except Problem as problem:
                    if one is tried[-1]:
                        # What the champion refuses too is the caller's, and counts against nobody.
                        errors = [(v, e) for v, e in errors if e.reason != REFUSED]
                        raise
                    errors.append((one, ModelError(REFUSED, problem.detail)))
                else:
                    ids = given.ids
                    return one, given, question
            ids = new_ids(1)
            raise UnscoredError(*ids) from errors[-1][1]
        finally:
            # Only now is it known which ids the caller gets.
            for one, error in errors:
                one.tally.failed(error)
                version = one.arm.version
                self._say("a version failed", ids=shown(ids), version=version, error=str(error))

    async def _score(
        self, live: Live, held: Held, table: Table, small: bool, alone: bool
    ) -> tuple[Answered, Asked]:
        if alone:
            work = partial(score, live, held, table)
            return work() if small and held.model.compiled else await self.in_thread(work)
        encode = partial(asked, table, held.model, live.slate)
        question = encode() if small else await self.in_thread(encode)
        batcher = self._batcher(live, held)
        try:
            scores = await batcher.predict(question.encoded, table.n_rows)
        except Exception as err:
            raise ModelError(FAILED, words(err)) from err
        return answered(live, held, scores), question

    def _batcher(self, live: Live, held: Held) -> Batcher:
        model, limits = held.model, live.slate.limits
        found = self._batchers.get(id(model))
        if found is None:
            if len(self._batchers) > 2:  # of models that are not held any more
                self._batchers.clear()

            def predict(parts: Sequence[Any]) -> np.ndarray:
                return model.predict(joined(parts))

            def count(rows: int) -> None:
                self.batches += 1
                self.batched_rows += rows

            found = self._batchers[id(model)] = Batcher(
                predict, self._threads, limits.batch_rows, limits.batch_wait_s, count
            )
        return found
