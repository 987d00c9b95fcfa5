"""Back up the store that a system is in, with all other systems of it."""

from __future__ import annotations

from prefect import flow

from flows._names import run_name
from holdtrue.notifications import notified_backup
from holdtrue.system import Run, System
from tasks import backups


@flow(name="backup", flow_run_name=run_name, log_prints=False)
def backup(declaration: str, target: str, keep: int | None = None) -> str:
    """Back up what is new; who is in ``notify`` is told where that fails.

    Args:
        declaration: Path of the YAML file.
        target: A folder, or such as ``s3://bucket/prefix``.
        keep: As many of the newest backups stay; all where left out.

    Returns:
        Name of the backup.
    """
    context = System(declaration).context(trigger="backup")
    run = Run(declaration=declaration, as_of=context.as_of, trigger="backup")
    with notified_backup(context):
        return backups.back_up(run, target, keep).backup.name
