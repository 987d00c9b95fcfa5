"""The HTTP server inside a replica: uvicorn, in a thread and event loop of its own."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from holdtrue.errors import ServingError
from holdtrue.serving._asked import CLOSE, Problem, Reply
from holdtrue.serving._gate import Gate

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future
    from typing import TypeVar

    T = TypeVar("T")

# Idle connections are kept: one that is closed just when its client asks costs that client a retry.
KEEP_ALIVE_S = 300
# So much earlier a connection on which all was refused may be closed.
_KEPT_S = 10.0
SLOW_REQUEST_S = 30.0
"""A request must have arrived as a whole after this."""
MAX_HEAD_BYTES = 65_536
"""Path and headers of a request; the parser by itself keeps them without a limit."""
# Of a content that comes after its request is refused; who sends more shall wait for the answer.
_MAX_UNREAD = 1_000_000
_FIRST_LINE = re.compile(rb"POST (/[!-~]{0,255}) HTTP/1\.1\r\n")
# What says where a request ends, in lower case: the length, or that something else does.
_FRAMING = re.compile(
    rb"\n(?:content-length:[ \t]*([0-9]{1,18})[ \t]*\r"
    rb"|content-length|transfer-encoding|expect|upgrade|connection:[^\r]*close)"
)
_ACCEPTED_AT_ONCE = 16
"""Connections that are taken in one turn of the event loop."""
_START_TIMEOUT_S = 20.0
_TICK_S = 1.0
_POLL_S = 0.02


class Connection(HttpToolsProtocol):
    """A connection that knows when the request on it began to arrive, and when all was here.

    Args:
        gate: Which requests with a content are begun when.
        busy: What those are answered that it is too full for, by what they ask for, as it is sent,
            and whether the connection ends with it; None where all may wait.
        arguments: As uvicorn gives them.
    """

    def __init__(
        self,
        *arguments: Any,
        gate: Gate,
        busy: Callable[[bytes], tuple[bytes, bool]] | None,
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        self._gate = gate
        self._busy = busy
        self._unread = 0  # bytes to come of a request that is refused already
        self._kept = 0.0  # when it was last counted from that it is idle

    began: float | None = None
    """Seconds by `perf_counter`; None where no request is on its way."""
    gathered = 0
    """Bytes since the last end of a head, part of a content or end of a request: as much as the
    parser may have kept of a head, or of the fields that may follow a content in chunks."""
    refused = False
    """Whether a head was found too large as a whole."""

    def data_received(self, data: bytes) -> None:
        """Read on, but no head without end, and nothing that there is no room for."""
        if self._unread:
            left = data[self._unread :]
            self._unread = max(0, self._unread - len(data))
            data = left
            if not data:
                return
        if self._gate.is_full and self._refuse(data):
            return
        self.gathered += len(data)
        super().data_received(data)
        if self.gathered > MAX_HEAD_BYTES and self.began is not None:
            self.refuse_head()

    def on_message_begin(self) -> None:
        """Note the time."""
        super().on_message_begin()
        self.began = self.scope["arrived"] = perf_counter()  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the head is too large as a whole."""
        if self.gathered > MAX_HEAD_BYTES:  # with what came with it
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > MAX_HEAD_BYTES:
                self.refused = True
                raise _HeadError  # the parser stops, and `send_400_response` is called
        self.gathered = 0
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before and self.scope["method"] != "HEAD":
            self.cycle.transport = _WholeAnswer(self.cycle)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """Take a part of the content."""
        self.gathered = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or has too large a head."""
        if self.refused:
            self.refuse_head()
        else:
            super().send_400_response(msg)

    def refuse_head(self) -> None:
        """End it, with an answer where nothing else is answered on it."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:  # type: ignore[redundant-expr]
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()
        else:
            self.give_up()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Have a request answered; at once where it has no content, else as the gate says."""
        if cycle.scope["method"] == "POST":
            self._gate.enter(partial(self._begin, cycle, app))
        else:
            super()._start_asgi_task(cycle, app)

    def _begin(self, cycle: RequestResponseCycle, app: Any) -> None:
        if not cycle.disconnected:
            super()._start_asgi_task(cycle, app)

    def _refuse(self, data: bytes) -> bool:
        """Answer a request without having it parsed, which takes longer than all else about it.

        Returns:
            False where it is not one that is known to begin and to end here; the parser can tell.
        """
        busy = self._busy
        is_idle = self.began is None and (self.cycle is None or self.cycle.response_complete)  # type: ignore[redundant-expr]
        if busy is None or not is_idle or self.transport.is_closing():
            return False
        found = target_and_size(data)
        if found is None or found[1] > _MAX_UNREAD:
            return False
        if self.flow.write_paused:  # it reads none of them: they would fill the memory
            self.give_up()
            return True
        self._gate.refuse()
        target, size = found
        self._unread = size - len(data)
        answer, is_last = busy(target)
        self.transport.write(answer)
        if is_last:
            self.transport.close()
        else:
            self._keep()
        return True

    def _keep(self) -> None:
        """Count anew how long the connection is idle; each time would take a tenth of a refusal."""
        now = self.loop.time()
        if self.timeout_keep_alive_task is None or now > self._kept + _KEPT_S:
            self._kept = now
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_message_complete(self) -> None:
        """Note that all of it is here."""
        self.gathered = 0
        self.scope["complete"] = perf_counter()  # type: ignore[typeddict-unknown-key]
        super().on_message_complete()
        self.began = None

    def give_up(self) -> None:
        """End it without an answer."""
        self.transport.abort()


class _WholeAnswer:
    """A transport for one request that writes the head of its answer together with the content.

    uvicorn writes one after the other; the caller would be woken up for a head that it can do
    nothing with, and each time takes as much of the processor as reading the request does.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle: RequestResponseCycle | None = cycle
        self._transport = cycle.transport
        self._head: bytes | None = None

    def write(self, content: bytes) -> None:
        """Write, or keep what is the head; not that of the interim answer 100 (Continue)."""
        if self._cycle is not None and self._cycle.response_started:
            self._head = content
            self._cycle = None  # which refers to this: nothing is to be left to the collector
        elif self._head:
            self._transport.writelines((self._head, content))
            self._head = b""
        else:
            self._transport.write(content)

    def close(self) -> None:
        """Close it, after a head to which no content came."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether it is closed, or will be."""
        return self._transport.is_closing()


