"""What a running trial reports to, in the worker, and the way from there to the driver."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdtrue.tuning._hub import LONGEST_LINE
from holdtrue.tuning._prune import Table, stops

if TYPE_CHECKING:
    from holdtrue.declaration import Pruner
    from holdtrue.tuning._hub import Address
    from holdtrue.tuning._prune import Direction
    from holdtrue.tuning._types import Outcome, Report, Watch

_CONNECT_TIMEOUT_S = 2.0
_READ_BYTES = 65_536
# What the driver has not read yet; more is not sent.
_MOST_BYTES = 1_000_000
# A driver that is not reached is tried again after so many times as long as it took to see that.
_PATIENCE = 20


def make_watch(
    hub: Address | None,
    number: int,
    *,
    rule: Pruner | None,
    direction: Direction,
    frozen: Table | None = None,
) -> Watch:
    """What a trial reports to; made in the worker, one for each run of a trial.

    Args:
        hub: Where the driver listens; None where it does not.
        number: Of the trial.
        rule: Which trials are ended; None: nobody listens.
        direction: Which values are better.
        frozen: Decide by these trials alone, at once and the same in every run, instead of asking
            the hub. It is not changed.
    """
    if rule is not None and frozen is not None:
        return _Frozen(number, rule, direction, frozen)
    if rule is not None and hub is not None and (line := _line_to(hub)) is not None:
        return _Asking(line, number)
    return _Deaf()


def send_outcome(hub: Address, number: int, outcome: Outcome) -> None:
    """Tell the driver what came of a trial; it does not always arrive.

    Args:
        hub: Where the driver listens.
        number: Of the trial.
        outcome: What came of it.
    """
    if (line := _line_to(hub)) is not None:
        line.tell(number, outcome)


class _Deaf:
    """Nobody listens."""

    wanted = False

    def report(self, report: Report) -> bool:
        return False

    def ended(self, wait_s: float = 0.0) -> bool:
        return False


@dataclass
class _Frozen:
    """Decides by what was known when the trial was asked for."""

    number: int
    rule: Pruner
    direction: Direction
    table: Table
    own: list[Report] = field(default_factory=list)
    wanted = True
    _ended: bool = False

    def report(self, report: Report) -> bool:
        self.own.append(report)
        self._ended = self._ended or stops(
            self.rule, self.direction, self.table, self.number, self.own
        )
        return self._ended

    def ended(self, wait_s: float = 0.0) -> bool:
        return self._ended


class _Asking:
    """Sends reports to the hub, and knows the answers that have come so far."""

    wanted = True

    def __init__(self, line: _Line, number: int) -> None:
        self._line = line
        self._number = number
        self.is_ended = False
        self.unanswered = 0

    def report(self, report: Report) -> bool:
        self._line.send(self, self._number, report)
        return self.is_ended

    def ended(self, wait_s: float = 0.0) -> bool:
        if self.unanswered and not self.is_ended:
            self._line.listen(self, wait_s)
        return self.is_ended


class _Line:
    """A process's connection to a hub, for all its trials; nothing on it waits unless asked to.

    A hub that is gone or slow ends no trial.
    """

    def __init__(self, hub: Address) -> None:
        self.hub = hub
        self._socket = socket.create_connection((hub.host, hub.port), _CONNECT_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(hub.token.encode() + b"\n")
        self._socket.setblocking(False)
        self._unsent = bytearray()
        self._asked: deque[_Asking] = deque()  # answers come in the order of the reports
        self._lock = threading.Lock()  # a function may report from threads of its own
        self.is_lost = False

    def send(self, watch: _Asking, number: int, report: Report) -> None:
        message = [number, report.ladder, report.step, report.value, report.folds]
        self._send(json.dumps(message).encode() + b"\n", watch)

    def tell(self, number: int, outcome: Outcome) -> None:
        try:
            line = json.dumps({"trial": number, **vars(outcome)}, default=vars).encode() + b"\n"
        except (TypeError, ValueError):  # an objective of somebody's own may put in anything
            return
        if len(line) <= LONGEST_LINE:
            self._send(line)

    def _send(self, line: bytes, watch: _Asking | None = None) -> None:
        with self._lock:
            if self.is_lost or len(self._unsent) > _MOST_BYTES:
                return
            self._unsent += line
            if watch is not None:
                self._asked.append(watch)
                watch.unanswered += 1
            self._exchange()

    def listen(self, watch: _Asking, wait_s: float) -> None:
        """Take in the answers that are there, or wait for those to a trial's reports."""
        until = time.monotonic() + wait_s
        with self._lock:
            self._exchange()
            while (
                watch.unanswered
                and not watch.is_ended
                and (left_s := until - time.monotonic()) > 0
                and not self.is_lost
            ):
                select.select([self._socket], [self._socket] if self._unsent else [], [], left_s)
                self._exchange()

    def close(self) -> None:
        self.is_lost = True
        self._socket.close()
        while self._asked:
            self._asked.popleft().unanswered = 0

    def _exchange(self) -> None:
        if self.is_lost:
            return
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        try:
            answers = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            answers = b""
        if not answers:
            self.close()
        for answer in answers:
            watch = self._asked.popleft()
            watch.unanswered -= 1
            watch.is_ended = watch.is_ended or answer == ord("1")


# Of one search only: others have ended.
_line: _Line | None = None
# The hub that was not reached, and when it is tried again.
_unreached: tuple[Address, float] | None = None


def _line_to(hub: Address) -> _Line | None:
    """This process's connection; None where the hub is not reached."""
    global _line, _unreached  # noqa: PLW0603 - the process's own
    if _line is not None and _line.hub == hub and not _line.is_lost:
        return _line
    if _line is not None:
        _line.close()
        _line = None
    started = time.monotonic()
    if _unreached is not None and _unreached[0] == hub and started < _unreached[1]:
        return None
    try:
        _line = _Line(hub)
    except OSError:
        now = time.monotonic()
        _unreached = hub, now + _PATIENCE * (now - started)
    return _line
