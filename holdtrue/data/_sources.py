"""Where rows come from: a Python function, files, a database, a Delta table."""

from __future__ import annotations

import ast
import difflib
import inspect
import sys
from contextlib import contextmanager, redirect_stdout
from importlib.util import resolve_name
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdtrue.data._database import check_database, read_database
from holdtrue.data._delta import read_delta, version_of
from holdtrue.data._files import list_files, matches, read_files
from holdtrue.data._kinds import ARROW, as_table
from holdtrue.errors import DataError, HoldtrueError, Key, Mistake, SourceError
from holdtrue.models import digest_of, import_object
from holdtrue.own_code import said_of
from holdtrue.store import put_on_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    import pyarrow as pa

    from holdtrue.declaration import Data, Source
    from holdtrue.references import Kind


_SOURCE: Key = ("data", "source")
_PYTHON: Key = (*_SOURCE, "python")
_TIME: Key = ("data", "time")


def read_source(
    data: Data,
    project: Path,
    start: datetime | None,
    end: datetime | None,
    times: Sequence[str] = (),
    place: Key = _SOURCE,
    features: Mapping[str, Kind] | None = None,
    rows: pa.Table | None = None,
) -> pa.Table:
    """Read the rows of a window.

    Args:
        data: The declared data.
        project: Folder that relative paths and import paths start from.
        start: First moment (inclusive), in UTC; None reads from the beginning.
        end: End (exclusive), in UTC; None reads to the end.
        times: Further columns that are declared to hold times: text in them is read as such.
        place: Of the declaration that the source is at, for messages.
        features: Columns that each file with rows of the window must have, with the kind that is
            wanted; cells of CSV are left as the text that they are, but for times. A time of files
            that cannot be read is missing then.
        rows: What the step gave, where the source is one.

    Returns:
        The rows with event time in the window, in order of time, in the types of snapshots; those
        without a time come last, for the contract to set aside.

    Raises:
        ConfigError: The function does not exist, or the database has no driver here.
        NoSourceError: The files, the table or the database's file are not there.
        SourceError: The place of any of them does not answer, or the function raises an `OSError`,
            such as a `ConnectionError`.
        DataError: What they hold is not a table, or the time column is missing, has no value or
            does not parse, or text in one of `times`.
    """
    import pyarrow as pa

    name = str(data.source)
    with told_of(place):
        given = _read(data, name, project, (start, end), features or {}) if rows is None else rows
    table = as_table(given, name)
    for time in times:
        at = table.column_names.index(time) if time in table.column_names else None
        if at is not None and pa.types.is_string(table[time].type):
            column = _as_times(table[time], f"{name}: the column {time}", ("features",))
            table = table.set_column(at, time, column)
    if data.time is not None:
        table = _inside(_with_time(table, data.time, name), data.time, start, end)
    return table


def _read(
    data: Data,
    name: str,
    project: Path,
    window: tuple[datetime | None, datetime | None],
    features: Mapping[str, Kind],
) -> Any:
    import pyarrow.compute as pc

    source, (start, end) = data.source, window

    def part(table: pa.Table, path: str) -> pa.Table:
        if data.time is not None and table.column_names.count(data.time) == 1:
            given = as_table(table.select([data.time]), path)[data.time]
            # What is to be scored is not kept back by one time that cannot be read.
            times = _times(given, data.time, path, lenient=bool(features))
            table = table.set_column(table.column_names.index(data.time), data.time, times)
            inside, n_timed = _is_inside(times, start, end), len(times) - times.null_count
            n_inside = (pc.sum(inside).as_py() or 0) - times.null_count
            # Rows without a time belong to those beside them.
            table = table.filter(inside) if n_inside or not n_timed else table.slice(0, 0)
        if len(table):
            require_features(table.column_names, features, path)
        return table

    if source.database is not None:
        return read_database(source.database, name, project, start, end)
    if source.delta is not None:
        return read_delta(source.delta, project, data.time, start, end)
    if source.python is None:
        as_text = [column for column, kind in features.items() if kind != "time"]
        return read_files(source.files or "", name, project, part, as_text)
    function = import_from(project, source.python, "source", _PYTHON)
    try:
        # What it prints is no answer of the command, which may be JSON.
        with redirect_stdout(sys.stderr):
            return function(start, end)
    except (Exception, SystemExit) as err:
        message = f"{name} failed: {said_of(err, project)}"
        kind = SourceError if isinstance(err, OSError) else DataError
        raise kind(message, key=_PYTHON) from err


