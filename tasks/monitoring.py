"""What is watched while a model is served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task

from holdtrue.backtest import backtest_folder
from holdtrue.progress import Terminal
from holdtrue.reports import backtest_markdown, backtest_page, drift_markdown
from holdtrue.system import System
from holdtrue.watch import watch
from tasks._progress import Shown
from tasks._step import OPTIONS, publish, say

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from holdtrue.backtest import Backtest
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


@task(name="backtest", **OPTIONS)
def backtest(
    run: Run, start: datetime | None, end: datetime | None, beside: timedelta | None
) -> Backtest:
    """Play the declared life over history, and leave the page about it: a `Backtest`."""
    system = System(run.declaration)
    name = system.declaration.name
    found = system.backtest(start, end, beside=beside, reporter=Shown(f"{name}-backtest"))
    page = backtest_folder(system) / "backtest.html"
    backtest_page(system.declaration, found).save(page)
    publish(name, "backtest", backtest_markdown(found, page))
    return found
