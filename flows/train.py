"""Make a declaration so: from the source to an answering endpoint."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - Prefect reads annotations at run time

from prefect import flow

from flows._command import start
from flows._compile import run_plan
from flows._names import run_name


@flow(name="train", flow_run_name=run_name, log_prints=False)
def train(
    declaration: str,
    as_of: datetime | None = None,
    refresh: bool = False,
    until: str | None = None,
    redo: str | None = None,
    trigger: str = "train",
) -> int | None:
    """Run the steps that are not done, and serve the champion.

    Args:
        declaration: Path of the YAML file.
        as_of: Moment to take for now; that of the last run where left out.
        refresh: Read new data, up to now.
        until: Last step to run.
        redo: A step to do again, whatever it has given before, with all that depends on it.
        trigger: Why it runs, in words; recorded with the version.

    Returns:
        Version of the champion.
    """
    applied = run_plan(declaration, as_of, refresh=refresh, until=until, trigger=trigger, redo=redo)
    return applied.champion


if __name__ == "__main__":
    start(train, "as-of", "refresh", "until", "redo")
