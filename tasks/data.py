"""From the source to training and test rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import task

from holdtrue.preparation import check_sources
from tasks._step import OPTIONS, perform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdtrue.references import DataCheck, Prepared, Snapshot
    from holdtrue.system import Run


@task(name="source", **OPTIONS)
def source(run: Run) -> dict[str, str]:
    """Refuse a source that is not there; what it looks like, as `Context.source` has it."""
    context = run.context()
    with context.places.told():
        return check_sources(context.declaration, context.project)


@task(name="step", **OPTIONS)
def own(run: Run, step: str, inputs: Mapping[str, Prepared]) -> Any:
    """Run a step of the project's own: a `Prepared`."""
    return perform(run, step, inputs)


@task(name="extract", **OPTIONS)
def extract(run: Run, **own: Prepared) -> Any:
    """Read the source, or what a step of the project's own gave, and keep it: a `Snapshot`."""
    return perform(run, "extract", own)


@task(name="check", **OPTIONS)
def check(run: Run, extract: Snapshot) -> Any:
    """Hold the rows against the contract: a `DataCheck`."""
    return perform(run, "check", {"extract": extract})


@task(name="profile", **OPTIONS)
def profile(run: Run, check: DataCheck) -> Any:
    """Profile the rows and calibrate the drift alarm: a `ProfileRef`."""
    return perform(run, "profile", {"check": check})


@task(name="split", **OPTIONS)
def split(run: Run, extract: Snapshot, check: DataCheck) -> Any:
    """Cut training and test rows: a `Split`."""
    return perform(run, "split", {"extract": extract, "check": check})
