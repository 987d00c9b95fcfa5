"""What a Ray worker does: a few trials, one after the other."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from holdtrue.errors import TrainingError
from holdtrue.tuning._types import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from holdtrue.declaration import Pruner
    from holdtrue.tuning._asker import Ready
    from holdtrue.tuning._hub import Address
    from holdtrue.tuning._types import Objective, Watch

# A trial whose worker dies is run again this often: by Ray, where it was sent alone.
RETRIES = 2
# Samplers that learn nothing from trials.
HEEDLESS = frozenset({"random", "qmc", "grid"})
# Work of one task, seconds: long beside Ray's 10 ms a task, short enough that workers end together.
_TASK_S = 1.0
# The same where settings are chosen by what came of others: what is on its way is not yet known.
_LEARNING_TASK_S = 0.08
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
    """Where workers say how trials go; None where the driver got no port."""


@dataclass
class Sent:
    """Trials that were sent to a worker together, as the driver has them."""

    left: dict[int, Ready]
    """By number: those that nothing has come of yet, in the order in which they run."""
    n_sent: int
    began: float | None = None
    """When the first of those began, as far as is known; by `time.monotonic`."""

    @classmethod
    def of(cls, batch: Sequence[Ready]) -> Sent:
        """As they are sent."""
        return cls({ready.number: ready for ready in batch}, len(batch))

    def took(self, number: int, seconds: float) -> None:
        """Something came of a trial, after so many seconds."""
        del self.left[number]
        if self.began is not None:
            self.began = min(self.began + seconds, time.monotonic())

    def suspects(self) -> list[Ready]:
        """Which trials may be why the worker died.

        The first that is left was running. Where nothing at all has come, each of them may have
        been: the worker has perhaps not reached the driver.
        """
        left = [*self.left.values()]
        return left if len(left) == self.n_sent else left[:1]


def run_batch(key: str, boxed: Sequence[Any], batch: Sequence[Ready]) -> list[tuple[int, Outcome]]:
    """Run trials one after the other, and tell the driver of each before the next one begins.

    Args:
        key: Of the search, unique.
        boxed: The reference to its `Work`, in a sequence so that Ray leaves it a reference.
        batch: The trials.

    Returns:
        Number of each trial and what came of it, also where the driver was told of it before.
        Whatever a trial raises makes it a failed one.
    """
    from holdtrue.tuning._watch import send_outcome

    if key not in _known:
        import ray

        _known.clear()
        _known[key] = ray.get(boxed[0])
    work = _known[key]
    outcomes: list[tuple[int, Outcome]] = []
    for ready in batch:
        if outcomes and work.hub is not None:
            send_outcome(work.hub, *outcomes[-1])
        outcomes.append((ready.number, run_one(work, ready)))
    return outcomes


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
    task_s = _TASK_S if sampler in HEEDLESS else _LEARNING_TASK_S
    # Ever smaller towards the end, so that no worker idles while another has many to do.
    fair = math.ceil(left / (2 * (workers + 1)))
    return max(1, int(min(task_s / trial_s, fair)))


def put(work: Work) -> Any:
    """Put what all trials share into Ray's object store.

    Returns:
        Its reference.

    Raises:
        TrainingError: The objective cannot be pickled.
    """
    import ray

    try:
        return ray.put(work)
    except Exception as err:  # what cannot be pickled raises anything
        reason = str(err).strip().splitlines() or [type(err).__name__]
        message = f"the objective cannot be sent to the workers: {reason[0]}"
        raise TrainingError(message, hint="it must be possible to pickle it") from err


def answer_of(future: Any) -> list[tuple[int, Outcome]] | Exception:
    """What a task that has ended says came of its trials, or why it came to nothing."""
    import ray

    try:
        answer: list[tuple[int, Outcome]] = ray.get(future)
    except ray.exceptions.RayError as err:
        return err
    return answer


def why(err: Exception) -> str:
    """Why a task came to nothing, in a line."""
    from ray.exceptions import OutOfMemoryError, RayTaskError

    if isinstance(err, RayTaskError):
        cause = err.cause if isinstance(err.cause, Exception) else err
        return f"{type(cause).__name__}: {cause}"[:_REASON_LENGTH]
    if isinstance(err, OutOfMemoryError):
        return f"its worker was ended {RETRIES + 1} times because its node ran out of memory"
    lines = str(err).strip().splitlines() or [type(err).__name__]
    return f"its worker died {RETRIES + 1} times: {lines[0]}"[:_REASON_LENGTH]
