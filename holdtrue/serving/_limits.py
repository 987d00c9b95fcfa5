"""Who is answered now, who waits, and who is refused at once."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING

from holdtrue.serving._overload import STANDING_S, Overload

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdtrue.serving._slate import Limits

_WAITING_PER_ONGOING = 4
"""Requests that may wait for each that is answered; time is the limit that matters."""
_ROUNDS = 8
"""How many times over all turns have ended in the time that is measured."""
_SURE = 0.8
"""Share of the time to wait that the expected wait may have. Under a lasting overload all who are
let in expect the longest wait there is, and a twentieth would be refused when it is over."""
_MAX_BUCKETS = 10_000


class BusyError(Exception):
    """A request cannot be answered soon enough.

    Args:
        retry_after_s: When it may go better, whole seconds.
        status: 503, or 429 where it is the caller's own rate.
    """

    def __init__(self, retry_after_s: int, status: int = 503) -> None:
        super().__init__(f"too busy; again in {retry_after_s} s")
        self.retry_after_s = retry_after_s
        self.status = status


class Turns:
    """Lets a number of requests be answered at a time; for one event loop.

    A request that would have to wait longer than it may is refused at once, by how fast turns
    have ended since others began to wait; one that does wait is refused when its time is over.
    A burst finds nobody waiting, so that nothing is known that could be held against it. While an
    overload lasts, only so many wait as keep all turns taken.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self.ongoing = 0
        self._clock = clock
        self._overload = Overload()
        self._last_between_s = 0.0
        """What `_between_s` was when it was last known."""
        self._queue: deque[asyncio.Future[None]] = deque()
        self._ends: deque[float] = deque()
        """When the last turns ended that others waited for."""

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._queue)

    def take(self, at_a_time: int) -> bool:
        """Take a turn if one is free; `leave` gives it back."""
        if self.ongoing >= at_a_time:
            return False
        self.ongoing += 1
        self._overload.came += 1
        return True

    async def wait(self, limits: Limits, at_a_time: int, waited_s: float = 0.0) -> None:
        """Wait for a turn; `leave` gives it back.

        Args:
            limits: How long it may take.
            at_a_time: Turns that there are.
            waited_s: How long the request has waited already, for something else.

        Raises:
            BusyError: There is none in time.
        """
        if self.take(at_a_time):
            return
        left_s = limits.wait_s - waited_s
        between_s = self._between_s(at_a_time)
        expected_s = (len(self._queue) + 1) * between_s
        self._last_between_s = between_s or self._last_between_s
        self._overload.came += 1
        self._overload.look(self._clock(), self._last_between_s)
        if left_s <= 0 or self._is_full(limits, expected_s > _SURE * left_s):
            self._overload.begin(self._clock())
            raise BusyError(max(1, math.ceil(min(expected_s, 60))))
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(left_s):
                await turn
        except BaseException as err:
            if turn.done() and not turn.cancelled():  # it came while we were giving up
                self.leave()
            elif turn in self._queue:
                self._queue.remove(turn)
            if isinstance(err, TimeoutError):
                self._overload.begin(self._clock())
                raise BusyError(max(1, math.ceil(limits.wait_s))) from None
            raise

    def leave(self) -> None:
        """Give a turn back."""
        while self._queue:
            turn = self._queue.popleft()
            if turn.done():  # given up a moment ago
                continue
            self._ends.append(self._clock())
            turn.set_result(None)
            return
        # Nobody waits: from here on it is the callers that are slow. What was measured before says
        # nothing of later, and would never be corrected if it kept everybody from waiting.
        self._ends.clear()
        self.ongoing -= 1

    def _is_full(self, limits: Limits, is_late: bool) -> bool:
        """Whether one more is too many."""
        waiting = len(self._queue)
        if waiting >= _WAITING_PER_ONGOING * limits.ongoing:
            return True
        if not self._overload.lasts:
            return is_late
        # One may wait, however slow turns are, so that the next one is taken when it ends.
        between_s = self._last_between_s or math.inf
        return waiting > 0 and (waiting + 1) * between_s > STANDING_S

    def _between_s(self, at_a_time: int) -> float:
        """Mean time from one end of a turn to the next; 0 where too few have ended to say.

        Turns that began together end together, so that less than all of them tell nothing.
        """
        while len(self._ends) > _ROUNDS * at_a_time + 1:
            self._ends.popleft()
        if len(self._ends) <= at_a_time:
            return 0.0
        return (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)


class Rates:
    """Limits how often each key may ask, by a token bucket that holds one second's worth.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, name: str, per_s: float) -> None:
        """Let one request through.

        Args:
            name: Of the key.
            per_s: Requests a second that it may make.

        Raises:
            BusyError: It has made too many (429).
        """
        now, size = self._clock(), max(1.0, per_s)
        left, since = self._buckets.get(name, (size, now))
        left = min(size, left + (now - since) * per_s)
        if left < 1:
            self._buckets[name] = (left, now)
            raise BusyError(max(1, math.ceil((1 - left) / per_s)), status=429)
        if name not in self._buckets and len(self._buckets) >= _MAX_BUCKETS:
            self._buckets.clear()
        self._buckets[name] = (left - 1, now)
