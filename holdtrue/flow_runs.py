"""The project's flows, run beside the command: the engine itself never imports Prefect."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdtrue.system import System


def prefect_known(system: System) -> bool:
    """Whether a Prefect server is known, and the project has the flows that it would run."""
    known = "PREFECT_API_URL" in os.environ or system.stack.state().prefect_api is not None
    # Another project may have flows of that name; `holdtrue new` makes both.
    flows = system.project / "flows"
    return known and (flows / "train.py").exists() and (flows / "_compile.py").exists()


def has_flow(system: System, flow: str) -> bool:
    """Whether a Prefect server is known, and the project has this flow: an earlier one may not."""
    return prefect_known(system) and (system.project / "flows" / f"{flow}.py").exists()


def run_flow(system: System, flow: str, **options: Any) -> None:
    """Run a flow of the project in a process of its own, and wait for its end.

    Args:
        system: Whose declaration it is given.
        flow: Name of its module.
        **options: Its flags: none for what is None or False.

    Raises:
        SystemExit: It failed, and has said why.
    """
    code = _call(system, flow, options)
    if code != 0:
        raise SystemExit(code)


def hand_over_rollout(system: System) -> bool:
    """Ask Prefect, where it is known, to drive the rollout that has begun; whether it was asked."""
    return has_flow(system, "announce") and _call(system, "announce", {}) == 0


def who_drives(system: System, *, by_prefect: bool) -> str:
    """Say who takes a rollout on that has begun.

    Args:
        system: The one that it is of.
        by_prefect: Whether Prefect was asked to.
    """
    file = shlex.quote(str(system.path))
    if not by_prefect:
        return f"Drive it with `holdtrue rollout run {file}`"
    return (
        f"The deployment rollout/{system.declaration.name} takes it on; "
        f"`holdtrue rollout status {file}` says how far it is"
    )


def _call(system: System, flow: str, options: dict[str, Any]) -> int:
    arguments = [str(system.path.resolve())]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            arguments.append(flag)
        elif value not in (None, False):
            text = value.isoformat() if hasattr(value, "isoformat") else str(value)
            arguments += [flag, text]
    # What the user has set goes before what the stack knows.
    # Errors end in one sentence here; the Prefect UI has the whole log.
    quiet = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
    environment = quiet | system.stack.environment() | os.environ
    return subprocess.call(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", f"flows.{flow}", *arguments], cwd=system.project, env=environment
    )
