"""The load: connections that are kept, requests that were made before, one thread.

It runs in a process of its own and imports the standard library alone, so that it is not what is
measured. `python client.py JOB.json RESULT.json`: `Load` as JSON in, what `Client.found` returns
out. It ends when its phases are over, or earlier when its standard input is closed.
"""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STALLED_S = 0.25
_CHUNK = 262_144
_END = b"\r\n\r\n"
_TICK_S = 0.05
# Between two looks at all connections: to look through thousands takes a millisecond.
_GIVE_UP_EVERY_S = 1.0
# Requests that are sent, or answers that are read, before it is looked for the other: an answer
# would else seem to have come later than it did.
_AT_ONCE = 32
_REFUSED = ("429", "503")


@dataclass(frozen=True)
class Phase:
    """So many requests a second for some time."""

    seconds: float
    rate: float | None = None
    """Requests a second; None: each connection asks again as soon as it has its answer."""


@dataclass(frozen=True)
class Load:
    """What is asked, how often and by how many."""

    host: str
    port: int
    requests: list[str]
    """Whole requests, bytes as Latin-1; they are sent in turns."""
    connections: int
    phases: list[Phase]
    retry: bool = False
    """Whether a request whose connection broke is sent once more, over another connection."""
    timeout_s: float = 30.0
    newest_first: bool = False
    """Whether the connection that was used last asks next, so that few are used where few do; else
    all take turns."""
    marker: str = ""
    """What stands before a number in an answer, such as ``"version":``; its changes are noted."""
    greeting: str = ""
    """A request that each connection sends before the first phase, and has the answer to: the
    server has taken them all by then. Bytes as Latin-1; empty for none."""


@dataclass
class _Connection:
    number: int
    stream: socket.socket | None = None
    asked: float = 0.0
    """When the request was due."""
    sent: float = 0.0
    request: int = -1
    """Which one it waits for the answer to; -1 where it is free."""
    tries: int = 0
    received: bytearray = field(default_factory=bytearray)


@dataclass
class _Second:
    """What was answered in one second."""

    latencies: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)


