"""What is kept elsewhere, so that the disk may die."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task
from prefect.logging import get_run_logger

from holdtrue.backup import back_up as make
from tasks._progress import Shown
from tasks._step import OPTIONS

if TYPE_CHECKING:
    from holdtrue.backup import Made
    from holdtrue.system import Run


@task(name="backup", **OPTIONS)
def back_up(run: Run, target: str, keep: int | None) -> Made:
    """Back up the store of a system; a target that is away is asked again."""
    context = run.context()
    with Shown(context.system).step("backup") as progress:
        made = make(context.store, target, keep=keep, progress=progress)
    get_run_logger().info("%s", made)
    return made
