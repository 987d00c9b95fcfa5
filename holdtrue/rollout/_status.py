"""How a rollout stands, for people and scripts."""

from __future__ import annotations

from datetime import datetime

from holdtrue.references import Reference
from holdtrue.rollout._rollout import Check, Rollout, State


class RolloutStatus(Reference):
    """How a rollout stands, or how it ended."""

    version: int
    """The new version."""
    champion: int
    """The version that it is compared with."""
    state: State
    step: int
    """From 1."""
    steps: int
    """With the last one, 100%, which is to be the champion."""
    share: float
    """Of the requests, that the new version answers now; 0 of a shadow."""
    began: datetime
    since: datetime
    """When the step began."""
    ended: datetime | None
    requests: int
    """That the new version has scored since the rollout began."""
    champion_requests: int
    reason: str
    """Why it ended, or what it waits for."""
    checks: tuple[Check, ...]
    """Of the last look."""

    @property
    def headline(self) -> str:
        """How it stands, in a sentence."""
        pair = f"version {self.version} over version {self.champion}"
        if self.state == "running":
            share = f"{self.share * 100:g}% of the requests" if self.share else "shadow"
            return f"{pair}: step {self.step} of {self.steps}, {share}"
        said = {"finished": "finished", "back": "sent back", "stopped": "stopped"}[self.state]
        return f"{pair}: {said} at {self.ended:%Y-%m-%d %H:%M} UTC"


def status_of(rollout: Rollout) -> RolloutStatus:
    """How a rollout stands."""
    seen = rollout.evidence.seen
    return RolloutStatus(
        version=rollout.challenger,
        champion=rollout.champion,
        state=rollout.state,
        step=rollout.step + 1,
        steps=rollout.n_steps,
        share=rollout.share,
        began=rollout.began,
        since=rollout.since,
        ended=rollout.ended,
        requests=seen.challenger.requests,
        champion_requests=seen.champion.requests,
        reason=rollout.reason,
        checks=() if rollout.last is None else rollout.last.checks,
    )
