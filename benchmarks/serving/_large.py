"""How soon a content that is too large is refused, however it is sent."""

from __future__ import annotations

import select
import socket
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from benchmarks.serving._measure import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.serving._parts import Place
    from benchmarks.serving._peers import Running

LIMIT_BYTES = 1_000_000
BODY_BYTES = 50_000_000
PIECE_BYTES = 65_536
_PAUSE_S = 0.01
_ANSWER_S = 10.0
WAYS = {
    # Whether its length is announced, and the pause after each piece.
    "length announced, fast": (True, 0.0),
    "length announced, slowly": (True, _PAUSE_S),
    "in chunks, fast": (False, 0.0),
    "in chunks, slowly": (False, _PAUSE_S),
}


def large(place: Place) -> dict[str, Any]:
    """50 MB where 1 MB is allowed, with the length announced or not, fast and slowly."""
    ways = {}
    with place.ours(max_body_bytes=LIMIT_BYTES) as server:
        running = server.running()
        for name, (announced, pause_s) in WAYS.items():
            tries = [_try(running, announced, pause_s) for _ in range(place.size.tries)]
            ways[name] = {
                "statuses": dict(Counter(one["status"] for one in tries)),
                "milliseconds": sorted(one["ms"] for one in tries),
                "sent_bytes": max(one["sent"] for one in tries),
            }
            place.say(f"  {name}: {ways[name]['statuses']}")
        running.check(server.fitted[1])
    return {"limit_bytes": LIMIT_BYTES, "body_bytes": BODY_BYTES, "ways": ways}


def head(running: Running, announced: bool) -> bytes:
    """The head of a request whose content is too large."""
    size = f"Content-Length: {BODY_BYTES}" if announced else "Transfer-Encoding: chunked"
    lines = [
        f"POST {running.path} HTTP/1.1",
        f"Host: {HOST}:{running.port}",
        "Content-Type: application/json",
        *(f"{name}: {value}" for name, value in running.headers),
        size,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def pieces(announced: bool) -> Iterator[bytes]:
    """The content, in pieces as they are sent."""
    for start in range(0, BODY_BYTES, PIECE_BYTES):
        piece = b" " * min(PIECE_BYTES, BODY_BYTES - start)
        yield piece if announced else b"%x\r\n%s\r\n" % (len(piece), piece)
    if not announced:
        yield b"0\r\n\r\n"


def _try(running: Running, announced: bool, pause_s: float) -> dict[str, Any]:
    """Send one until it is answered.

    Returns:
        ``status``, or what happened instead; ``ms`` from when the server could know that it is too
        large, by the announced length or the first byte too many; ``sent`` bytes of content.
    """
    with socket.create_connection((HOST, running.port), _ANSWER_S) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        known = time.perf_counter() if announced else None
        stream.sendall(head(running, announced))
        sent = 0
        with suppress(ConnectionError):  # it no longer reads; its answer may be there
            for piece in pieces(announced):
                readable, _, _ = select.select([stream], [], [], pause_s)
                if readable:
                    break
                sent += len(piece)
                if known is None and sent > LIMIT_BYTES:
                    known = time.perf_counter()
                stream.sendall(piece)
        status = _status(stream)
        now = time.perf_counter()
    return {"status": status, "ms": 1000 * (now - (known or now)), "sent": sent}


def _status(stream: socket.socket) -> str:
    try:
        received = stream.recv(4_096)
    except TimeoutError:
        return "no answer"
    except OSError as err:
        return type(err).__name__
    return received[9:12].decode() if received.startswith(b"HTTP/1.1 ") else "closed"
