"""Where workers say how trials go, and hear whether one must end: a socket of the driver's."""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import socket
import threading
import time
from dataclasses import dataclass, field
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING, Any

from holdtrue.tuning._prune import Table, stops
from holdtrue.tuning._types import Outcome, Report

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdtrue.declaration import Pruner
    from holdtrue.tuning._prune import Direction

# Nobody else's connection is kept longer, or in larger numbers.
_TOKEN_TIMEOUT_S = 5.0
_MOST_CONNECTIONS = 4096
LONGEST_LINE = 65_536
"""Bytes that a worker may send at once."""
# How soon it stops after it was closed.
_POLL_S = 0.05
# What a worker says in such a time is read at once, as long as it has asked for no answer: to wake
# up for each trial would take longer than the smallest trials.
_GATHER_S = 0.05


@dataclass(frozen=True)
class Address:
    """Where a hub listens, and what lets one in."""

    host: str
    port: int
    token: str = field(repr=False)


class Hub:
    """Holds what all trials reported, judges each report, and takes in what came of trials.

    A report is a line of JSON, ``[number, ladder, step, value, folds]``, the answer to it ``1``
    where the trial must end, else ``0``. What came of a trial is a line, too, that is not answered:
    the fields of an `Outcome` and ``trial``, the number. The first line of a connection is the
    token.
    """

    def __init__(
        self,
        rule: Pruner | None,
        direction: Direction,
        history: Iterable[tuple[int, Outcome]] = (),
        host: str = "127.0.0.1",
    ) -> None:
        """Start with the finished trials.

        Args:
            rule: Which trials are ended; None: none is.
            direction: Which values are better.
            history: Number and outcome of each trial that is finished already.
            host: Address to listen on: one that the workers reach.

        Raises:
            OSError: It is not this machine's.
        """
        self._rule = rule
        self._direction = direction
        known = tuple(history)
        self._table = Table.of(known)
        self._finished = {number for number, _ in known}
        self._own: dict[int, list[Report]] = {}
        self._heard: list[tuple[int, Outcome]] = []
        self._lock = threading.Lock()
        token = secrets.token_hex(32)
        self._server = _Server(self, token, host)
        self.address = Address(host, self._server.server_address[1], token)
        threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="hub", daemon=True
        ).start()

    @property
    def judges(self) -> bool:
        """Whether any trial may be ended."""
        return self._rule is not None

    @property
    def was_reached(self) -> bool:
        """Whether any trial was connected."""
        return self._server.was_reached

    def report(self, number: int, report: Report) -> bool:
        """Add a report of a running trial; returns whether the trial must end."""
        with self._lock:
            # Late: a failed trial would be a standard again.
            if self._rule is None or number in self._finished:
                return False
            own = self._own.setdefault(number, [])
            if own and own[-1].ladder == report.ladder and report.step <= own[-1].step:
                own.clear()  # its worker died, and it runs again from the start
            own.append(report)
            self._table.report(number, report)
            return stops(self._rule, self._direction, self._table, number, own)

    def finish(self, number: int, outcome: Outcome) -> None:
        """Add how a trial ended."""
        if not self.judges:
            return
        with self._lock:
            self._own.pop(number, None)
            self._finished.add(number)
            self._table.finish(number, outcome)

    def hear(self, number: int, outcome: Outcome) -> None:
        """Keep what a worker said came of a trial, until it is taken."""
        with self._lock:
            self._heard.append((number, outcome))

    def take(self) -> list[tuple[int, Outcome]]:
        """What workers said since this was last asked: numbers and outcomes."""
        with self._lock:
            heard, self._heard = self._heard, []
        return heard

    def close(self) -> None:
        """Stop listening; trials that still run are not ended early."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingTCPServer):
    """A thread for each worker."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, hub: Hub, token: str, host: str) -> None:
        self.hub = hub
        self.token = token.encode() + b"\n"
        self.was_reached = False
        self._connections: set[socket.socket] = set()
        self._changing = threading.Lock()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), _Connection)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        with self._changing:
            if len(self._connections) >= _MOST_CONNECTIONS:
                return False
            self._connections.add(request)
        return True

    def shutdown_request(self, request: Any) -> None:
        with self._changing:
            self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        with self._changing:
            for connection in self._connections:
                with contextlib.suppress(OSError):  # the worker was faster
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A worker that is ended in mid-report is no reason to print anything."""


class _Connection(StreamRequestHandler):
    """What a worker says, one line after the other."""

    server: _Server
    disable_nagle_algorithm = True
    timeout = _TOKEN_TIMEOUT_S

    def handle(self) -> None:
        token = self.rfile.readline(LONGEST_LINE)
        if not hmac.compare_digest(token, self.server.token):
            return
        self.server.was_reached = True
        self.connection.settimeout(None)
        rest, has_reported = b"", False
        while len(rest) < LONGEST_LINE and (data := self.rfile.read1(LONGEST_LINE)):
            *lines, rest = (rest + data).split(b"\n")
            if answers := b"".join(map(self._answer, lines)):
                has_reported = True
                # A worker that has died may have said more before.
                with contextlib.suppress(OSError):
                    self.wfile.write(answers)
            if not has_reported:
                time.sleep(_GATHER_S)

    def _answer(self, line: bytes) -> bytes:
        said = json.loads(line)
        if isinstance(said, dict):
            self.server.hub.hear(said.pop("trial"), _outcome(said))
            return b""
        number, ladder, step, value, folds = said
        report = Report(ladder, step, value, tuple(folds))
        return b"1" if self.server.hub.report(number, report) else b"0"


def _outcome(said: dict[str, Any]) -> Outcome:
    """An outcome of its fields, as JSON has them."""
    reports = (Report(**one | {"folds": tuple(one["folds"])}) for one in said["reports"])
    lists = {"fold_values": tuple(said["fold_values"]), "reports": tuple(reports)}
    return Outcome(**said | lists)
