"""From the source to training and test rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import task

from holdtrue.data import check_source
from tasks._step import OPTIONS, perform

if TYPE_CHECKING:
    from holdtrue.references import DataCheck, Snapshot
    from holdtrue.system import Run


@task(name="source", **OPTIONS)
def source(run: Run) -> dict[str, str]:
    """Refuse a source that is not there; what it looks like, as `Context.source` has it."""
    context = run.context()
    return check_source(context.declaration.data, context.project)


@task(name="extract", **OPTIONS)
def extract(run: Run) -> Any:
    """Read the source and keep a version of it: a `Snapshot`."""
    return perform(run, "extract", {})


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
