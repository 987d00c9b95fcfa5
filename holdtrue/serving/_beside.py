"""The process in which a shadow that is not compiled scores: python -m holdtrue.serving._beside.

Its pipeline keeps the interpreter for milliseconds at a time, and in a replica all answers wait for
the interpreter. So a replica sends copies of requests here, just as they came, and gets back what
it is to count and the lines that it is to capture; one copy after the other.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from holdtrue.errors import HoldtrueError
from holdtrue.models._served import ServedModel
from holdtrue.serving._asked import Answered, Problem, asked
from holdtrue.serving._protocols import Route, read
from holdtrue.serving._record import lines
from holdtrue.serving._scoring import FAILED, NOT_FINITE, REFUSED, words
from holdtrue.serving._slate import Slate
from holdtrue.serving._v2 import HEADER_LENGTH

if TYPE_CHECKING:
    from collections.abc import Mapping
    from io import BufferedRWPair

    from holdtrue.serving._slate import Arm

THREAD = "shadow"
"""Name of the thread in which a shadow scores, in whatever process."""
# After a score it rests so many times as long as it worked. That it takes only time that nobody
# wants holds against the processes of its own session or control group (sched(7), autogroups);
# others are kept waiting for some milliseconds where they want its processor: at most one request
# in a hundred. In a session of its own, with the least share for all of it, it would keep the
# replica waiting as long.
_REST = 100
_LONGEST_REST_S = 30.0
# The others are no part of what is asked, and one of them is a key.
_HEADERS = (b"content-type", b"content-encoding", HEADER_LENGTH)
# How long the JSON document is, and the bytes that follow it.
_SIZES = struct.Struct("<II")


class Request(NamedTuple):
    """A request with rows as it came, to be read again."""

    route: Route
    headers: Mapping[bytes, bytes]
    query: bytes
    body: bytes

    @property
    def head(self) -> dict[str, Any]:
        """All but the content, as JSON has it."""
        return {
            "route": self.route,
            "query": self.query.decode("latin-1"),
            "headers": {
                name.decode(): self.headers[name].decode("latin-1")
                for name in _HEADERS
                if name in self.headers
            },
        }

    @classmethod
    def of(cls, head: Mapping[str, Any], body: bytes) -> Request:
        """The same request again.

        Args:
            head: Has what `Request.head` gave.
            body: The content.
        """
        headers = {
            name.encode(): value.encode("latin-1") for name, value in head["headers"].items()
        }
        return cls(Route(**head["route"]), headers, head["query"].encode("latin-1"), body)


def send(stream: BufferedRWPair, head: Mapping[str, Any], body: bytes = b"") -> None:
    """Send a JSON document, and bytes.

    Raises:
        OSError: The other process has ended.
    """
    content = orjson.dumps(head)
    stream.write(_SIZES.pack(len(content), len(body)) + content)
    stream.write(body)
    stream.flush()


def receive(stream: BufferedRWPair) -> tuple[dict[str, Any], bytes]:
    """Wait for what `send` sends.

    Raises:
        EOFError: The other process has ended.
        OSError: So it has, before it read all that it was sent.
    """
    n_head, n_body = _SIZES.unpack(_exactly(stream, _SIZES.size))
    return orjson.loads(_exactly(stream, n_head)), _exactly(stream, n_body)


def _exactly(stream: BufferedRWPair, n_bytes: int) -> bytes:
    found = stream.read(n_bytes)
    if len(found) < n_bytes:
        raise EOFError
    return found


def main() -> None:
    """Score what comes by the socket whose descriptor is the argument, until its other end closes.

    Standard input is a pipe that nothing comes by.
    """
    _end_with_the_replica()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        stream = connection.makefile("rwb")
    with suppress(EOFError, OSError):
        _work(stream)


def _end_with_the_replica() -> None:
    """Have the kernel kill this process when the other end of its standard input is closed.

    No thread could do it while a model hangs that keeps the interpreter.
    """
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([0], [], [], 0)[0]:  # it was closed before
        sys.exit(1)


def _work(stream: BufferedRWPair) -> None:
    slate, arm = _told(receive(stream)[0])
    try:
        model = ServedModel.load(Path(arm.bundle), arm.digest)
        model.verify()
    except Exception as err:  # noqa: BLE001 - raised again in the replica
        hint = err.hint if isinstance(err, HoldtrueError) else None
        send(stream, {"refused": words(err), "hint": hint})
        return
    send(stream, {"refused": None})
    threading.current_thread().name = THREAD
    while True:
        head, body = receive(stream)
        if "slate" in head:
            slate, arm = _told(head)
        began = process_time()
        send(stream, *_outcome(model, slate, arm, Request.of(head, body), head["ids"]))
        sleep(min(_REST * (process_time() - began), _LONGEST_REST_S))


def _told(head: Mapping[str, Any]) -> tuple[Slate, Arm]:
    slate = Slate.model_validate_json(head["slate"])
    return slate, next(arm for arm in slate.arms if arm.role == "shadow")


def _outcome(
    model: ServedModel, slate: Slate, arm: Arm, request: Request, ids: list[str]
) -> tuple[dict[str, Any], bytes]:
    """Why there is no score; or how long it took and what is to be counted, scores and lines."""
    try:
        table = read(request.route, request.headers, request.query, request.body, slate)
        began = perf_counter()
        question = asked(table, model, slate)
        scores = model.predict(question.encoded)
        seconds = perf_counter() - began
        if not np.isfinite(scores).all():
            return {"reason": NOT_FINITE, "detail": "a score is no number"}, b""
        said = Answered(
            *(slate.system, arm.version, arm.digest, scores, ids),
            *(model.signature, model.answering),
        )
        captured = lines(slate, arm, question, said, datetime.now(UTC))
    except Problem as problem:
        # Rows that the champion takes and the shadow does not: its columns are others.
        return {"reason": REFUSED, "detail": problem.detail}, b""
    except Exception as err:  # noqa: BLE001 - a shadow may do anything
        return {"reason": FAILED, "detail": words(err)}, b""
    head = {
        "reason": None,
        "seconds": seconds,
        "shape": scores.shape,
        "unknown": question.encoded.unknown,
    }
    return head, scores.astype("float64").tobytes() + b"\n".join(captured)


if __name__ == "__main__":
    main()
