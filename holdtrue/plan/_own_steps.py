"""Steps of the project's own, before the extraction: what `steps` declares."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdtrue.data import as_table, list_files, read_source, table_digest, together
from holdtrue.declaration import Data, Source, needed
from holdtrue.errors import DataError, HoldtrueError, SourceError
from holdtrue.plan._digest import digest
from holdtrue.plan._step import Step, Work
from holdtrue.preparation import Call, arguments_of, files_of, is_seen, run_calls, state_of
from holdtrue.references import Prepared
from holdtrue.store import locked, read_json, replacing, write_atomically, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pyarrow as pa

    from holdtrue.declaration import Declaration
    from holdtrue.declaration import Step as Declared
    from holdtrue.errors import Key
    from holdtrue.plan._context import Context
    from holdtrue.plan._step import Inputs
    from holdtrue.preparation import Failure, Outcome
    from holdtrue.references import Kind, Reference
    from holdtrue.store import Store

# Of a step, what its last two results are of is kept: a declaration may be taken back.
_KEPT = 2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What a result does not depend on.
_NOT_READ = {"at_once", "cpus", "every", "retries", "timeout"}


def own_steps(declaration: Declaration, sources: Iterable[Source | None]) -> tuple[Step, ...]:
    """The declared steps that sources need, each after those that it needs itself."""
    return tuple(_step(declaration, name) for name in needed(declaration.steps, sources))


def _step(declaration: Declaration, name: str) -> Step:
    declared = declaration.steps[name]
    return Step(
        name=name,
        says=f"run {declared.run if isinstance(declared.run, str) else declared.run[0]}",
        output=Prepared,
        run=_running(name),
        reads=lambda d: {
            "steps": {name: d.steps[name].model_dump(mode="json", exclude=_NOT_READ)}
            if name in d.steps
            else {}
        },
        rooms=("preparation", "data/_kinds.py"),
        inputs=tuple(dict.fromkeys(declared.before)),
        outside=_outside(name),
        paths=lambda r: r.files if isinstance(r, Prepared) else (),
        uses_ray=True,
    )


def _outside(name: str) -> Callable[[Context, Inputs], dict[str, Any]]:
    def outside(context: Context, inputs: Inputs) -> dict[str, Any]:
        del inputs
        declared, mark = context.declaration.steps[name], f"{name}."
        # A run has looked at what its source needs when it began.
        seen = {k.removeprefix(mark): v for k, v in context.source.items() if k.startswith(mark)}
        found: dict[str, Any] = {**(seen or state_of(declared, name, context.project))}
        if is_seen(declared):
            return found
        return found | {"as of": _floor(context.as_of, declared.every).isoformat()}

    return outside


def _floor(moment: datetime, every: timedelta | None) -> datetime:
    return moment if every is None else moment - (moment - _EPOCH) % every


def _running(name: str) -> Callable[[Work], Reference]:
    def run(work: Work) -> Prepared:
        return _run(work, name)

    return run


@dataclass(frozen=True)
class _Part:
    """One run of a step, and where its rows are kept."""

    call: Call
    of: str
    """The value that it is for, such as ``region north``; empty where there is one run."""
    path: Path

    @property
    def note(self) -> Path:
        """What is known of the rows, once they are there."""
        return self.path.with_suffix(".json")

    def is_done(self) -> bool:
        """Whether its rows are there."""
        return self.path.exists() and self.note.exists()


def _run(work: Work, name: str) -> Prepared:
    context, declared = work.context, work.context.declaration.steps[name]
    folder = context.store.path("data", context.system, "steps", name)
    parts = _parts(work, name, declared, folder)
    folder.mkdir(parents=True, exist_ok=True)
    # A training, a look of the monitor and a batch may all need it at the same time.
    with locked(folder / ".lock"):
        todo = [part for part in parts if not part.is_done()]
        if todo:
            _do(work, name, declared, parts, todo)
        notes = [read_json(part.note) for part in parts]
        _forget(folder, parts)
    return Prepared(
        files=tuple(context.store.relative(part.path) for part in parts),
        digests=tuple(note["digest"] for note in notes),
        runs=tuple(part.of or name for part in parts),
        rows=sum(note["rows"] for note in notes),
    )


def _parts(work: Work, name: str, declared: Declared, folder: Path) -> list[_Part]:
    """The runs of a step; what one depends on is all that the step does, but the other values."""
    project = work.context.project
    takes = arguments_of(declared, name, project) if isinstance(declared.run, str) else {}
    values: list[tuple[dict[str, Any], Any]] = [({}, None)]
    for each, chosen in declared.foreach.items():
        if isinstance(chosen, str):
            files = files_of(("steps", name, "foreach", each), chosen, project)
            values = [({each: Path(path)}, state) for path, state in files.items()]
        else:
            values = [({each: value}, value) for value in chosen]
    parts = []
    for value, state in values:
        of = " ".join(f"{key} {_said(one, project)}" for key, one in value.items())
        key = digest(_of_one(work.components, name, declared) | {"value": state})
        path = folder / f"{key}.parquet"
        call = Call(
            says=f"the step {name}{f' ({of})' if of else ''}",
            run=declared.run,
            writes=declared.writes,
            project=project,
            takes=takes,
            constants=_constants(declared) | value,
            timeout_s=declared.timeout.total_seconds(),
            log=path.with_suffix(".log"),
        )
        parts.append(_Part(call, of, path))
    return parts


def _said(value: Any, project: Path) -> Any:
    """A value of `foreach` as messages have it: a file by its path, for folders share names."""
    inside = isinstance(value, Path) and value.is_relative_to(project)
    return value.relative_to(project) if inside else value


def _constants(declared: Declared) -> dict[str, Any]:
    return {k: [*v] if isinstance(v, tuple) else v for k, v in declared.params.items()}


def _of_one(components: Mapping[str, Any], name: str, declared: Declared) -> dict[str, Any]:
    """What one run depends on, of what its step does: not the list of values."""
    told = components["declared"]["steps"][name]
    kept = {key: value for key, value in told.items() if key != "foreach"}
    files = {f"foreach.{each}" for each in declared.foreach}
    seen = {key: value for key, value in components["outside"].items() if key not in files}
    return {
        **components,
        "declared": kept | {"foreach": [*declared.foreach]},
        "outside": seen,
    }


def _do(work: Work, name: str, declared: Declared, parts: list[_Part], todo: list[_Part]) -> None:
    """Do the runs that are not done; those that go well are kept, whatever becomes of others.

    Raises:
        DataError: One failed, and did so as often as it may be tried.
        SourceError: Something did not answer it.
        StackError: Ray does not start or answer.
    """
    from holdtrue.stack import ray_session

    context = work.context
    given = {
        need: _given(work, declared.needs[need], ("steps", name, "needs", need), how)
        for need, how in _how(declared, todo[0].call).items()
    }
    ended = len(parts) - len(todo)
    for part in todo:
        part.call.log.unlink(missing_ok=True)

    def show() -> None:
        runs = f"{ended:,} of {len(parts):,} runs" if parts[1:] else "running"
        work.progress(ended, len(parts) if parts[1:] else 0, runs)

    def done(number: int, outcome: Outcome) -> None:
        nonlocal ended
        _keep(todo[number], outcome)
        ended += 1
        show()

    show()
    with ray_session(context.stack, context.declaration.ray.address):
        failed = run_calls(
            [part.call for part in todo],
            given,
            at_once=declared.at_once,
            cpus=declared.cpus,
            retries=declared.retries,
            done=done,
        )
    if failed:
        raise _failure(failed, todo, ended, len(parts))


def _how(declared: Declared, call: Call) -> dict[str, str]:
    """By need: how it is given. A command has files as they lie."""
    return {
        need: call.takes.get(need, "frame")
        if isinstance(call.run, str)
        else "paths"
        if source.files is not None and "://" not in source.files
        else "table"
        for need, source in declared.needs.items()
    }


def _given(work: Work, source: Source, place: Key, how: str) -> pa.Table | tuple[str, ...]:
    """What a run is given: rows, or the paths of files that need not be read here."""
    context = work.context
    if source.step is not None:
        return load_prepared(context.store, source.step, work.get(source.step, Prepared))
    if source.files is not None and how in ("path", "paths"):
        paths = list_files(source.files, context.project).paths
        if how == "path" and len(paths) > 1:
            message = f"{source} are {len(paths)}, and the function takes one path"
            raise DataError(message, hint="annotate the argument with list[Path]", key=place)
        return paths
    return read_source(Data(source=source, target="-"), context.project, None, None, place=place)


def _keep(part: _Part, outcome: Outcome) -> None:
    """Write what a run gave: the note last, for it says that all is there."""
    import pyarrow.parquet as pq

    table = outcome.table
    assert table is not None  # noqa: S101 - it went well
    with replacing(part.path) as draft:
        pq.write_table(table, draft, compression="zstd")
    write_atomically(part.call.log, outcome.printed.encode())
    write_json(part.note, {"rows": len(table), "digest": table_digest(table)})


def _failure(failed: list[Failure], todo: list[_Part], ended: int, of: int) -> HoldtrueError:
    """One error for all runs that failed: of the first, and how many others did, too."""
    number, outcome, tries = failed[0]
    log = todo[number].call.log
    # A function that took too long has written it by itself.
    if outcome.printed or not log.exists():
        write_atomically(log, outcome.printed.encode())
    message, _, hint = outcome.error.partition("\n")
    if log.stat().st_size or not hint:
        what = f"what it printed, and where it failed: {log}"
        hint = f"{hint}; {what}" if hint else what
    if tries > 1:
        message += f" (tried {tries} times)"
    if failed[1:]:
        message += f"; {len(failed) - 1} more runs failed"
    if of > 1:
        message += f"; {ended:,} of {of:,} runs are done, and found the next time"
    kind = SourceError if outcome.away else DataError
    return kind(message, hint=hint.strip())


def _forget(folder: Path, parts: list[_Part]) -> None:
    """Remove rows that neither this result of a step nor the one before it is of."""
    file = folder / "kept.json"
    now = sorted(part.path.stem for part in parts)
    try:
        before = read_json(file) or []
    except ValueError:
        before = []
    results = [now, *(names for names in before if names != now)][:_KEPT]
    if results != before:
        write_json(file, results)
    kept = {name for names in results for name in names}
    for path in folder.iterdir():
        if path != file and path.stem not in kept and not path.name.startswith("."):
            path.unlink(missing_ok=True)


def read_rows(
    context: Context,
    start: datetime | None,
    end: datetime | None,
    times: Sequence[str] = (),
    *,
    source: Source | None = None,
    place: Key = ("data", "source"),
    features: Mapping[str, Kind] | None = None,
) -> pa.Table:
    """Read the rows of a window beside the plan; steps that make them are brought up to date.

    Args:
        context: Its moment is now.
        start: As for `read_source`.
        end: As for `read_source`.
        times: As for `read_source`.
        source: Another one than `data.source`.
        place: As for `read_source`.
        features: As for `read_source`.

    Raises:
        HoldtrueError: As `read_source`, or a step failed.
    """
    from holdtrue.plan._plan import Runner

    data, rows = context.declaration.data, None
    if source is not None:
        data = data.model_copy(update={"source": source})
    step = data.source.step
    if step is not None:
        runner = Runner(context)
        runner.bring(step)
        prepared = runner.output(step)
        assert isinstance(prepared, Prepared)  # noqa: S101 - what own steps give
        rows = load_prepared(context.store, step, prepared)
    return read_source(data, context.project, start, end, times, place, features, rows)


def load_prepared(store: Store, name: str, prepared: Prepared) -> pa.Table:
    """The rows that a step gave, proven to be those.

    Args:
        store: Where they are kept.
        name: Of the step, for messages.
        prepared: What it gave.

    Raises:
        DataError: A file is damaged, or the runs have not the same columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables: dict[str, pa.Table] = {}
    for file, run, wanted in zip(prepared.files, prepared.runs, prepared.digests, strict=True):
        path = store.path(file)
        try:
            table = as_table(pq.read_table(path), str(path))
        except (pa.ArrowException, OSError) as err:
            table, said = None, f": {err}"
        else:
            said = ""
        if table is None or table_digest(table) != wanted:
            message = f"{path} is not what the step {name} wrote{said}"
            raise DataError(message, hint="remove it: it is written again where it is needed")
        tables[run] = table
    return together(_typed(tables), f"the runs of the step {name}")


def _typed(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Tables in which a column that has no value is of the kind that others of that name have."""
    import pyarrow as pa

    kinds: dict[str, pa.DataType] = {}
    for table in tables.values():
        for name in table.column_names:
            if table[name].null_count < len(table):
                kinds.setdefault(name, table.schema.field(name).type)
    typed = {}
    for run, table in tables.items():
        columns = {
            name: pa.nulls(len(table), kinds[name])
            if name in kinds and table[name].null_count == len(table)
            else table[name]
            for name in table.column_names
        }
        typed[run] = pa.table(columns)
    return typed
