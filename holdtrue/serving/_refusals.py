"""What is answered in place of a score, in the words of what was asked, and how often."""

from __future__ import annotations

import math
from dataclasses import replace

from holdtrue.serving import _protocols
from holdtrue.serving._asked import CLOSE, Problem, Reply, UnscoredError
from holdtrue.serving._http import written
from holdtrue.serving._limits import BusyError

BUSY = "more requests than can be answered in time"
_MAX_KEPT = 1_000


class Refusals:
    """Writes and counts the refusals of a replica; for one event loop."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        """By status."""
        self._kept: dict[tuple[bytes, str, int, bool], bytes] = {}

    def reply(self, path: str, system: str, problem: Problem) -> Reply:
        """The answer to a request that cannot be fulfilled.

        Args:
            path: What it asks for.
            system: That is served.
            problem: Why.
        """
        if not isinstance(problem, UnscoredError):  # which is counted by the versions that failed
            self._count(problem.status)
        return _reply(path, system, problem)

    def at_once(self, target: bytes, system: str, retry_after_s: int, *, last: bool) -> bytes:
        """The answer to one that there is no room for, as it is sent; seldom made anew.

        Args:
            target: What it asks for, as it was sent: a path, and what may follow it.
            system: That is served.
            retry_after_s: When there may be room, whole seconds.
            last: Whether the connection ends with it.
        """
        self._count(503)
        asked_for = target, system, retry_after_s, last
        found = self._kept.get(asked_for)
        if found is None:
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()
            path = target.partition(b"?")[0].decode("latin-1")
            reply = _reply(path, system, busy(BusyError(retry_after_s)))
            if last:
                reply = replace(reply, headers=(*reply.headers, CLOSE))
            found = self._kept[asked_for] = written(reply)
        return found

    def _count(self, status: int) -> None:
        self.counts[str(status)] = self.counts.get(str(status), 0) + 1


def _reply(path: str, system: str, problem: Problem) -> Reply:
    reply: Reply = _protocols.refuse(below(path, system), problem)
    return reply


def below(path: str, system: str) -> str:
    """The path below the system's; also without it, as clients with a base URL may send it."""
    return path.removeprefix(f"/{system}").strip("/")


def too_late(waited_s: float) -> Problem:
    """That a request has waited for so many seconds, and is answered no more (503)."""
    return busy(BusyError(max(1, math.ceil(waited_s))))


def busy(err: BusyError, detail: str = BUSY) -> Problem:
    """That there is no room for a request, and when there may be (429 or 503)."""
    seconds = str(err.retry_after_s).encode()
    said = f"{detail}; again in {err.retry_after_s} s"
    return Problem(err.status, said, ((b"retry-after", seconds),))
