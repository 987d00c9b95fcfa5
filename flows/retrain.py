"""Train again on new data, and let the new model challenge the champion."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - Prefect reads annotations at run time

from prefect import flow

from flows._command import start
from flows._compile import run_plan
from flows._names import run_name


@flow(name="retrain", flow_run_name=run_name, log_prints=False)
def retrain(
    declaration: str, as_of: datetime | None = None, trigger: str = "retrain"
) -> int | None:
    """Read new data, search from the best earlier settings, and promote the model if it is better.

    The champion and the challenger are judged on the same rows. The champion goes on answering
    until the challenger has passed every gate, and is replaced without a failed request.

    Args:
        declaration: Path of the YAML file.
        as_of: Moment to take for now; the clock's where left out.
        trigger: Why it runs, in words: the decision of the monitor.

    Returns:
        Version of the champion afterwards.
    """
    applied = run_plan(declaration, as_of, refresh=True, until=None, trigger=trigger)
    return applied.champion


if __name__ == "__main__":
    start(retrain, "as-of")