def import_from(project: Path, path: str, what: str, key: Key) -> Any:
    """Import an object with the project's folder first on the path.

    Args:
        project: The folder.
        path: Import path of the object.
        what: What it is, for messages.
        key: Where the declaration names it.

    Raises:
        ConfigError: There is no such thing.
    """
    put_on_path(project)
    return import_object(path, what, key)


def fingerprint(source: Source, project: Path) -> dict[str, str]:
    """What a change of a source would change, cheaply.

    It is a digest of the function's code, or of the names, sizes and times of the files, or the
    version of the table. Of a database nothing is known without asking it, and of a step its own
    sources say it.
    """
    if source.delta is not None:
        return {"version": str(version_of(source.delta, project))}
    if source.python is not None:
        return {
            "function": code_of(import_from(project, source.python, "source", _PYTHON), project)
        }
    if source.files is not None:
        listing = list_files(source.files, project).state()
        return {"files": digest_of(repr(listing).encode())}
    return {}


def code_of(function: Any, project: Path) -> str:
    """Digest of the files that a function is made of.

    Those are its module's, and of what that has imported the files of the project, and so on; not
    what is imported only when a function runs.
    """
    files: dict[str, bytes] = {}
    first = getattr(inspect.unwrap(function), "__module__", None)
    todo = [sys.modules[first]] if first in sys.modules else []
    while todo:
        module = todo.pop()
        file = getattr(module, "__file__", None)
        if file is None or file in files or not file.endswith(".py"):
            continue
        path = Path(file)
        inside = path.is_relative_to(project) and "site-packages" not in path.parts
        if files and not inside:
            continue
        files[file] = path.read_bytes()
        imported = _imported(files[file], getattr(module, "__package__", None) or "")
        todo += [sys.modules[name] for name in imported if name in sys.modules]
    return digest_of(b"".join(content for _, content in sorted(files.items())))


def _imported(content: bytes, package: str) -> Iterator[str]:
    """What a module may import at its top; of ``from a import b`` also ``a.b``, which may be one.

    The text says so, and not what the module has: a constant does not tell where it comes from.
    """
    try:
        todo: list[ast.AST] = [ast.parse(content)]
    except (SyntaxError, ValueError):  # it has changed since it was imported
        return
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{'.' * node.level}{node.module or ''}"]
            if node.level:
                names = [resolve_name(names[0], package)]
            names += [f"{names[0]}.{alias.name}" for alias in node.names]
        else:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                todo += ast.iter_child_nodes(node)
            continue
        for name in names:
            yield from accumulate(name.split("."), "{}.{}".format)


def check_source(source: Source, project: Path, place: Key = _SOURCE) -> dict[str, str]:
    """Refuse a source that is not there.

    Args:
        source: The declared source, which is no step.
        project: As for `read_source`.
        place: Of the declaration that it is at, for messages.

    Returns:
        As `fingerprint`.

    Raises:
        ConfigError: As `read_source`.
        NoSourceError: As `read_source`.
        SourceError: As `read_source`.
    """
    with told_of(place):
        if source.database is not None:
            check_database(source.database, str(source), project)
        return fingerprint(source, project)


@contextmanager
def told_of(place: Key, instead: Key = _SOURCE) -> Iterator[None]:
    """Have errors about a source say at which place of the declaration it is."""
    try:
        yield
    except HoldtrueError as err:
        err.mistakes = [
            one._replace(key=(*place, *one.key[len(instead) :]))
            if one.key[: len(instead)] == instead
            else one
            for one in err.mistakes
        ]
        raise


def reads(source: Source, project: Path, folder: Path) -> bool:
    """Whether a source would read Parquet files that are written to a folder of this machine."""
    return source.files is not None and matches(source.files, project, folder / "any.parquet")


