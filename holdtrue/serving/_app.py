"""The application in a replica: who may ask, which version answers, and what is kept of it."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import orjson

from holdtrue.access import Keyring
from holdtrue.models._served import joined
from holdtrue.serving import _protocols
from holdtrue.serving._asked import (
    CLOSE,
    Answered,
    Asked,
    DisconnectedError,
    Problem,
    Reply,
    UnscoredError,
    asked,
    failure,
    read_body,
)
from holdtrue.serving._batching import Batcher
from holdtrue.serving._beside import Request
from holdtrue.serving._capture import new_ids
from holdtrue.serving._captures import Captures
from holdtrue.serving._gate import Gate
from holdtrue.serving._limits import BusyError, Rates, Turns
from holdtrue.serving._log import write_line
from holdtrue.serving._readiness import Readiness
from holdtrue.serving._refusals import Refusals, below, busy, too_late
from holdtrue.serving._scoring import FAILED, REFUSED, ModelError, answered, score, words
from holdtrue.serving._shadow import Shadow
from holdtrue.serving._statistics import (
    Gauges,
    Refused,
    ReplicaStatistics,
    Statistics,
    is_alive,
    read_replicas,
    total_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from holdtrue.access import Scope
    from holdtrue.serving._asked import Table
    from holdtrue.serving._live import Held, Live, Tallies
    from holdtrue.serving._slate import Limits

logger = logging.getLogger("ray.serve")

MODULES_VARIABLE = "HOLDTRUE_SHOW_MODULES"
"""Set in tests, which look at what a replica has imported."""
SMALL_BYTES = 65_536
"""Requests of up to this size are read and answered in the event loop, and scored there too where
the model is compiled."""
SMALL_ROWS = 256
# More threads make pandas slower: they take turns at the interpreter lock.
SCORING_THREADS = 2
SLOW_S = 1.0
_LOG_LINES_PER_S = 10
_LOG_IDS = 5
_LOG_LENGTH = 300
_CONTENT_REFUSED = (400, 415, 422)


class Application:
    """A raw ASGI application; every method runs in its event loop, unless it says otherwise.

    Args:
        name: Of the replica.
        tallies: What is counted.
    """

    def __init__(self, name: str, tallies: Tallies) -> None:
        self.name = name
        self.live: Live | None = None
        self.refused: Refused | None = None
        self.draining = False
        self.close_share = 0.0
        """Share of the answers after which the connection is closed, to spread connections."""
        self.load = 0.0
        """Requests that were inside or waited at a time, on average over the last second."""
        self.answers_per_s = 0.0
        self.connections: Callable[[], int] = lambda: 0
        self.tallies = tallies
        self.gate = Gate()
        """Of all requests with rows; those that are answered off the event loop need a turn too."""
        self.turns = Turns()
        self.aside = Turns()
        """Of what is answered off the event loop, and takes long: nothing small waits behind it."""
        self._rates = Rates()
        self._keyring: Keyring | None = None
        self._keys_path: str | None = None
        self._captures = Captures()
        self._threads = ThreadPoolExecutor(SCORING_THREADS, thread_name_prefix="scoring")
        self._batchers: dict[int, Batcher] = {}
        self._shadow = Shadow(self._captures, self.log)
        self._refusals = Refusals()
        self._batches = self._batched_rows = 0
        self._busy_s = 0.0
        self._inside = 0
        self._answers = 0
        self._measured = (perf_counter(), 0.0, 0)
        self._ready = Readiness()
        self._log_left, self._note_left = _LOG_LINES_PER_S, 1
        self._write_failures = 0
        self._write_error: str | None = None

    @property
    def _system(self) -> str:
        """Name of what is served; empty before it is known."""
        return "" if self.live is None else self.live.slate.system

    async def __call__(
        self, scope: Mapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]
    ) -> None:
        """Answer one HTTP request."""
        began = scope.get("arrived") or perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        self._inside += 1
        after = None
        try:
            reply, after = await self._reply(scope, headers, receive, began)
        except DisconnectedError:
            return
        except Problem as problem:
            self._note(problem, scope["path"])
            reply = self._refusals.reply(scope["path"], self._system, problem)
        except Exception as err:  # noqa: BLE001 - whatever it is, the caller gets an answer
            (request,) = new_ids(1)
            self.log("a request failed", ids=[request], path=scope["path"], error=words(err))
            failed = failure("the request could not be answered", request)
            reply = self._refusals.reply(scope["path"], self._system, failed)
        finally:
            self._inside -= 1
        await self._send(reply, send)
        self._busy_s += perf_counter() - began
        self._answers += 1
        if after is not None:
            after(perf_counter() - began)

    async def _reply(
        self,
        scope: Mapping[str, Any],
        headers: Mapping[bytes, bytes],
        receive: Callable[..., Any],
        began: float,
    ) -> tuple[Reply, Callable[[float], None] | None]:
        live = self.live
        if live is None:
            raise Problem(503, "no model is loaded yet", ((b"retry-after", b"1"),))
        route = _protocols.route(scope["method"], below(scope["path"], live.slate.system))
        if not route.scores:
            return await self._about(live, route, headers), None
        key = self._allow(live, headers, "predict")
        limits = live.slate.limits
        if limits.requests_per_s is not None:
            self._take(key, limits.requests_per_s)
        body = await read_body(receive, headers, limits.max_body_bytes)
        return await self._predict(live, route, headers, scope, body, began)

    async def _about(
        self, live: Live, route: _protocols.Route, headers: Mapping[bytes, bytes]
    ) -> Reply:
        """Answer what needs no rows."""
        if route.action == "metrics":
            self._allow(live, headers, "admin")
            return await asyncio.to_thread(self._metrics, live)
        if not route.open:
            self._allow(live, headers, "predict")
        if route.action == "ready":
            ready = await self._ready.ask(live, self._readiness)
            if not route.v2 or ready.status != HTTPStatus.OK:
                return ready
        if route.action == "live" and not route.v2:
            return _json({"live": True})
        return _protocols.about(route, live)

    def _allow(self, live: Live, headers: Mapping[bytes, bytes], scope: Scope) -> str:
        """The name of the key that may do this; empty where access is open.

        Raises:
            Problem: There is no good key (401), or it may not (403).
        """
        if self._keyring is None or live.slate.keys is None:
            return ""
        header = headers.get(b"authorization")
        key = self._keyring.find(header)
        if key is None and header is not None:
            self._keyring.refresh()  # it may have been made a moment ago
            key = self._keyring.find(header)
        if key is None:
            what = "lacks a key" if header is None else "has a key that is not good"
            detail = f"the request {what}; send the header Authorization: Bearer KEY"
            raise Problem(401, detail, ((b"www-authenticate", b"Bearer"),))
        if scope not in key.scopes:
            detail = f"the key {key.name} may not do this; it needs the scope {scope}"
            raise Problem(403, detail)
        return key.name

    def _take(self, key: str, per_s: float) -> None:
        try:
            self._rates.take(key, per_s)
        except BusyError as err:
            detail = f"more than {per_s:g} requests a second with one key"
            raise busy(err, detail) from None

    async def _predict(
        self,
        live: Live,
        route: _protocols.Route,
        headers: Mapping[bytes, bytes],
        scope: Mapping[str, Any],
        body: bytes,
        began: float,
    ) -> tuple[Reply, Callable[[float], None]]:
        limits = live.slate.limits
        arrived = scope.get("complete") or began
        if perf_counter() - arrived > limits.wait_s:
            # Its content came late, or the gate let it in by a guess that was wrong; nobody should
            # get an answer that late, and refusing costs a tenth of scoring.
            raise too_late(perf_counter() - arrived)
        # What is encoded may become many times as large.
        small = len(body) <= SMALL_BYTES and b"content-encoding" not in headers
        alone = limits.batch_rows == 1
        aside = alone and not (small and live.compiled)
        turns: Turns | None = await self._turn(limits, arrived, aside=aside)
        try:
            read = partial(_protocols.read, route, headers, scope["query_string"], body, live.slate)
            table = read() if small else await self._in_thread(read)
            alone = alone or table.explain or table.n_rows > limits.batch_rows
            # To explain a row takes milliseconds.
            small = small and table.n_rows <= SMALL_ROWS and not table.explain
            if turns is self.turns and alone and not (small and live.compiled):
                turns.leave()
                turns = None
                turns = await self._turn(limits, arrived, aside=True)
            held = live.choose(table, headers)
            held, given, question = await self._scored(live, held, table, small, alone)
            if small:
                reply = question.write(given)
            else:
                reply = await self._in_thread(partial(question.write, given))
            at_once = await self._keep(live, held, question, given, small)
        finally:
            if turns is not None:
                turns.leave()
        if not at_once:
            # With no turn taken: those that are scored meanwhile need one.
            await self._end_turn()

        def after(seconds: float) -> None:
            held.tally.answered(seconds, given.scores, _unknown(question))
            if live.shadow is not None:
                request = Request(route, headers, scope["query_string"], body)
                self._shadow.ask(live, table, given, request)
            if seconds > SLOW_S:
                self.log("a slow request", ids=[*given.ids[:_LOG_IDS]], seconds=round(seconds, 3))

        return reply, after

    async def _turn(self, limits: Limits, arrived: float, *, aside: bool) -> Turns:
        """Wait for a turn, at most as long as is left of the time to wait.

        Args:
            limits: How many are answered at a time, and how long a request may wait.
            arrived: When all of the request was here, by `perf_counter`.
            aside: Whether it is answered off the event loop. More of these at a time would only
                wait for a thread, without a limit in time.

        Raises:
            Problem: There is none in time (503).
        """
        turns, at_a_time = self.turns, limits.ongoing
        if aside:
            turns, at_a_time = self.aside, min(at_a_time, SCORING_THREADS)
        if not turns.take(at_a_time):
            try:
                await turns.wait(limits, at_a_time, perf_counter() - arrived)
            except BusyError as err:
                raise busy(err) from None
        return turns

    async def _scored(
        self, live: Live, held: Held, table: Table, small: bool, alone: bool
    ) -> tuple[Held, Answered, Asked]:
        """What a version says, or the champion in its place: a challenger never costs an answer.

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
                shown, version = [*ids[:_LOG_IDS]], one.arm.version
                self.log("a version failed", ids=shown, version=version, error=str(error))

    async def _score(
        self, live: Live, held: Held, table: Table, small: bool, alone: bool
    ) -> tuple[Answered, Asked]:
        if alone:
            work = partial(score, live, held, table)
            return work() if small and held.model.compiled else await self._in_thread(work)
        encode = partial(asked, table, held.model, live.slate)
        question = encode() if small else await self._in_thread(encode)
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
                self._batches += 1
                self._batched_rows += rows

            found = self._batchers[id(model)] = Batcher(
                predict, self._threads, limits.batch_rows, limits.batch_wait_s, count
            )
        return found

    async def _keep(
        self, live: Live, held: Held, question: Asked, given: Answered, small: bool
    ) -> bool:
        """Capture what is answered; before the answer, so that no acknowledged row is lost.

        Returns:
            Whether the answer can be sent now, and not only after `_end_turn`.
        """
        settings = live.slate.capture
        if small and (settings is None or not settings.durable):
            if settings is not None:
                self._captures.keep_later(live, held, question, given, datetime.now(UTC))
            return False
        if settings is None:
            return True
        write = partial(self._captures.keep, live, held, question, given, datetime.now(UTC))
        if small:
            write()
        else:
            await self._in_thread(write)
        if settings.durable:
            await asyncio.wrap_future(self._captures.of(settings).synced())
        return True

    async def _end_turn(self) -> None:
        """Wait until what else is in this turn of the event loop is scored, and capture it all.

        To score, to capture and to send each for all before the next takes a quarter less of the
        processor than all three for one request after the other: each finds its code and data
        still in the caches, the captured lines are one write, and callers are not woken up between
        two scorings. The gate keeps a turn short: in a long one server and callers would work by
        turns rather than both at a time.
        """
        await asyncio.sleep(0)
        self._captures.catch_up()  # the first to go on does it for all

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _send(self, reply: Reply, send: Callable[..., Any]) -> None:
        headers = [
            (b"content-type", reply.media_type.encode()),
            (b"content-length", str(len(reply.content)).encode()),
            *reply.headers,
        ]
        if self._is_last():
            headers.append(CLOSE)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.content})

    def _is_last(self) -> bool:
        """Whether a connection is to end with the answer that it gets now."""
        share = self.close_share
        return self.draining or (share > 0 and random.random() < share)  # noqa: S311

    def _readiness(self, live: Live, reason: str | None) -> Reply:
        champion = live.champion.arm
        state: dict[str, Any] = {
            "ready": reason is None,
            "system": live.slate.system,
            "version": champion.version,
            "digest": champion.digest,
            "slate": live.name,
            "rollout": live.slate.rollout,
            "arms": [
                held.arm.model_dump(include={"role", "version", "digest", "weight"})
                | {"compiled": held.model.compiled, "why_not": held.model.reason}
                for held in live.held
            ],
            "refused": None if self.refused is None else self.refused.model_dump(),
            "captured": self._captures.written,
            "capture_failures": self._captures.failed,
            "capture_error": self._captures.last_error,
            "write_failures": self._write_failures,
            "write_error": self._write_error,
        }
        if reason is not None:
            return _json(state | {"reason": reason}, 503)
        return _json(state)

    def _metrics(self, live: Live) -> Reply:
        from holdtrue.serving._metrics import MEDIA_TYPE, exposition
        from holdtrue.serving._watched import read_watched

        folder, own = Path(live.slate.statistics), self.statistics()
        others = [r for r in read_replicas(folder) if r.id != own.id and is_alive(folder, r.id)]
        classes = live.champion.model.signature.classes
        content = exposition(
            live.slate, total_of(folder, own), [own, *others], classes, read_watched(folder)
        )
        return Reply(200, content, MEDIA_TYPE)

    def statistics(self) -> ReplicaStatistics:
        """What was counted up to now; in any thread."""
        shown = tuple(sorted(sys.modules)) if MODULES_VARIABLE in os.environ else None
        return ReplicaStatistics(
            id=self.name,
            pid=os.getpid(),
            at=time.time(),
            counts=Statistics(
                arms=tuple(tally.snapshot() for tally in self.tallies.all()),
                refused=dict(self._refusals.counts),
                shadow_dropped=self._shadow.dropped,
                captured=self._captures.written,
                capture_failures=self._captures.failed,
                batches=self._batches,
                batched_rows=self._batched_rows,
                write_failures=self._write_failures,
            ),
            gauges=Gauges(
                ongoing=self._inside,
                waiting=self.gate.waiting + self.turns.waiting + self.aside.waiting,
                connections=self.connections(),
                shadow_waiting=self._shadow.waiting,
            ),
            slate=None if self.live is None else self.live.name,
            refused=self.refused,
            modules=shown,
        )

    def serve(self, live: Live) -> None:
        """Answer with this slate from the next request on."""
        if live.slate.keys != self._keys_path:
            self._keys_path = live.slate.keys
            self._keyring = None if live.slate.keys is None else Keyring(Path(live.slate.keys))
        self._batchers.clear()
        self._shadow.serve(live)
        self.gate.wait_s = live.slate.limits.wait_s
        self.live, self.refused = live, None

    def busy(self, target: bytes) -> tuple[bytes, bool]:
        """What a request is answered that the gate is too full for.

        Args:
            target: What it asks for: its path, and what may follow it.

        Returns:
            The answer as it is sent, and whether its connection ends with it.
        """
        last, again_s = self._is_last(), self.gate.retry_after_s()
        return self._refusals.at_once(target, self._system, again_s, last=last), last

    async def tick(self) -> None:
        """What is to be done each second."""
        now, (since, busy, answers) = perf_counter(), self._measured
        passed = max(now - since, 1e-9)
        # Little's law: time spent inside in a second is how many were inside on average.
        self.load = max((self._busy_s - busy) / passed, float(self._inside))
        self.answers_per_s = (self._answers - answers) / passed
        self._measured = (now, self._busy_s, self._answers)
        self._log_left, self._note_left = _LOG_LINES_PER_S, 1
        keyring = self._keyring
        if keyring is not None:
            await asyncio.to_thread(keyring.refresh)
        for capture in self._captures.all():
            await asyncio.to_thread(capture.close_if_due)

    def close(self) -> None:
        """Close the segments; what comes after is written to new ones."""
        self._shadow.close()
        for capture in self._captures.all():
            capture.close()

    def not_written(self, path: Path, err: OSError) -> None:
        """Count a file for other processes that could not be written; in any thread.

        Args:
            path: Of the file.
            err: Why.
        """
        self._write_failures += 1
        said = f"{err.strerror or err}: {path}"
        if said != self._write_error:  # each second it is tried again
            self._write_error = said
            self.log("a file could not be written", error=said)

    def _note(self, problem: Problem, path: str) -> None:
        """Have one refusal a second in the log, of those that the content is to blame for."""
        if problem.status in _CONTENT_REFUSED and self._note_left > 0:
            self._note_left -= 1
            said = problem.detail[:_LOG_LENGTH]
            self.log("a request was refused", path=path, status=problem.status, error=said)

    def log(self, event: str, **fields: Any) -> None:
        """Write one line of JSON to the log of Ray and to that of the system, ten a second at most.

        Args:
            event: What happened, in words.
            fields: What else there is to know; `ids` are those that the caller got.
        """
        if self._log_left <= 0:
            return
        self._log_left -= 1
        where = {"system": self._system or None, "replica": self.name}
        line = {"event": event, "at": datetime.now(UTC)} | where
        written = orjson.dumps(line | fields, default=str)
        logger.warning("%s", written.decode())
        if self.live is not None:
            with suppress(OSError):  # the line above says it, too
                write_line(self.live.slate.folder, written)


def _unknown(question: Asked) -> Mapping[str, int]:
    found: Mapping[str, int] = question.encoded.unknown
    return found


def _json(content: Any, status: int = 200) -> Reply:
    return Reply(status, orjson.dumps(content))
