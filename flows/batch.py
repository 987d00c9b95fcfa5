"""Score the rows of every interval of time that is due."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - Prefect reads annotations at run time

from prefect import flow

from flows._command import start as start_flow
from flows._names import run_name
from holdtrue.intervals import score_due
from holdtrue.system import Run, System
from tasks import release, scoring


@flow(name="batch", flow_run_name=run_name, log_prints=False)
def batch(
    declaration: str,
    start: datetime | None = None,
    end: datetime | None = None,
    again: bool = False,
    as_of: datetime | None = None,
) -> int:
    """Score what is due with the champion, a task for each interval; what failed is due again.

    Args:
        declaration: Path of the YAML file.
        start: Only intervals that start at this moment or later, also of a past that was before
            ``batch.since``.
        end: Only intervals that start before this moment.
        again: Score those anew, too, that are done; needs ``start``.
        as_of: Moment to take for now; the clock's where left out.

    Returns:
        The number of rows that were scored.
    """
    context = System(declaration).context(as_of=as_of, refresh=True, trigger="batch")
    run = Run(declaration=declaration, as_of=context.as_of, trigger="batch")
    release.reach_registry(run)
    scored = score_due(
        context, start, end, again=again, score=lambda interval: scoring.score(run, interval)
    )
    return sum(one.rows for one in scored)


if __name__ == "__main__":
    start_flow(batch, "as-of", "start", "end", "again")
