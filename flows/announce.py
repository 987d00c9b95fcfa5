"""Tell Prefect of a rollout that began outside of a flow, so that its deployment takes it on."""

from __future__ import annotations

from flows._command import start
from holdtrue.system import System
from tasks.release import ask_for_driving


def announce(declaration: str) -> None:
    """Emit the event that starts the deployment `rollout`, if a rollout runs.

    Args:
        declaration: Path of the YAML file.
    """
    system = System(declaration)
    running = system.registry.running_rollout(system.declaration.name)
    if running is not None:
        ask_for_driving(running, declaration)


if __name__ == "__main__":
    start(announce)
