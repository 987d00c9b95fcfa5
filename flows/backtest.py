"""Play a declared life over history: what would its retraining have cost and gained?"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - Prefect reads annotations at run time

from prefect import flow

from flows._names import run_name
from holdtrue.commands import duration_of
from holdtrue.system import Run, System
from tasks import monitoring


@flow(name="backtest", flow_run_name=run_name, log_prints=False)
def backtest(
    declaration: str,
    start: datetime | None = None,
    end: datetime | None = None,
    beside: str | None = None,
) -> list[str]:
    """Play the declared policy of retraining, and none, over the rows that there are.

    Args:
        declaration: Path of the YAML file.
        start: First training; the middle of the rows where left out.
        end: Where it ends; ``data.as_of`` or now where left out.
        beside: Also train again this often, such as ``30d``.

    Returns:
        Whether retraining as declared would have paid, in a sentence for each of the others.
    """
    context = System(declaration).context(trigger="backtest")
    found = monitoring.backtest(
        Run(declaration=declaration, as_of=context.as_of, trigger="backtest"),
        start,
        end,
        None if beside is None else duration_of("beside", beside),
    )
    return [*found.gains()]
