"""What a Ray worker does: a few trials, one after the other."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from holdtrue.tuning._types import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from holdtrue.declaration import Pruner
    from holdtrue.tuning._asker import Ready
    from holdtrue.tuning._hub import Address
    from holdtrue.tuning._types import Objective, Watch

# Work of one task, seconds: long beside Ray's 10 ms a task, short enough that workers end together.
_TASK_S = 0.35
# The same where settings are chosen by what came of others: what is on its way is not yet known.
_LEARNING_TASK_S = 0.08
# Samplers that learn nothing from trials.
_HEEDLESS = frozenset({"random", "qmc", "grid"})
_REASON_LENGTH = 500
# The last search's work, so that a small trial does not fetch it again. Of one search only: others
# have ended.
_known: dict[str, Work] = {}


@dataclass(frozen=True)
class Work:
    """What all trials of a search share; lies once in Ray's object store."""

    objective: Objective
    metric: str
    direction: Literal["higher", "lower"]
    pruner: Pruner | None
    hub: Address | None
    """Where the trials report to; None where none is ended early, or each decides by itself."""


def run_batch(key: str, boxed: Sequence[Any], batch: Sequence[Ready]) -> list[Outcome]:
    """Run trials one after the other.

    Args:
        key: Of the search, unique.
        boxed: The reference to its `Work`, in a sequence so that Ray leaves it a reference.
        batch: The trials.

    Returns:
        By trial: what came of it. Whatever it raises makes it a failed one.
    """
    import ray

    if key not in _known:
        _known.clear()
        _known[key] = ray.get(boxed[0])
    return [run_one(_known[key], ready) for ready in batch]


def run_one(work: Work, ready: Ready) -> Outcome:
    """Run a trial; whatever it raises makes it a failed one."""
    from holdtrue.tuning._watch import make_watch

    started, cpu = time.perf_counter(), time.process_time()
    try:
        watch: Watch = make_watch(
            work.hub,
            ready.number,
            rule=work.pruner,
            direction=work.direction,
            frozen=ready.frozen,
        )
        return checked(work.objective(ready.setting, watch), work.metric)
    except Exception as err:  # noqa: BLE001 - an objective may raise anything
        return Outcome(
            state="failed",
            value=None,
            seconds=time.perf_counter() - started,
            cpu_seconds=time.process_time() - cpu,
            reason=f"{type(err).__name__}: {err}"[:_REASON_LENGTH],
        )


def checked(outcome: Any, metric: str) -> Outcome:
    """An outcome that may be told: a complete one has a number.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(outcome, Outcome):
        message = f"the objective returned {type(outcome).__name__}, expected Outcome"
        raise TypeError(message)
    value = None if outcome.value is None else float(outcome.value)
    if outcome.state != "complete":
        sound = value is not None and math.isfinite(value) and outcome.state == "pruned"
        return replace(outcome, value=value if sound else None)
    if value is None:
        return replace(outcome, state="failed", reason=f"{metric} was never reported")
    if not math.isfinite(value):
        return replace(outcome, state="failed", value=None, reason=f"{metric} is {value}")
    return replace(outcome, value=value)


def batch_size(trial_s: float | None, left: int, workers: int, sampler: str) -> int:
    """How many trials to send in one task.

    Args:
        trial_s: Mean time of a trial, seconds; None where it is not known yet.
        left: Trials that are not yet sent.
        workers: Trials at a time.
        sampler: What chooses the settings.
    """
    if not trial_s:
        return 1
    task_s = _TASK_S if sampler in _HEEDLESS else _LEARNING_TASK_S
    # Ever smaller towards the end, so that no worker idles while another has many to do.
    fair = math.ceil(left / (2 * (workers + 1)))
    return max(1, int(min(task_s / trial_s, fair)))
