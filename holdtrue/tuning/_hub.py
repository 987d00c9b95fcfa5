"""Where running trials report to, and hear whether they must end: a socket of the driver's."""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import socket
import threading
from dataclasses import dataclass, field
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING, Any

from holdtrue.tuning._prune import Table, stops
from holdtrue.tuning._types import Report

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdtrue.declaration import Pruner
    from holdtrue.tuning._prune import Direction
    from holdtrue.tuning._types import Outcome

# Nobody else's connection is kept longer, or in larger numbers.
_TOKEN_TIMEOUT_S = 5.0
_MOST_CONNECTIONS = 4096
_LONGEST_LINE = 65_536
# How soon it stops after it was closed.
_POLL_S = 0.05


@dataclass(frozen=True)
class Address:
    """Where a hub listens, and what lets one in."""

    host: str
    port: int
    token: str = field(repr=False)


class Hub:
    """Holds what all trials reported, and judges each report.

    A report is a line of JSON, ``[number, ladder, step, value, folds]``, the answer to it ``1``
    where the trial must end, else ``0``; the first line of a connection is the token.
    """

    def __init__(
        self,
        rule: Pruner,
        direction: Direction,
        history: Iterable[tuple[int, Outcome]] = (),
        host: str = "127.0.0.1",
    ) -> None:
        """Start with the finished trials.

        Args:
            rule: Which trials are ended.
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
        self._lock = threading.Lock()
        token = secrets.token_hex(32)
        self._server = _Server(self, token, host)
        self.address = Address(host, self._server.server_address[1], token)
        threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="hub", daemon=True
        ).start()

    @property
    def was_reached(self) -> bool:
        """Whether any trial was connected."""
        return self._server.was_reached

    def report(self, number: int, report: Report) -> bool:
        """Add a report of a running trial; returns whether the trial must end."""
        with self._lock:
            if number in self._finished:  # late: a failed trial would be a standard again
                return False
            own = self._own.setdefault(number, [])
            if own and own[-1].ladder == report.ladder and report.step <= own[-1].step:
                own.clear()  # its worker died, and it runs again from the start
            own.append(report)
            self._table.report(number, report)
            return stops(self._rule, self._direction, self._table, number, own)

    def finish(self, number: int, outcome: Outcome) -> None:
        """Add how a trial ended."""
        with self._lock:
            self._own.pop(number, None)
            self._finished.add(number)
            self._table.finish(number, outcome)

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
    """A worker's reports, one after the other."""

    server: _Server
    disable_nagle_algorithm = True
    timeout = _TOKEN_TIMEOUT_S

    def handle(self) -> None:
        token = self.rfile.readline(_LONGEST_LINE)
        if not hmac.compare_digest(token, self.server.token):
            return
        self.server.was_reached = True
        self.connection.settimeout(None)
        while line := self.rfile.readline(_LONGEST_LINE):
            number, ladder, step, value, folds = json.loads(line)
            report = Report(ladder, step, value, tuple(folds))
            self.wfile.write(b"1" if self.server.hub.report(number, report) else b"0")
