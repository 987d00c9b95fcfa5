"""A plan compiled into Prefect task runs."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prefect.logging import get_run_logger

from holdtrue.notifications import notified_training
from holdtrue.plan import Runner, applied, ask_again, steps_until
from holdtrue.progress import Terminal
from holdtrue.retention import retained
from holdtrue.runs import recorded_run
from holdtrue.session import ready
from holdtrue.system import Run, System
from tasks import data, release, training
from tasks._step import published_run

if TYPE_CHECKING:
    from datetime import datetime

    from holdtrue.plan import Applied

# One task for each step that plans have (a test asserts that they match, inputs and all); those
# of the project's own are all run by one.
TASKS: dict[str, Any] = {
    "extract": data.extract,
    "check": data.check,
    "profile": data.profile,
    "split": data.split,
    "tune": training.tune,
    "fit": training.fit,
    "rolling": training.rolling,
    "evaluate": training.evaluate,
    "gate": training.gate,
    "refit": training.refit,
    "register": release.register,
    "serve": release.serve,
}


def run_plan(
    declaration: str,
    as_of: datetime | None,
    *,
    refresh: bool,
    until: str | None,
    trigger: str,
    redo: str | None = None,
) -> Applied:
    """Run each step of the plan as a task; the results of earlier steps are its arguments.

    Args:
        declaration: Path of the YAML file.
        as_of: Moment to take for now; that of the last run where left out.
        refresh: Left out `as_of` is now, so that new data are read.
        until: Last step to run.
        trigger: Why it runs, in words.
        redo: A step to do again, whatever it has given before, with all that depends on it.
    """
    system = System(declaration)
    context = system.context(as_of=as_of, refresh=refresh, reporter=Terminal(), trigger=trigger)
    results: dict[str, Any] = {}
    finished = []
    system.store.check()
    run = Run(declaration=declaration, as_of=context.as_of, trigger=trigger)
    release.reach_registry(run)
    with (
        system.alone(),
        notified_training(context, until),
        published_run(context),
        recorded_run(context, until),
        retained(context, get_run_logger().info),
        ExitStack() as session,
    ):
        run = run.model_copy(update={"source": data.source(run)})
        context = replace(context, seen=run.source)
        system.prepare(context, until)
        if redo is not None:
            ask_again(context, redo, until)
        runner = Runner(context)
        for step in steps_until(until, context.declaration):
            if step.serves and context.registry.champion(context.system) is None:
                break
            ready(system, session, runner, step, until)
            inputs = {name: results[name] for name in step.inputs}
            if step.name in TASKS:
                results[step.name] = TASKS[step.name](run, **inputs)
            else:
                results[step.name] = data.own.with_options(name=step.name)(run, step.name, inputs)
            finished.append(runner.perform(step.name))  # found: the task has just done it
    return applied(context, finished)
