"""How a new version takes over: steps, evidence and verdicts, as pure functions."""

from holdtrue.rollout._checks import checks
from holdtrue.rollout._counts import Arms, Counts, Moments
from holdtrue.rollout._decide import decide, follow, stop
from holdtrue.rollout._losses import Losses, compare_losses
from holdtrue.rollout._observe import observe
from holdtrue.rollout._rollout import FALSE_ALARMS, Check, Evidence, Plan, Rollout, Verdict
from holdtrue.rollout._status import RolloutStatus, status_of

__all__ = [
    "FALSE_ALARMS",
    "Arms",
    "Check",
    "Counts",
    "Evidence",
    "Losses",
    "Moments",
    "Plan",
    "Rollout",
    "RolloutStatus",
    "Verdict",
    "checks",
    "compare_losses",
    "decide",
    "follow",
    "observe",
    "status_of",
    "stop",
]
