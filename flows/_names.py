"""What runs are called in the Prefect UI, which lists those of all systems together."""

from __future__ import annotations

from pathlib import Path

from prefect.runtime import flow_run

from holdtrue.declaration import load
from holdtrue.errors import HoldtrueError


def run_name() -> str:
    """Name of the run that begins: its system, and in brackets why it runs, where that is known.

    Of a declaration that cannot be read it is the name of the file: the run itself says why.
    """
    given = flow_run.parameters
    path, trigger = Path(given["declaration"]), given.get("trigger")
    try:
        name = load(path).name
    except (HoldtrueError, OSError):
        name = path.stem
    return f"{name} ({trigger})" if trigger not in (None, flow_run.flow_name) else name
