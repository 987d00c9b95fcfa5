"""In what order the requests of an event loop are begun, how many in a turn, and who is refused."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING

from holdtrue.serving._overload import STANDING_S, Overload

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_TURN = 32
"""Requests that are begun in one turn of the event loop."""
_TURN_S = 0.003
"""How long those of one turn may take together, where it is known how long one takes."""
_FULL_TURN_S = 0.0005
"""The same while an overload lasts: those that are refused should not have to wait for it. If it
were longer again whenever somebody could be let in, many would be at once, ten times a second.
"""
_BEHIND_S = 0.003
"""A turn that takes longer than this while others are refused is followed by one that begins one
request: more have come meanwhile than the loop keeps up with, and each has waited as long.
"""
_SURE = 0.5
"""Share of the time to wait that the expected wait may have: under a lasting overload all who are
let in expect the longest wait there is, and some of them wait longer."""
_MEASURED_S = 0.1
"""How long it counts what a turn took and did; less and less."""
_TURNS = 3
"""Turns that say how long others will have to wait."""
_LONGEST_S = 0.02
"""What a turn counts at most: a pause, as every process has them, says nothing of what follows."""


class Gate:
    """Lets requests in as they come, as many in each turn of the event loop as it can answer soon.

    What the loop answers itself waits for nothing but the loop. If whatever has come were begun at
    once, a turn would last as long as all of it together, and only after it could anybody be
    refused. Here those who cannot be answered in time are refused within a turn, for what reading
    their head costs.

    How long requests take is measured while others wait, and forgotten when nobody does: a burst
    finds nobody waiting, and nothing that could be held against it. While an overload lasts it is
    kept: whoever asks that much pauses for some milliseconds, too, and goes on where it was.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self.wait_s = math.inf
        """How long a request may wait to be begun."""
        self.is_full = False
        """Whether one that came now would wait longer."""
        self._clock = clock
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        """Since when, and what begins it."""
        self._overload = Overload()
        self._left = MAX_TURN
        self._turning = False
        self._began = 0  # since the last turn
        self._turned = self._marked = 0.0  # when that was, and when the first of them was begun
        self._turns = 0  # since others wait
        self._passed = self._worked = self._done = 0.0  # of the last ones of them

    @property
    def waiting(self) -> int:
        """Requests that are not begun yet."""
        return len(self._waiting)

    def enter(self, begin: Callable[[], None]) -> None:
        """Begin a request now, or when those that came before it are begun.

        Args:
            begin: Has the event loop answer it, soon.
        """
        if not self._turning:
            self._turning = True
            self._began, self._turned = 0, self._clock()
            self._marked = self._turned
            self._measure(self._turned)
            self._left = self._room(0.0)
            asyncio.get_running_loop().call_soon(self._turn)
        self._overload.came += 1
        if self._left > 0 and not self._waiting:
            self._left -= 1
            self._began += 1
            begin()
        else:
            self._waiting.append((self._clock(), begin))
            self._judge()

    def refuse(self) -> None:
        """Count one that is not let in."""
        self._overload.came += 1

    def retry_after_s(self) -> int:
        """When there may be room, whole seconds."""
        return max(1, math.ceil(min(self._expected_s(), 60)))

    def _turn(self) -> None:
        """Begin those that wait; the ones of before are answered, or have left the loop."""
        now = self._clock()
        self._measure(now)
        self._left = self._room(now - self._turned)
        self._turning = self._began > 0 or bool(self._waiting)
        self._began, self._turned = 0, now
        if not self._turning:
            return
        loop = asyncio.get_running_loop()
        if self._waiting:
            loop.call_soon(self._mark)
            self._let_in(now - self.wait_s)
            self._judge()
        loop.call_soon(self._turn)

    def _room(self, passed: float) -> int:
        """How many to begin in the turn that follows one of so many seconds."""
        if self._overload.lasts and passed > _BEHIND_S:
            return 1
        each_s = self._each_s()
        if not each_s:
            return MAX_TURN
        turn_s = _FULL_TURN_S if self._overload.lasts else _TURN_S
        return min(MAX_TURN, max(1, int(turn_s / each_s)))

    def _let_in(self, late: float) -> None:
        """Begin as many as there is room for, and those that came too early to be answered."""
        while self._waiting:
            since, begin = self._waiting[0]
            if since >= late:
                if self._left <= 0:
                    return
                self._left -= 1
                self._began += 1
            self._waiting.popleft()
            begin()

    def _mark(self) -> None:
        self._marked = self._clock()

    def _measure(self, now: float) -> None:
        self._overload.look(now, self._between_s())
        if not self._waiting and not self._overload.lasts:
            # What was measured says nothing of later.
            self._turns = 0
            self._passed = self._worked = self._done = 0.0
        elif self._waiting and self._began:
            self._turns += 1
            passed = min(now - self._turned, _LONGEST_S)
            kept = max(0.0, 1 - passed / _MEASURED_S)
            self._passed = kept * self._passed + passed
            self._worked = kept * self._worked + min(now - self._marked, _LONGEST_S)
            self._done = kept * self._done + self._began

    def _each_s(self) -> float:
        """What one takes by itself, while others wait; 0 where that is not known."""
        return self._worked / self._done if self._done else 0.0

    def _between_s(self) -> float:
        """From one to the next, with all else that the loop does meanwhile; 0 as above."""
        return self._passed / self._done if self._done else 0.0

    def _expected_s(self) -> float:
        if self._turns < _TURNS:
            return 0.0
        return len(self._waiting) * self._between_s()

    def _judge(self) -> None:
        most_s = _SURE * self.wait_s
        if self._overload.lasts:
            most_s = min(most_s, STANDING_S)
        self.is_full = self._expected_s() > most_s
        if self.is_full:
            self._overload.begin(self._turned)