class _HeadError(Exception):
    """A head is too large."""


def target_and_size(data: bytes) -> tuple[bytes, int] | None:
    """What a request asks for, and how many bytes it has with its head.

    Args:
        data: Read from a connection, from the first byte of a request on.

    Returns:
        None where its head is not whole, more than the request is here, its connection ends with
        it, its content comes in chunks, or anything about it is not as usual.

    References:
        RFC 9112, sections 3 and 6.
    """
    end = data.find(b"\r\n\r\n")
    first = _FIRST_LINE.match(data)
    if first is None or end < 0 or end > MAX_HEAD_BYTES:
        return None
    lengths = _FRAMING.findall(data[: end + 1].lower())
    if len(lengths) != 1 or not lengths[0]:
        return None
    size = end + 4 + int(lengths[0])
    return (first[1], size) if len(data) <= size else None


def written(reply: Reply) -> bytes:
    """An answer as it is sent."""
    head = [
        STATUS_LINE[reply.status],
        b"content-type: %s\r\n" % reply.media_type.encode(),
        b"content-length: %d\r\n" % len(reply.content),
        *(b"%s: %s\r\n" % header for header in reply.headers),
    ]
    return b"".join(head) + b"\r\n" + reply.content


_HEAD_TOO_LARGE = written(
    Problem(
        431, f"path and headers have more than {MAX_HEAD_BYTES:,} bytes; send fewer", (CLOSE,)
    ).reply()
)


class HttpServer:
    """Serves an ASGI application on a socket that others may listen on too.

    Args:
        app: The application.
        listener: A listening socket; a copy of it is used.
        on_tick: Called in the event loop each second.
        gate: Which requests with a content are begun when.
        busy: What those are answered that it is too full for, by what they ask for, as it is sent,
            and whether the connection ends with it; None where all may wait.
    """

    def __init__(
        self,
        app: Any,
        listener: socket.socket,
        on_tick: Callable[[], Coroutine[Any, Any, None]] | None = None,
        gate: Gate | None = None,
        busy: Callable[[bytes], tuple[bytes, bool]] | None = None,
    ) -> None:
        config = uvicorn.Config(
            app,
            loop="none",
            http=partial(Connection, gate=gate or Gate(), busy=busy),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        # A line for each malformed request would let anybody fill the disk.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._server = uvicorn.Server(config)
        # The loop takes one connection in a turn from each socket that it listens on, also where a
        # thousand wait, and what is asked over them with them.
        self._listeners = [listener.dup() for _ in range(_ACCEPTED_AT_ONCE)]
        self._on_tick = on_tick
        self._loop = uvloop.new_event_loop()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._server.server_state.connections)

    def start(self) -> None:
        """Begin to take connections.

        Raises:
            ServingError: It does not start.
        """
        self._thread.start()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._server.started:
            if self._error is not None or time.monotonic() > deadline:
                message = f"the HTTP server does not start: {self._error or 'it takes too long'}"
                raise ServingError(message)
            time.sleep(_POLL_S)

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run something in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call something in the server's event loop, soon."""

        async def called() -> T:
            return work(*arguments)

        return self.submit(called())

    def watch(self, readable: socket.socket, call: Callable[[], None]) -> None:
        """Call something in the server's event loop whenever a socket can be read."""
        self.call(self._loop.add_reader, readable, call).result(_START_TIMEOUT_S)

    def is_responsive(self, timeout_s: float) -> bool:
        """Whether the event loop turns."""
        if not self._thread.is_alive():
            return False

        async def nothing() -> None:
            return

        try:
            self.submit(nothing()).result(timeout_s)
        except TimeoutError:
            return False
        return True

    def stop(self, linger_s: float, timeout_s: float) -> None:
        """Take no more connections, answer what comes on those that are open, then end.

        The application must ask for each connection to be closed with its next answer. Where
        others listen on the socket, no request is lost: new connections go to them.

        Args:
            linger_s: How long idle connections are waited for.
            timeout_s: How long it may take in all.
        """
        if not self._thread.is_alive():
            return
        deadline = time.monotonic() + timeout_s
        self.call(self._stop_accepting)
        calm = time.monotonic() + min(linger_s, timeout_s)
        while self.connections and time.monotonic() < calm:
            time.sleep(_POLL_S)
        self._server.should_exit = True
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _stop_accepting(self) -> None:
        for server in self._server.servers:
            server.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as err:  # noqa: BLE001 - told to who waits for the start
            self._error = err
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        ticking = asyncio.create_task(self._tick())
        try:
            await self._server.serve(sockets=self._listeners)
        finally:
            ticking.cancel()
            with suppress(asyncio.CancelledError):
                await ticking

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            late = perf_counter() - SLOW_REQUEST_S
            for connection in [*self._server.server_state.connections]:
                began = getattr(connection, "began", None)
                if began is not None and began < late:
                    connection.give_up()  # type: ignore[union-attr]
            if self._on_tick is not None:
                await self._on_tick()
