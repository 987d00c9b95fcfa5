"""How long those may have to wait that are let in, while others are refused and while nobody is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

STANDING_S = 0.002
"""What those may expect to wait that are let in while an overload lasts. A burst is over soon, and
may wait as long as is declared; what waits all the time makes nobody's answer come sooner, and need
only be as much as keeps the replica busy (Nichols and Jacobson, Controlling queue delay, 2012).
"""
_LASTS_S = 1.0
"""How long nobody must have been refused for an overload to be over."""


class Overload:
    """Whether an overload lasts: from the first refusal on, until there was none for a second.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._refused = -math.inf

    def refused(self) -> None:
        """Note that somebody is refused now, or would be."""
        self._refused = self._clock()

    @property
    def lasts(self) -> bool:
        """Whether it does."""
        return self._clock() < self._refused + _LASTS_S
