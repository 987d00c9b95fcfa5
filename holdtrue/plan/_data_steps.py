"""The steps from the source to training and test rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdtrue.data import (
    broken_contract,
    check_frame,
    load_snapshot,
    read_source,
    refuse_unusable,
    take_snapshot,
    write_check,
    write_split,
)
from holdtrue.plan._own_steps import load_prepared
from holdtrue.plan._reports import write_refusal
from holdtrue.plan._step import Step, Work
from holdtrue.references import DataCheck, Prepared, ProfileRef, Snapshot, Split

if TYPE_CHECKING:
    from holdtrue.declaration import Declaration
    from holdtrue.plan._context import Context
    from holdtrue.plan._step import Inputs


def _extract(work: Work) -> Snapshot:
    context = work.context
    data = context.declaration.data
    start = end = None
    if data.time is not None:
        end = context.labelled_until
        start = None if data.window is None else end - data.window
    work.progress(0, 0, "reading the source")
    times, source = context.declaration.features.times, data.source.step
    rows = None
    if source is not None:
        rows = load_prepared(context.store, source, work.get(source, Prepared))
    table = read_source(data, context.project, start, end, times, rows=rows)
    refuse_unusable(context.declaration, table)
    work.progress(0, 0, f"writing {len(table):,} rows")
    return take_snapshot(context.store, context.system, table, start, end)


def _check(work: Work) -> DataCheck:
    context = work.context
    snapshot = work.get("extract", Snapshot)
    work.progress(0, 0, f"holding {snapshot.rows:,} rows against the contract")
    frame = load_snapshot(context.store, snapshot)
    checked = check_frame(context.declaration, frame, dict(snapshot.columns))
    check = write_check(
        context.store, f"data/{context.system}/checks/{work.digest}", snapshot, checked
    )
    if check.broken:
        raise broken_contract(check, write_refusal(context, snapshot, check))
    return check


def _profile(work: Work) -> ProfileRef:
    import pandas as pd

    from holdtrue.profiles import reference, until_event

    context = work.context
    declaration, check = context.declaration, work.get("check", DataCheck)
    frame = pd.read_parquet(context.store.path(check.asked))
    work.progress(0, 0, f"profiling {len(frame):,} rows, calibrating the alarm")
    time, roles = declaration.data.time, check.roles
    when = None if time is None else frame[time]
    if when is not None:
        frame = until_event(frame, roles.times, when)
    folder = context.store.path("profiles", context.system, work.digest)
    digest, blocks, columns = reference(
        frame,
        when,
        (*roles.numbers, *roles.times),
        roles.categories,
        window=declaration.monitor.window,
        false_alarms=declaration.monitor.false_alarms,
        folder=folder,
        seed=declaration.seed,
    )
    return ProfileRef(
        path=context.store.relative(folder),
        digest=digest,
        rows=len(frame),
        blocks=blocks,
        columns=columns,
    )


def _split(work: Work) -> Split:
    context = work.context
    work.progress(0, 0, "cutting training and test rows")
    snapshot, check = work.get("extract", Snapshot), work.get("check", DataCheck)
    folder = f"data/{context.system}/splits/{work.digest}"
    return write_split(context.store, folder, context.declaration, check, snapshot.end)


def _moment(context: Context, inputs: Inputs) -> dict[str, Any]:
    del inputs
    data = context.declaration.data
    seen = {"source": {**context.source}}
    # Without a time column there is no window: the same files have the same rows at any moment.
    still = data.time is None and (data.source.step or {"files", "version"} & seen["source"].keys())
    return seen if still else seen | {"as of": context.as_of.isoformat()}


def _dump(declaration: Declaration, **parts: set[str] | bool) -> dict[str, Any]:
    """The named parts of a declaration as JSON; a set picks keys of a section."""
    include: dict[str, Any] = dict(parts)
    return declaration.model_dump(mode="json", include=include)


def _reads_source(declaration: Declaration) -> dict[str, Any]:
    windowed = {"window", "labels_after"} if declaration.data.time is not None else set()
    read = _dump(declaration, data={"source", "time"} | windowed)
    times = declaration.features.times
    return read | ({"times": [*times]} if times else {})


DATA_STEPS = (
    Step(
        name="extract",
        says="read the source and keep a version of it",
        output=Snapshot,
        run=_extract,
        reads=_reads_source,
        rooms=(
            "data/_sources.py",
            "data/_database.py",
            "data/_delta.py",
            "data/_files.py",
            "data/_kinds.py",
            "data/_snapshots.py",
        ),
        outside=_moment,
        paths=lambda r: (r.table,) if isinstance(r, Snapshot) else (),
    ),
    Step(
        name="check",
        says="hold the rows against the contract",
        output=DataCheck,
        run=_check,
        reads=lambda d: _dump(
            d,
            task=True,
            data={"target", "key", "time", "contract"},
            features=True,
            evaluate={"slices"},
        ),
        rooms=(
            "data/_contract.py",
            "data/_built_in.py",
            "data/_derived.py",
            "data/_kinds.py",
            "models/_derivation.py",
            "expressions",
        ),
        inputs=("extract",),
        paths=lambda r: (
            tuple(filter(None, (r.kept, r.asked, r.quarantine))) if isinstance(r, DataCheck) else ()
        ),
        sealed=True,
    ),
    Step(
        name="profile",
        says="profile the rows and calibrate the drift alarm",
        output=ProfileRef,
        run=_profile,
        reads=lambda d: _dump(d, data={"time"}, monitor={"window", "false_alarms"}, seed=True),
        rooms=("profiles",),
        inputs=("check",),
        paths=lambda r: (r.path,) if isinstance(r, ProfileRef) else (),
        sealed=True,
    ),
    Step(
        name="split",
        says="cut training and test rows",
        output=Split,
        run=_split,
        reads=lambda d: _dump(d, task=True, data={"target", "time"}, evaluate={"test"}, seed=True),
        rooms=("data/_split.py", "models/_known.py"),
        inputs=("extract", "check"),
        paths=lambda r: (r.train, r.test) if isinstance(r, Split) else (),
        sealed=True,
    ),
)
