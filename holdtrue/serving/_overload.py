"""Whether more is asked than can be answered."""

from __future__ import annotations

STANDING_S = 0.002
"""What those may expect to wait that are let in while an overload lasts. A burst is over soon, and
may wait as long as is declared; what waits all the time makes nobody's answer come sooner, and need
only be as much as keeps the replica busy (Nichols and Jacobson, Controlling queue delay, 2012).
"""
_LOOKED_AT_S = 1.0
"""For how long less must be asked than can be answered for an overload to be over. That nobody is
refused would never be so: where few may wait, some are refused also of a load that can be borne.
"""


class Overload:
    """Lasts from the first refusal on, until for a second less came than could be answered."""

    def __init__(self) -> None:
        self.lasts = False
        self.came = 0
        """Requests, refused or not; counted by who knows of them."""
        self._since = 0.0

    def begin(self, now: float) -> None:
        """Note that somebody is refused.

        Args:
            now: Seconds, of the clock of `look`.
        """
        if not self.lasts:
            self.lasts, self.came, self._since = True, 0, now

    def look(self, now: float, between_s: float) -> None:
        """See whether it is over; to be called as long as somebody waits, or has to.

        Args:
            now: Seconds.
            between_s: From one request to the next, where others wait; 0: not known.
        """
        passed = now - self._since
        if passed >= _LOOKED_AT_S:
            # Where nobody has looked for that much longer, nobody had to wait.
            is_over = passed >= 2 * _LOOKED_AT_S or self.came * between_s <= passed
            self.lasts = self.lasts and not is_over
            self.came, self._since = 0, now
