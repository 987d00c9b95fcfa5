"""What to do next: wait, go a step on, finish or go back. Pure functions of what is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.rollout._checks import checks
from holdtrue.rollout._rollout import Verdict

if TYPE_CHECKING:
    from datetime import datetime

    from holdtrue.rollout._rollout import Rollout, State

_NAMES = {
    "errors": "it fails more often",
    "latency": "it is slower",
    "scores": "it scores otherwise than on the test rows",
    "quality": "its answers are worse",
}


def decide(rollout: Rollout, now: datetime) -> Verdict:
    """Judge a running rollout at one moment.

    A bad check sends the challenger back at once. Else a step is over when it has lasted
    `every_s` and the challenger has scored `requests` requests in it, whichever comes last.

    Args:
        rollout: With all that was observed.
        now: The moment.
    """
    found = checks(rollout.evidence, rollout.plan)

    def verdict(action: str, reason: str) -> Verdict:
        return Verdict.model_validate(
            {
                "at": now,
                "action": action,
                "step": rollout.step,
                "share": rollout.share,
                "reason": reason,
                "checks": found,
            }
        )

    bad = [f"{_NAMES[check.criterion]}: {check.said}" for check in found if check.state == "bad"]
    if bad:
        return verdict("back", "; ".join(bad))
    missing = _missing(rollout, now)
    if missing:
        return verdict("wait", missing)
    last = rollout.step == len(rollout.plan.shares) - 1
    requests = rollout.evidence.seen.challenger.requests
    said = f"nothing speaks against it after {requests:,} requests"
    unseen = [check.criterion for check in found if check.state == "open"]
    if unseen:
        said += f"; not judged: {', '.join(unseen)}"
    return verdict("finish" if last else "advance", said)


def _missing(rollout: Rollout, now: datetime) -> str:
    """What a step that goes well still waits for; empty where nothing."""
    plan, left = rollout.plan, []
    requests = rollout.evidence.step_requests
    if requests < plan.requests:
        left.append(f"{requests:,} of {plan.requests:,} requests seen")
    lasted = (now - rollout.since).total_seconds()
    if lasted < plan.every_s:
        left.append(f"{_span(lasted)} of {_span(plan.every_s)} passed")
    return ", ".join(left)


def follow(rollout: Rollout, verdict: Verdict) -> Rollout:
    """The rollout after a verdict was carried out."""
    if verdict.action == "wait":
        return rollout.model_copy(update={"last": verdict, "reason": verdict.reason})
    if verdict.action == "advance":
        fresh = rollout.evidence.model_copy(update={"step_requests": 0})
        return rollout.model_copy(
            update={
                "step": rollout.step + 1,
                "since": verdict.at,
                "evidence": fresh,
                "last": verdict,
                "reason": "",
            }
        )
    states: dict[str, State] = {"finish": "finished", "back": "back", "stop": "stopped"}
    return rollout.model_copy(
        update={
            "state": states[verdict.action],
            "ended": verdict.at,
            "last": verdict,
            "reason": verdict.reason,
        }
    )


def stop(rollout: Rollout, reason: str, now: datetime, action: str = "stop") -> Rollout:
    """The rollout, ended for a reason that no check gave.

    Args:
        rollout: A running one.
        reason: Why, in words.
        now: The moment.
        action: ``stop``, ``back`` where the challenger cannot be served, ``finish`` where a
            person promotes it.
    """
    verdict = Verdict.model_validate(
        {
            "at": now,
            "action": action,
            "step": rollout.step,
            "share": rollout.share,
            "reason": reason,
            "checks": checks(rollout.evidence, rollout.plan),
        }
    )
    return follow(rollout, verdict)


def _span(seconds: float) -> str:
    whole = round(seconds)
    parts = [(whole // 3_600, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"