class Client:
    """Runs a load.

    Args:
        load: What is asked.
        control: Descriptor whose end ends the load; None where nobody ends it.
    """

    def __init__(self, load: Load, control: int | None = None) -> None:
        self._load = load
        self._requests = [request.encode("latin-1") for request in load.requests]
        self._marker = load.marker.encode()
        self._control = control
        self._poll = select.epoll()
        self._connections = [_Connection(number) for number in range(load.connections)]
        self._by_fd: dict[int, _Connection] = {}
        self._free = deque(self._connections)
        self._due: deque[float] = deque()
        self._sent = 0
        self._retried = 0
        self._dropped = 0
        self._seconds: list[_Second] = []
        self._errors: Counter[str] = Counter()
        self._marks: dict[str, dict[str, float]] = {}
        self._lag = 0.0
        self._looked = 0.0
        self._greeted: float | None = None
        self._over = False

    def run(self) -> dict[str, Any]:
        """Ask until the phases are over.

        Returns:
            See `found`.
        """
        for connection in self._connections:
            self._open(connection)
        if self._control is not None:
            self._poll.register(self._control, select.EPOLLIN | select.EPOLLHUP)
        if self._load.greeting:
            self._greet()
        cpu = time.process_time()
        self._began_at, self._began = time.time(), time.perf_counter()
        for phase in self._load.phases:
            if self._over:
                break
            self._phase(phase)
        self._drain()
        ended = time.perf_counter()
        self._cpu = time.process_time() - cpu
        return self.found(ended - self._began)

    def found(self, seconds: float) -> dict[str, Any]:
        """What there was.

        Returns:
            ``answers`` with status 200, ``statuses``, ``errors`` by kind, ``stalled`` answers that
            took longer than 250 ms from when they were due, ``p50_ms``, ``p99_ms``, ``longest_ms``
            of those with status 200, ``refused_p50_ms`` and ``refused_p99_ms`` of those with
            status 429 or 503, from when they were sent, ``seconds`` in all, ``by_second``,
            ``marks``: of each number that followed the marker the first and last moment (seconds
            since 1970) and how often,
            ``dropped`` requests that were due and found no free connection until their phase was
            over, ``cpu_s`` of the client and ``lag_ms``, the longest it was away itself;
            ``greeted_ms``, until all new connections had the answer to their greeting.
        """
        good = sorted(value for second in self._seconds for value in second.latencies)
        refused = sorted(value for second in self._seconds for value in second.refusals)
        statuses: Counter[str] = Counter()
        for second in self._seconds:
            statuses.update(second.statuses)
        return {
            "answers": len(good),
            "statuses": dict(statuses),
            "errors": dict(self._errors),
            "retried": self._retried,
            "dropped": self._dropped,
            "stalled": sum(value > STALLED_S for value in good),
            "p50_ms": _milliseconds(good, 0.5),
            "p99_ms": _milliseconds(good, 0.99),
            "longest_ms": _milliseconds(good, 1.0),
            "refused_p50_ms": _milliseconds(refused, 0.5),
            "refused_p99_ms": _milliseconds(refused, 0.99),
            "seconds": seconds,
            "began_at": self._began_at,
            "by_second": [
                {
                    "answers": len(second.latencies),
                    "p99_ms": _milliseconds(sorted(second.latencies), 0.99),
                    "statuses": dict(second.statuses),
                }
                for second in self._seconds
            ],
            "marks": self._marks,
            "cpu_s": self._cpu,
            "lag_ms": 1000 * self._lag,
            "greeted_ms": None if self._greeted is None else 1000 * self._greeted,
        }

    def _greet(self) -> None:
        """Have every connection taken by the server before anything is measured."""
        greeting = self._load.greeting.encode("latin-1")
        began = time.perf_counter()
        left = {connection.number for connection in self._connections if connection.stream}
        for connection in self._connections:
            if connection.stream is not None:
                connection.received.clear()
                connection.stream.send(greeting)
        while left and time.perf_counter() < began + self._load.timeout_s:
            for descriptor, _ in self._poll.poll(_TICK_S, _AT_ONCE):
                found = self._by_fd.get(descriptor)
                if found is not None and found.stream is not None:
                    found.received += found.stream.recv(_CHUNK)
                    if _whole(found.received) is not None:
                        left.discard(found.number)
        if left:
            for connection in self._connections:
                self._close(connection)
            message = f"{len(left)} of {len(self._connections)} connections were not answered"
            raise RuntimeError(message)
        self._greeted = time.perf_counter() - began

    def _phase(self, phase: Phase) -> None:
        start = now = time.perf_counter()
        end = start + phase.seconds
        planned = 0
        while now < end and not self._over:
            if phase.rate is None:
                for _ in range(len(self._free)):  # those that fail at once are free again
                    self._ask(self._next(), now)
            else:
                wanted = int((now - start) * phase.rate) + 1
                for number in range(planned, wanted):
                    self._due.append(start + number / phase.rate)
                planned = wanted
                for _ in range(min(len(self._due), len(self._free), _AT_ONCE)):
                    self._ask(self._next(), self._due.popleft())
            wait = min(_TICK_S, end - now)
            if phase.rate is not None:
                ahead = start + planned / phase.rate - now
                wait = 0.0 if self._due and self._free else min(wait, max(0.0, ahead))
            self._wait(wait)
            now = time.perf_counter()
        self._dropped += len(self._due)
        self._due.clear()

    def _drain(self) -> None:
        """Wait for the answers that are still to come."""
        until = time.perf_counter() + self._load.timeout_s
        while len(self._free) < len(self._connections) and time.perf_counter() < until:
            self._wait(_TICK_S)
        for connection in self._connections:
            if connection.request >= 0:
                self._fail(connection, "no answer")
            self._close(connection)

    def _wait(self, seconds: float) -> None:
        before = time.perf_counter()
        events = self._poll.poll(seconds, _AT_ONCE)
        now = time.perf_counter()
        self._lag = max(self._lag, now - before - seconds)
        if now > self._looked + _GIVE_UP_EVERY_S:
            self._looked = now
            self._give_up(now)
        for descriptor, _ in events:
            if descriptor == self._control:
                self._over = not os.read(descriptor, 1)
            else:
                self._receive(self._by_fd[descriptor])

    def _give_up(self, now: float) -> None:
        for connection in self._connections:
            if connection.request >= 0 and now - connection.asked > self._load.timeout_s:
                self._fail(connection, "no answer")
                self._open(connection)

    def _next(self) -> _Connection:
        return self._free.pop() if self._load.newest_first else self._free.popleft()

    def _ask(self, connection: _Connection, due: float) -> None:
        connection.asked, connection.tries = due, 0
        connection.request = self._sent % len(self._requests)
        self._sent += 1
        self._send(connection)

    def _send(self, connection: _Connection) -> None:
        if connection.stream is None and not self._open(connection):
            self._fail(connection, "refused")
            return
        stream = connection.stream
        if stream is None:
            return
        connection.received.clear()
        connection.sent = time.perf_counter()
        try:
            rest = memoryview(self._requests[connection.request])
            while rest:  # larger than what the system takes at once
                try:
                    rest = rest[stream.send(rest) :]
                except BlockingIOError:
                    select.select([], [stream], [], self._load.timeout_s)
        except OSError as err:
            self._broken(connection, type(err).__name__)

    def _receive(self, connection: _Connection) -> None:
        stream = connection.stream
        if stream is None:
            return
        try:
            content = stream.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as err:
            self._broken(connection, type(err).__name__)
            return
        if not content:
            self._broken(connection, "closed")
            return
        connection.received += content
        answer = _whole(connection.received)
        if answer is not None and connection.request >= 0:
            self._answered(connection, *answer)

    def _answered(self, connection: _Connection, status: str, closes: bool) -> None:
        now = time.perf_counter()
        took = now - connection.asked
        index = int(now - self._began)
        while len(self._seconds) <= index:
            self._seconds.append(_Second())
        second = self._seconds[index]
        second.statuses[status] += 1
        if status == "200":
            second.latencies.append(took)
            if self._marker:
                self._note(connection.received)
        elif status in _REFUSED:
            # Of these it is asked how soon the server says no, not how long the load was late.
            second.refusals.append(now - connection.sent)
        connection.request = -1
        if closes:
            self._close(connection)
        self._free.append(connection)

    def _note(self, content: bytearray) -> None:
        start = content.find(self._marker) + len(self._marker)
        end = start
        while end < len(content) and 48 <= content[end] <= 57:
            end += 1
        moment = time.time()
        mark = self._marks.setdefault(
            content[start:end].decode(), {"first": moment, "last": moment, "answers": 0}
        )
        mark["last"] = moment
        mark["answers"] += 1

    def _broken(self, connection: _Connection, kind: str) -> None:
        """Retry, or count as failed, what a broken connection was asked for."""
        self._close(connection)
        if connection.request < 0:
            return  # a server may close a connection that nothing is asked over
        if self._load.retry and connection.tries == 0:
            connection.tries = 1
            self._retried += 1
            self._send(connection)
            return
        self._fail(connection, kind)

    def _fail(self, connection: _Connection, kind: str) -> None:
        self._errors[kind] += 1
        connection.request = -1
        self._close(connection)
        self._free.append(connection)

    def _open(self, connection: _Connection) -> bool:
        self._close(connection)
        try:
            stream = socket.create_connection(
                (self._load.host, self._load.port), self._load.timeout_s
            )
        except OSError:
            return False
        stream.setblocking(False)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.stream = stream
        self._by_fd[stream.fileno()] = connection
        self._poll.register(stream.fileno(), select.EPOLLIN)
        return True

    def _close(self, connection: _Connection) -> None:
        if connection.stream is not None:
            descriptor = connection.stream.fileno()
            self._poll.unregister(descriptor)
            del self._by_fd[descriptor]
            connection.stream.close()
            connection.stream = None


def _whole(received: bytearray) -> tuple[str, bool] | None:
    """Status of an answer, and whether its connection ends with it; None where more is to come."""
    head = received.find(_END)
    if head < 0:
        return None
    lines = bytes(received[:head]).lower()
    status = lines[9:12].decode()
    closes = b"\r\nconnection: close" in lines
    start = lines.find(b"\r\ncontent-length:")
    if start >= 0:
        stop = lines.find(b"\r\n", start + 2)
        size = int(lines[start + 17 : stop if stop >= 0 else None])
        return (status, closes) if len(received) >= head + 4 + size else None
    if b"transfer-encoding: chunked" in lines:
        return (status, closes) if received.endswith(b"0\r\n\r\n") else None
    return status, closes


def _milliseconds(values: list[float], share: float) -> float | None:
    """The value that so large a share of the sorted values does not exceed."""
    if not values:
        return None
    return 1000 * values[min(len(values) - 1, int(share * len(values)))]


def main(given: Path, result: Path) -> None:
    """Run the load that the file holds."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    content = json.loads(given.read_text())
    content["phases"] = [Phase(**phase) for phase in content["phases"]]
    found = Client(Load(**content), control=0).run()
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
