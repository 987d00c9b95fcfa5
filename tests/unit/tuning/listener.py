"""What a trial tells on its way, heard in the same process."""

from __future__ import annotations

from dataclasses import dataclass, field

from holdtrue.tuning._types import Report


@dataclass
class Listener:
    """Hears all, and ends the trial at its n-th report."""

    end_at: int = 10**6
    heard: list[Report] = field(default_factory=list)
    wanted: bool = True

    def report(self, report: Report) -> bool:
        self.heard.append(report)
        return self.ended()

    def ended(self, wait_s: float = 0.0) -> bool:
        assert wait_s <= 0.05
        return len(self.heard) >= self.end_at
