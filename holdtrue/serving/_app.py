"""The application in a replica: what becomes of a request, and what is told of the replica."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import orjson

from holdtrue.serving import _protocols
from holdtrue.serving._access import Access
from holdtrue.serving._asked import (
    CLOSE,
    Answered,
    Asked,
    DisconnectedError,
    Problem,
    Reply,
    failure,
    read_body,
)
from holdtrue.serving._beside import Request
from holdtrue.serving._capture import new_ids
from holdtrue.serving._captures import Captures
from holdtrue.serving._gate import Gate
from holdtrue.serving._limits import BusyError, Turns
from holdtrue.serving._log import LogWriter, shown
from holdtrue.serving._readiness import Readiness
from holdtrue.serving._refusals import Refusals, below, busy, too_late
from holdtrue.serving._scorer import SCORING_THREADS, Scorer
from holdtrue.serving._scoring import words
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
    from collections.abc import Callable, Mapping

    from holdtrue.serving._live import Held, Live, Tallies
    from holdtrue.serving._slate import Limits

MODULES_VARIABLE = "HOLDTRUE_SHOW_MODULES"
"""Set in tests, which look at what a replica has imported."""
SMALL_BYTES = 65_536
"""Requests of up to this size are read and answered in the event loop, and scored there too where
the model is compiled."""
SMALL_ROWS = 256
SLOW_S = 1.0


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
        self.log = LogWriter(name)
        self.gate = Gate()
        """Of all requests with rows; those that are answered off the event loop need a turn too."""
        self.turns = Turns()
        self.aside = Turns()
        """Of what is answered off the event loop, and takes long: nothing small waits behind it."""
        self._access = Access()
        self._captures = Captures()
        self._scorer = Scorer(self.log.say)
        self._in_thread = self._scorer.in_thread
        self._shadow = Shadow(self._captures, self.log.say)
        self._refusals = Refusals()
        self._busy_s = 0.0
        self._inside = 0
        self._answers = 0
        self._measured = (perf_counter(), 0.0, 0)
        self._ready = Readiness()

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
            self.log.refused(problem, scope["path"])
            reply = self._refusals.reply(scope["path"], self._system, problem)
        except Exception as err:  # noqa: BLE001 - whatever it is, the caller gets an answer
            (request,) = new_ids(1)
            self.log.say("a request failed", ids=[request], path=scope["path"], error=words(err))
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
        key = self._access.allow(headers, "predict")
        limits = live.slate.limits
        if limits.requests_per_s is not None:
            self._access.take(key, limits.requests_per_s)
        body = await read_body(receive, headers, limits.max_body_bytes)
        return await self._predict(live, route, headers, scope, body, began)

    async def _about(
        self, live: Live, route: _protocols.Route, headers: Mapping[bytes, bytes]
    ) -> Reply:
        """Answer what needs no rows."""
        if route.action == "metrics":
            self._access.allow(headers, "admin")
            return await asyncio.to_thread(self._metrics, live)
        if not route.open:
            self._access.allow(headers, "predict")
        if route.action == "ready":
            ready = await self._ready.ask(live, self._readiness)
            if not route.v2 or ready.status != HTTPStatus.OK:
                return ready
        if route.action == "live" and not route.v2:
            return _json({"live": True})
        return _protocols.about(route, live)

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
            held, given, question = await self._scorer.scored(live, held, table, small, alone)
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
                self.log.say("a slow request", ids=shown(given.ids), seconds=round(seconds, 3))

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
            "write_failures": self.log.write_failures,
            "write_error": self.log.write_error,
        }
        if reason is not None:
            return _json(state | {"reason": reason}, 503)
        return _json(state)

    def _metrics(self, live: Live) -> Reply:
        from holdtrue.serving._metrics import MEDIA_TYPE, exposition
        from holdtrue.serving._watched import read_watched

        folder, own = Path(live.slate.statistics), self.statistics()
        others = [r for r in read_replicas(folder) if r.id != own.id and is_alive(folder, r.id)]
        counts = total_of(folder, own)
        content = exposition(live.slate, counts, [own, *others], read_watched(folder))
        return Reply(200, content, MEDIA_TYPE)

    def statistics(self) -> ReplicaStatistics:
        """What was counted up to now; in any thread."""
        modules = tuple(sorted(sys.modules)) if MODULES_VARIABLE in os.environ else None
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
                batches=self._scorer.batches,
                batched_rows=self._scorer.batched_rows,
                write_failures=self.log.write_failures,
            ),
            gauges=Gauges(
                ongoing=self._inside,
                waiting=self.gate.waiting + self.turns.waiting + self.aside.waiting,
                connections=self.connections(),
                shadow_waiting=self._shadow.waiting,
            ),
            slate=None if self.live is None else self.live.name,
            refused=self.refused,
            modules=modules,
        )

    def serve(self, live: Live) -> None:
        """Answer with this slate from the next request on."""
        self._access.serve(live.slate.keys)
        self._scorer.serve()
        self._shadow.serve(live)
        self.gate.wait_s = live.slate.limits.wait_s
        self.log.slate = live.slate
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
        self.log.next_second()
        await asyncio.to_thread(self._access.refresh)
        for capture in self._captures.all():
            await asyncio.to_thread(capture.close_if_due)

    def close(self) -> None:
        """Close the segments; what comes after is written to new ones."""
        self._shadow.close()
        for capture in self._captures.all():
            capture.close()


def _unknown(question: Asked) -> Mapping[str, int]:
    found: Mapping[str, int] = question.encoded.unknown
    return found


def _json(content: Any, status: int = 200) -> Reply:
    return Reply(status, orjson.dumps(content))
