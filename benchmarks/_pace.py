"""How steadily this machine works while nothing is measured."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SLOW = 3.0
"""Times as long as mostly that a piece of work takes where the machine is slow."""
UNSTEADY = 0.01
"""Share of slow time above which a 99th percentile says little about what is measured."""
_PIECE = 2_000


def slow_share(seconds: float) -> float:
    """Share of the time in which the same work takes more than `SLOW` times as long as mostly.

    The host of a virtual machine may slow it down without telling it: everything goes on, by CPU
    time, too, only ten to twenty times more slowly, for a tenth of a second at a time. Stolen time
    shows none of it.

    Args:
        seconds: How long to work.
    """
    took: list[float] = []
    now = began = time.perf_counter()
    while now < began + seconds:
        before = now
        _work()
        now = time.perf_counter()
        took.append(now - before)
    return share_of_slow(took)


def share_of_slow(took: Sequence[float]) -> float:
    """Share of what all of the same work took that went into pieces which took so much longer.

    Args:
        took: shape (n_pieces,), in any unit; one at least.
    """
    limit = SLOW * median(took)
    return sum(each for each in took if each > limit) / sum(took)


def _work() -> None:
    """A third of a millisecond of small objects, as Python's programs mostly make."""
    found: dict[int, str] = {}
    for number in range(_PIECE):
        found[number % 97] = str(number)
