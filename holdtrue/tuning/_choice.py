"""Which trial's setting is refitted: the best, or one that is nearly as good and costs less."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.declaration import METRICS
from holdtrue.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdtrue.declaration import Tune
    from holdtrue.references import Trial


def choose_trial(plan: Tune, complete: Sequence[Trial]) -> tuple[Trial, str | None]:
    """Choose as ``tune.limits`` and ``tune.choose`` say.

    Args:
        plan: The declared search.
        complete: Its complete trials, at least one.

    Returns:
        The trial; and why it is not the one with the best metric, in words.

    Raises:
        TrainingError: None is within the limits.
    """
    fitting = [trial for trial in complete if trial.within_limits]
    if not fitting:
        hint = "raise the limit, or narrow the space"
        raise TrainingError(_unmet(plan, complete), hint=hint, key=("tune", "limits"))
    best = min(fitting, key=lambda trial: (_loss(plan, trial), trial.number))
    first = min(complete, key=lambda trial: _loss(plan, trial))
    why = None
    if _loss(plan, first) < _loss(plan, best):
        why = f"trial {first.number} has the best {plan.metric} but is beyond the limits: "
        why += _costs(first)
    if plan.choose is None:
        return best, why
    least, within = plan.choose.least, plan.choose.within
    worst = _loss(plan, best) + within * abs(_loss(plan, best))
    near = [trial for trial in fitting if _loss(plan, trial) <= worst]
    chosen = min(near, key=lambda trial: (trial.costs[least], _loss(plan, trial), trial.number))
    if chosen is not best:
        why = f"of {len(near)} trials within {within:.4g} of the best {plan.metric}"
        why += f" ({best.value:.4g}, trial {best.number}: {_costs(best)})"
        why += f", it has the least {least}: {_costs(chosen)}"
    return chosen, why


def front(trials: Sequence[Trial], cost: str, *, higher: bool) -> list[Trial]:
    """Those of which no other is better in the metric and as cheap, or as good and cheaper.

    Args:
        trials: Complete ones, with that cost.
        cost: Its name.
        higher: Whether higher values of the metric are better.

    Returns:
        By rising cost: the Pareto front.
    """
    sign = -1.0 if higher else 1.0
    found: list[Trial] = []
    for trial in sorted(trials, key=lambda one: (one.costs[cost], sign * (one.value or 0.0))):
        if not found or sign * (trial.value or 0.0) < sign * (found[-1].value or 0.0):
            found.append(trial)
    return found


def _loss(plan: Tune, trial: Trial) -> float:
    value = trial.value or 0.0
    return -value if METRICS[plan.metric][0] == "higher" else value


def _costs(trial: Trial) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in trial.costs.items())


def _unmet(plan: Tune, complete: Sequence[Trial]) -> str:
    limits = plan.limits.given
    least = {name: min(trial.costs[name] for trial in complete) for name in limits}
    said = [
        f"the least {name} is {least[name]:.4g}, {limit:.4g} is allowed"
        for name, limit in limits.items()
        if least[name] > limit
    ] or [f"each of {' and '.join(limits)} is kept by some, but not by the same"]
    return f"none of {len(complete)} complete trials is within them: {'; '.join(said)}"
