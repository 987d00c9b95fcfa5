"""Compare what was served with the reference, and ask for a retraining where it is called for."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - Prefect reads annotations at run time
from typing import TYPE_CHECKING

from prefect import flow

from flows._command import start
from flows._names import run_name
from holdtrue.notifications import notified_look
from holdtrue.system import Run, System
from tasks import monitoring, release
from tasks._step import announce

if TYPE_CHECKING:
    from holdtrue.references import DriftReport

# The automation in prefect.yaml starts the deployment `retrain` on this event.
DRIFT_EVENT = "holdtrue.drift.detected"


@flow(name="monitor", flow_run_name=run_name, log_prints=False)
def monitor(declaration: str, as_of: datetime | None = None, retrain: bool = True) -> str:
    """Run the monitor; emit the drift event if it decides to retrain and nothing holds it back.

    Args:
        declaration: Path of the YAML file.
        as_of: Moment to take for now; the clock's where left out.
        retrain: Whether to emit the event.

    Returns:
        The action that was decided: none, warn, retrain or fix_data.
    """
    system = System(declaration)
    context = system.context(as_of=as_of, refresh=True, trigger="monitor")
    run = Run(declaration=declaration, as_of=context.as_of, trigger="monitor")
    release.reach_registry(run)
    with notified_look(context):
        report = monitoring.monitor(run)
    decision = report.decision
    if retrain and decision.action == "retrain" and decision.held_back is None:
        ask_for_retraining(report, declaration)
    return decision.action


def ask_for_retraining(report: DriftReport, declaration: str) -> None:
    """Emit the event that starts the deployment `retrain`.

    Args:
        report: What the monitor saw; its moment is the retraining's.
        declaration: Path of the YAML file.
    """
    decision = report.decision
    announce(
        DRIFT_EVENT,
        report.system,
        declaration=declaration,
        as_of=report.at.isoformat(),
        # What is recorded with the version: in short, as the decision is on record with its reason.
        trigger=", ".join(decision.signals),
        reason=decision.reason[:1000],
    )


if __name__ == "__main__":
    start(monitor, "as-of", "no-retrain")
