"""Let a new version take over step by step, and go back by itself where it is worse."""

from __future__ import annotations

from prefect import flow

from flows._command import start
from flows._names import run_name
from holdtrue.system import Run, System
from tasks import release


@flow(name="rollout", flow_run_name=run_name, log_prints=False)
def rollout(declaration: str) -> str | None:
    """Drive the rollout that runs to its end; there is nothing to do where none runs.

    How far a rollout is lies in the registry: a flow that is killed is gone on with by the next.

    Args:
        declaration: Path of the YAML file.

    Returns:
        How it ended: finished, back or stopped; None where none ran.
    """
    system = System(declaration)
    context = system.context(trigger="rollout")
    run = Run(declaration=declaration, as_of=context.as_of, trigger=context.trigger)
    release.reach_registry(run)
    if context.registry.running_rollout(context.system) is None:
        return None
    ended = release.roll_out(run)
    return None if ended is None else str(ended.state)


if __name__ == "__main__":
    start(rollout)
