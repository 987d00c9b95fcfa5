"""From a verdict to an answering endpoint, and from a challenger to a champion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.artifacts import create_markdown_artifact

from holdtrue.approval import approval_of
from holdtrue.references import Version
from holdtrue.release import drive
from holdtrue.reports import rollout_markdown
from tasks._progress import Shown
from tasks._step import OPTIONS, announce, perform

if TYPE_CHECKING:
    from holdtrue.references import Evaluation, ModelRef, ProfileRef, Refit, Verdict
    from holdtrue.rollout import Rollout
    from holdtrue.system import Run

# The automation in prefect.yaml starts the deployment `rollout` on this event.
ROLLOUT_EVENT = "holdtrue.rollout.began"
# For automations of one's own, such as a message to those who approve.
APPROVAL_EVENT = "holdtrue.approval.wanted"


@task(name="registry", **OPTIONS)
def registry(run: Run) -> None:
    """Refuse a registry that cannot be used, before anything depends on it."""
    run.context().registry.check()


def reach_registry(run: Run) -> None:
    """Ask a registry on a server, again where it is away, as a source is; a file is just there."""
    if run.context().registry.on_server:
        registry(run)


@task(name="register", **OPTIONS)
def register(
    run: Run,
    profile: ProfileRef,
    fit: ModelRef,
    evaluate: Evaluation,
    gate: Verdict,
    refit: Refit | None = None,
) -> Any:
    """Give the model a version; make it the champion, or roll it out: a `Version`."""
    inputs = {"profile": profile, "fit": fit, "evaluate": evaluate, "gate": gate}
    if refit is not None:  # not part of each plan
        inputs["refit"] = refit
    version = perform(run, "register", inputs)
    context = run.context()
    asked = approval_of(context.registry, context.declaration)
    found = not isinstance(version, Version)  # done before, and told then
    if asked is not None and not asked.over and not found:
        facts = asked.model_dump(mode="json")
        announce(APPROVAL_EVENT, context.system, declaration=run.declaration, **facts)
    return version


@task(name="serve", **OPTIONS)
def serve(run: Run, register: Version) -> Any:
    """Answer requests with the champion, on Ray Serve: a `Release`."""
    release = perform(run, "serve", {"register": register})
    context = run.context()
    rollout = context.registry.running_rollout(context.system)
    if rollout is not None:
        ask_for_driving(rollout, run.declaration)
    return release


@task(name="rollout", **OPTIONS)
def roll_out(run: Run) -> Rollout | None:
    """Drive the running rollout to its end, with a verdict on each step; None where none runs."""
    context = run.context()
    with Shown(context.system).step("rollout") as progress:

        def say(rollout: Rollout) -> None:
            progress(rollout.step, rollout.n_steps, f"{rollout.where}: {rollout.reason}")

        ended = drive(context, say)
    if ended is not None:
        verdicts = context.registry.verdicts(ended.id)
        create_markdown_artifact(
            rollout_markdown(context.declaration, ended, verdicts),
            key=f"{context.system}-rollout",
            description=f"how version {ended.challenger} of {context.system} took over, or not",
        )
    return ended


def ask_for_driving(rollout: Rollout, declaration: str) -> None:
    """Emit the event that starts the deployment `rollout`.

    Args:
        rollout: The one that began.
        declaration: Path of the YAML file.
    """
    announce(ROLLOUT_EVENT, rollout.system, declaration=declaration)
