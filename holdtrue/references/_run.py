"""What is known of a run of the plan: its steps in time, and what they took."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from holdtrue.references._reference import Reference


class RanStep(Reference):
    """One step of a run, or one attempt at it."""

    step: str
    state: Literal["running", "done", "found", "failed"]
    """``found``: it was done before; ``running``, too, where its process was killed."""
    began: datetime
    seconds: float | None = None
    """Wall time; None while it runs."""
    cpu_seconds: float | None = None
    """CPU time of the run's process."""
    peak_memory_bytes: int | None = None
    """Most memory that the run's process had; None where the system does not say."""
    workers_cpu_seconds: float | None = None
    """CPU time of Ray's workers on this machine, which comes on top; None where none was looked at.
    """
    workers_peak_memory_bytes: int | None = None
    """Most memory that they had together, as far as it was seen twice a second."""
    rows_in: int | None = None
    """Rows that it worked on; None where it works on none."""
    rows_out: int | None = None
    """Rows that it has written; None where it writes none."""
    said: str = ""
    """What it came to, or why it failed, in words."""
    study: str | None = None
    """The log of its search, relative to the store."""

    @property
    def ended(self) -> datetime | None:
        """When it ended; None while it runs."""
        return None if self.seconds is None else self.began + timedelta(seconds=self.seconds)


class PlanRun(Reference):
    """One run of the plan."""

    began: datetime
    as_of: datetime
    """Moment that it takes for now."""
    trigger: str
    """Why it runs, in words."""
    until: str | None
    """The step that it is to end with; None: the last one."""
    steps: tuple[RanStep, ...] = ()
    """In the order in which they began; one that was tried again is there again."""
    ended: datetime | None = None
    """None while it runs, or where its process was killed."""
    failed: str | None = None
    """Why it failed, or was stopped; None where it did not."""

    @property
    def seconds(self) -> float | None:
        """Wall time; None where it has not ended."""
        return None if self.ended is None else (self.ended - self.began).total_seconds()

    @property
    def longest(self) -> RanStep | None:
        """The step that took longest; None where none has ended."""
        timed = [step for step in self.steps if step.seconds is not None]
        return max(timed, key=lambda step: step.seconds or 0.0, default=None)

    @property
    def between_s(self) -> float:
        """Wall time outside of all steps, such as while Ray starts; of a run that has ended."""
        return max(0.0, (self.seconds or 0.0) - sum(step.seconds or 0.0 for step in self.steps))

    @property
    def result(self) -> str:
        """What it came to, in words."""
        if self.failed is not None:
            return self.failed
        if self.ended is None:
            return f"did not end (at {self.steps[-1].step})" if self.steps else "did not end"
        said = {step.step: step.said for step in self.steps if step.said}
        told = [said["gate"]] if said.get("gate", "").startswith("refused") else []
        told += [said["register"]] if "register" in said else []
        return "; ".join(told) or (f"{self.steps[-1].step} is done" if self.steps else "")
