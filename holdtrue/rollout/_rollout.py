"""What a rollout is: its plan, where it stands, and what is known by now."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from holdtrue.references import Reference
from holdtrue.rollout._counts import Arms
from holdtrue.rollout._losses import Losses
from holdtrue.rollout._sequential import no_evidence

State = Literal["running", "finished", "back", "stopped"]
Criterion = Literal["errors", "latency", "scores", "quality"]

FALSE_ALARMS = 0.05
"""Probability that a good version is ever sent back, over a whole rollout."""


class Plan(Reference):
    """How a new version takes over, as it is declared."""

    shares: tuple[float, ...]
    """Share of the requests that the challenger answers, step by step; a first 0 is a shadow.

    The declared 100% is not among them: it is what the last step ends with."""
    every_s: float = Field(ge=0)
    """How long a step lasts at least."""
    requests: int = Field(ge=1)
    """Requests that the challenger has scored at least before a step is judged good."""
    false_alarms: float = Field(default=FALSE_ALARMS, gt=0, lt=1)
    """Probability that a challenger that is as good as the champion is ever sent back."""
    bounds_s: tuple[float, ...] = ()
    """Upper ends of the buckets of the latency histogram; one more bucket holds the rest."""
    expected_shift: tuple[float, ...] = ()
    """By class: how much higher the challenger scored the test rows, which the gates have seen;
    empty where nobody knows."""
    learnt_shift: tuple[float, ...] = ()
    """The same of what is served, where one of the two was refitted and may have learnt these rows;
    empty where none was. What lies between both shifts is expected, too."""
    compare_scores: bool = True
    """Whether both versions score the same classes."""


class Point(Reference):
    """What was known at one look; for plots."""

    seconds: float
    """Since the rollout began."""
    share: float
    requests: int
    """That the challenger has scored."""
    errors: float
    """Evidence, as its logarithm to base 10."""
    latency: float
    shift: tuple[float, float, float] | None
    """Score shift beyond the expected one, with its interval, in standard deviations."""


class Shift(Reference):
    """How much higher the challenger scores, summed over looks."""

    requests: int = 0
    total: tuple[float, ...] = ()
    """By class: the difference of the means between two looks, times the challenger's requests."""
    spread: tuple[float, ...] = ()
    """By class: variance of `total`."""


class Evidence(Reference):
    """What was learnt since a rollout began; it is never thrown away between steps."""

    seen: Arms = Arms()
    """Counts at the last look."""
    step_requests: int = 0
    """Requests that the challenger has scored since the step began."""
    errors: tuple[float, ...] = no_evidence()
    latency: tuple[float, ...] = no_evidence()
    slow_s: float | None = None
    """Slower answers are counted as slow; None until enough was seen of the champion."""
    slow: tuple[int, int] = (0, 0)
    """Slow answers of champion and challenger since that limit was set."""
    timed: tuple[int, int] = (0, 0)
    """All answers of champion and challenger since then."""
    shift: Shift = Shift()
    losses: Losses | None = None
    """Of answers with a known truth; None where none was looked for."""
    trail: tuple[Point, ...] = ()


class Check(Reference):
    """What one criterion says at one look."""

    criterion: Criterion
    state: Literal["good", "noted", "bad", "open"]
    """``open``: too little was seen to say; ``noted``: worth knowing, no reason to go back."""
    said: str
    """In words, with the numbers."""
    numbers: dict[str, float] = Field(default_factory=dict)


class Verdict(Reference):
    """What was decided at one look, and why."""

    at: datetime
    action: Literal["wait", "advance", "finish", "back", "stop"]
    step: int
    """That it was decided in."""
    share: float
    reason: str
    checks: tuple[Check, ...]


class Rollout(Reference):
    """A version on its way to become the champion."""

    id: int
    system: str
    champion: int
    challenger: int
    generation: int
    """Of the champion that it began under."""
    plan: Plan
    by_itself: bool = False
    """Whether it began because the version passed its gates, not because a person asked."""
    began: datetime
    since: datetime
    """When the step began."""
    step: int = 0
    state: State = "running"
    ended: datetime | None = None
    reason: str = ""
    """Why it ended; what it waits for while it runs."""
    withdrawn: bool = False
    """Whether it ended because another model was declared again: it may begin anew."""
    evidence: Evidence = Evidence()
    last: Verdict | None = None
    """The newest verdict."""
    revision: int = 0
    """Counts changes; a change on an old one is refused."""

    @property
    def n_steps(self) -> int:
        """How many there are with the last, which is to be the champion."""
        return len(self.plan.shares) + 1

    @property
    def share(self) -> float:
        """Share of the requests that the challenger answers now."""
        return self.plan.shares[self.step] if self.state == "running" else 0.0

    @property
    def is_shadow(self) -> bool:
        """Whether the challenger scores a copy of the requests, and answers none."""
        return self.state == "running" and self.share == 0

    @property
    def where(self) -> str:
        """The step in words."""
        steps = f"step {self.step + 1} of {self.n_steps}"
        share = "shadow" if self.is_shadow else f"{self.share * 100:g}% of the requests"
        return f"{steps}, {share}"
