"""What is late: a training, intervals of `batch` or a look of the monitor, and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal, get_args

from pydantic import ValidationError

from holdtrue.failures import failures_of, last_worked
from holdtrue.references import Reference
from holdtrue.running import held_since, look_lock, training_of
from holdtrue.runs import runs_of
from holdtrue.store import read_json, write_json

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from holdtrue.declaration import Declaration
    from holdtrue.failures import Failure
    from holdtrue.plan import Context
    from holdtrue.references import PlanRun
    from holdtrue.running import Training

Timed = Literal["training", "batch", "monitor"]
"""What may have a deadline."""
State = Literal["waiting", "running", "failing"]
# Looks of the monitor among which it is searched which of them called for a training.
_REPORTS = 1_000


class Late(Reference):
    """Something that ought to be done by now."""

    due: datetime
    state: State
    reason: str
    """Why it is not, in words."""

    def __str__(self) -> str:
        return f"was due {_moment(self.due)}; {self.reason}"


class Lateness(Late):
    """The same, remembered from when it was noticed, so that it is told once."""

    noticed: datetime
    over: datetime | None = None
    """When it was noticed that it is late no more; None while it is."""
    how: str = ""
    """How that came, in words."""


def deadlines_of(declaration: Declaration) -> dict[Timed, timedelta]:
    """What is to be done in time, of what is declared.

    Nothing is where `data.as_of` says which moment is taken for now: no clock is compared with it.
    """
    batch = declaration.batch
    declared: dict[Timed, timedelta | None] = {
        "training": declaration.retrain.deadline,
        "batch": None if batch is None else batch.deadline,
        "monitor": declaration.monitor.deadline,
    }
    if declaration.data.as_of is not None:
        return {}
    return {what: deadline for what, deadline in declared.items() if deadline is not None}


def late_now(context: Context, now: datetime) -> dict[Timed, Late]:
    """What is late, of a system that has a champion: before, nothing runs by itself.

    Args:
        context: Of the system.
        now: By the clock, in UTC.
    """
    deadlines = deadlines_of(context.declaration)
    if not deadlines or context.registry.champion(context.system) is None:
        return {}
    look = {"training": _training, "batch": _batch, "monitor": _monitor}
    found = {what: look[what](context, deadline, now) for what, deadline in deadlines.items()}
    return {what: late for what, late in found.items() if late is not None}


def noted(context: Context, now: datetime) -> dict[Timed, Lateness]:
    """What is late and what was late last, remembered; one process at a time may ask.

    A lateness is the same one until nothing of its kind is late: that of an interval lasts until
    all that are due are scored.
    """
    path = _file(context)
    before, found = _read(path), late_now(context, now)
    after: dict[Timed, Lateness] = {}
    for what in get_args(Timed):
        known, late = before.get(what), found.get(what)
        if late is not None and (known is None or known.over is not None):
            after[what] = Lateness(**dict(late), noticed=now)
        elif known is not None and known.over is None and late is None:
            after[what] = known.model_copy(update={"over": now, "how": _how(context, what, known)})
        elif known is not None:
            after[what] = known
    if after != before:
        write_json(path, {what: one.model_dump(mode="json") for what, one in after.items()})
    return after


def has_news(context: Context, now: datetime) -> bool:
    """Whether something is late, or late no more, that is not remembered yet."""
    known = {what for what, one in _read(_file(context)).items() if one.over is None}
    return known != set(late_now(context, now))


def _training(context: Context, deadline: timedelta, now: datetime) -> Late | None:
    """A training that was called for and is not done, or that runs for too long."""
    # One that is to end before the last step is nobody's concern.
    runs = [run for run in runs_of(context.store, context.system) if run.until is None]
    last = runs[0] if runs else None
    runs_on = last is not None and last.ended is None
    called = _called(context, runs)
    began = called or (last.began if last is not None and runs_on else None)
    if began is None or now <= began + deadline:
        return None
    failure = failures_of(context.store, context.system).get("training")
    training = training_of(context.store, context.system)
    if last is not None and runs_on:
        state, reason = _of_run(context, last, training)
    elif failure is not None and failure.at >= began:
        state, reason = _failed(failure)
    elif training is not None and training.runs:  # flows of an earlier version keep no runs
        state, reason = "running", str(training)
    else:
        state, reason = "waiting", f"called for since {_moment(began)}, and {_waits(context)}"
    return Late(due=began + deadline, state=state, reason=reason)


def _called(context: Context, runs: list[PlanRun]) -> datetime | None:
    """Since when the monitor calls for a training that nothing has answered yet."""
    registry, system = context.registry, context.system
    newest = registry.drift_reports(system, last=1)
    manual = context.declaration.automation == "manual"
    if manual or not newest or newest[-1].decision.action != "retrain":
        return None
    answers = [version.as_of for version in registry.versions(system)]
    answers += [run.as_of for run in runs if run.ended is not None and run.failed is None]
    since = None
    for report in reversed(registry.drift_reports(system, last=_REPORTS)):
        answered = bool(answers) and report.at <= max(answers)
        if answered or report.decision.action != "retrain":
            break
        # What is held back begins nothing, and leaves undone what was called for before.
        if report.decision.held_back is None:
            since = report.at
    return since


def _of_run(context: Context, run: PlanRun, training: Training | None) -> tuple[State, str]:
    """Why a run is not done that has begun, and was not ended."""
    if training is None or training.began != run.began or not training.runs:
        at = f", at {run.steps[-1].step}" if run.steps else ""
        return "waiting", (
            f"began {_moment(run.began)}{at}, and its process is gone; the next one goes on from "
            f"there, and {_waits(context)}"
        )
    said = f"running since {_moment(run.began)}"
    if not run.steps:
        return "running", said
    step, before = run.steps[-1], run.steps[-2:-1]
    if step.state == "failed" or (before and before[0].state == "failed"):
        failed = step if step.state == "failed" else before[0]
        when = _moment(failed.ended or failed.began)
        return "failing", f"{said}; {failed.step} failed {when} and is tried again: {failed.said}"
    return "running", f"{said}, at {step.step} since {_moment(step.began)}"


def _batch(context: Context, deadline: timedelta, now: datetime) -> Late | None:
    from holdtrue.intervals import batch_lock, declared, waiting

    intervals = waiting(replace(context, as_of=now))
    delay = declared(context).delay
    late = [one for one in intervals if now > one.end + delay + deadline]
    if not late:
        return None
    count = "1 interval is" if len(late) == 1 else f"{len(late):,} intervals are"
    state, reason = _of_lock(context, "batch", batch_lock(context.store, context.system))
    what = f"{count} not scored, from {late[0]} on: {reason}"
    return Late(due=late[0].end + delay + deadline, state=state, reason=what)


def _monitor(context: Context, deadline: timedelta, now: datetime) -> Late | None:
    store, system = context.store, context.system
    champion = context.registry.champion(system)
    moments = [] if champion is None else [champion.since]
    # The last look of before it was remembered when one was.
    moments += [report.at for report in context.registry.drift_reports(system, last=1)]
    moments += [worked] if (worked := last_worked(store, system, "monitor")) else []
    last = max((moment for moment in moments if moment <= now), default=now)
    due = last + context.declaration.monitor.every + deadline
    if now <= due:
        return None
    state, reason = _of_lock(context, "monitor", look_lock(store, system))
    return Late(due=due, state=state, reason=f"no look since {_moment(last)}: {reason}")


def _of_lock(context: Context, what: Timed, lock: Path) -> tuple[State, str]:
    """Whether what holds a lock while it runs does so, failed, or was not begun."""
    began, failure = held_since(lock), failures_of(context.store, context.system).get(what)
    if failure is not None and (began is None or failure.at >= began):
        return _failed(failure)
    if began is not None:
        return "running", f"running since {_moment(began)}"
    return "waiting", _waits(context)


def _failed(failure: Failure) -> tuple[State, str]:
    return "failing", f"failed {_moment(failure.at)}: {failure.reason.partition(chr(10))[0]}"


def _waits(context: Context) -> str:
    """That nothing has begun it, and what of the stack it may wait for."""
    gone = context.stack.missing()
    return "; ".join(["nothing has begun it", *(gone or {}).values()])


def _how(context: Context, what: Timed, known: Lateness) -> str:
    """How something came to be late no more, in a sentence."""
    if what not in deadlines_of(context.declaration):
        return "No deadline is declared for it any more."
    if what == "batch":
        return "Every interval that is due is scored."
    if what == "monitor":
        worked = last_worked(context.store, context.system, "monitor")
        return "" if worked is None else f"The last look was {_moment(worked)}."
    runs = [run for run in runs_of(context.store, context.system) if run.until is None]
    ended = next((run for run in runs if run.ended is not None and run.failed is None), None)
    if ended is None or ended.ended is None or ended.ended < known.noticed:
        return "Nothing calls for a training any more."
    return f"Done {_moment(ended.ended)}: {ended.result}."


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _file(context: Context) -> Path:
    return context.store.path("systems", f"{context.system}.late.json")


def _read(path: Path) -> dict[Timed, Lateness]:
    try:
        content = read_json(path) or {}
        return {what: Lateness.model_validate(one) for what, one in content.items()}
    except (AttributeError, ValidationError, ValueError):  # damaged: as if nothing was noticed
        return {}
