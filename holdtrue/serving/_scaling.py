"""How many replicas a system wants; named in the Serve configuration, called by its controller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

POLICY = "holdtrue.serving._scaling:wanted_replicas"
TOLERANCE = 0.1
"""A wish that is off by less changes nothing, so that noise does not."""


def wanted_replicas(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """As many that each has the declared number of requests at a time.

    Serve's own count is of requests that come by its proxy, which ours do not. Bounds and delays
    (`serve.replicas.up_after` and `down_after`) are kept by Serve.

    Args:
        context: Has what `Replica.record_autoscaling_stats` has said, on average over the last
            seconds, by replica.
    """
    loads = (context.aggregated_metrics or {}).get("ongoing", {})
    target = float(context.config.target_ongoing_requests)  # type: ignore[union-attr]
    now = context.target_num_replicas
    return wanted(sum(loads.values()), target, now, len(loads)), {}


def wanted(load: float, target: float, now: int, heard: int) -> float:
    """The replicas that a load calls for.

    Args:
        load: Requests at a time, of all replicas that were heard.
        target: Of one replica.
        now: Replicas that there are to be.
        heard: Replicas whose load is known; nothing is decided before all are.
    """
    if heard == 0:
        return float(now)
    needed = load / target
    if needed < now and heard < now:
        return float(now)
    if abs(needed - now) <= TOLERANCE * now:
        return float(now)
    return needed