def _with_time(table: pa.Table, time: str, name: str) -> pa.Table:
    """Make sure that the time column holds times."""
    require_columns(table.column_names, [(time, _TIME)], name)
    column = _times(table[time], time, name)
    if column.null_count and column.null_count == len(table):
        message = f"{name}: the time column {time} is missing in all {len(table):,} rows"
        raise DataError(message, key=_TIME)
    return table.set_column(table.column_names.index(time), time, column)


def _times(
    column: pa.ChunkedArray, time: str, name: str, *, lenient: bool = False
) -> pa.ChunkedArray:
    """The values of the time column as times; leniently, null where some do not parse."""
    import pyarrow as pa

    if column.null_count == len(column):  # no value has a type
        return pa.chunked_array([pa.nulls(len(column), ARROW["time"])])
    if pa.types.is_timestamp(column.type):
        return column
    return pa.chunked_array([_as_times(column, f"{name}: the time column {time}", _TIME, lenient)])


def _as_times(column: pa.ChunkedArray, what: str, key: Key, lenient: bool = False) -> pa.Array:
    import pandas as pd
    import pyarrow as pa

    hint = "write times as 2013-07-01T13:00:00"
    if not pa.types.is_string(column.type):
        message = f"{what} does not parse as times: its values are of type {column.type}"
        raise DataError(message, hint=hint, key=key)
    values = column.to_pandas()
    parsed = pd.to_datetime(values, utc=True, format="ISO8601", errors="coerce")
    odd = (parsed.isna() & values.notna()).to_numpy()
    if odd.any() and not (lenient and parsed.notna().any()):
        said = f"{odd.sum():,} of {len(odd):,} rows, the first is row {odd.argmax():,}"
        message = f"{what} does not parse as times: {said}"
        raise DataError(message, hint=hint, key=key)
    return pa.Array.from_pandas(parsed).cast(ARROW["time"])


def _inside(table: pa.Table, time: str, start: datetime | None, end: datetime | None) -> pa.Table:
    import pyarrow.compute as pc

    table = table.filter(_is_inside(table[time], start, end))
    return table.take(pc.sort_indices(table[time]))


def _is_inside(times: pa.ChunkedArray, start: datetime | None, end: datetime | None) -> pa.Array:
    """Which times lie in a window; those that are missing do."""
    import pyarrow as pa
    import pyarrow.compute as pc

    inside = pa.chunked_array([pa.repeat(pa.scalar(True), len(times))])
    if start is not None:
        inside = pc.and_kleene(inside, pc.greater_equal(times, pa.scalar(start, times.type)))
    if end is not None:
        inside = pc.and_kleene(inside, pc.less(times, pa.scalar(end, times.type)))
    return pc.fill_null(inside, fill_value=True)


def require_columns(present: list[str], wanted: Iterable[tuple[str, Key]], name: str) -> None:
    """Refuse a table that lacks declared columns.

    Args:
        present: Columns of the table.
        wanted: Each column with the place of the declaration that names it; where it is named in
            several, the first is told.
        name: What the table is, for the message.

    Raises:
        DataError: Names every missing column, where it is declared and the nearest one there is.
    """
    lacking: dict[str, Mistake] = {}
    for column, key in wanted:
        if column not in present and column not in lacking:
            lacking[column] = Mistake(_lacks(name, column, present), key)
    if lacking:
        raise DataError.of(lacking.values(), hint=f"columns: {', '.join(present)}")


def require_features(present: list[str], wanted: Iterable[str], name: str) -> None:
    """Refuse a table that lacks columns that a model reads; arguments as for `require_columns`.

    Raises:
        DataError: Names every missing column, and the nearest one there is.
    """
    lacking = [
        Mistake(f"the feature {_lacks(name, column, present)}")
        for column in wanted
        if column not in present
    ]
    if lacking:
        raise DataError.of(lacking, hint=f"columns: {', '.join(present)}")


def _lacks(name: str, column: str, present: list[str]) -> str:
    near = difflib.get_close_matches(column, present, n=1)
    return f"{column} is not a column of {name}" + (f" (did you mean {near[0]}?)" if near else "")
