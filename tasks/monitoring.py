"""What is watched while a model is served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task

from holdtrue.progress import Terminal
from holdtrue.reports import drift_markdown
from holdtrue.watch import watch
from tasks._step import OPTIONS, publish, say

if TYPE_CHECKING:
    from holdtrue.references import DriftReport
    from holdtrue.system import Run


@task(name="monitor", **OPTIONS)
def monitor(run: Run) -> DriftReport:
    """Fold in what was captured, compare it with the reference, decide, and record why."""
    context = run.context(Terminal())
    report = watch(context)
    publish(
        context.system,
        "monitor",
        drift_markdown(context.declaration, context.registry.drift_reports(context.system)),
    )
    say("monitor", report)
    return report
