"""Rows of files, on this machine or in object storage."""

from __future__ import annotations

import glob
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdtrue.cells import CSV_NULLS
from holdtrue.declaration._data import without_password
from holdtrue.errors import ConfigError, DataError, Key, NoSourceError, SourceError, meant_file

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import pyarrow as pa
    from pyarrow.fs import FileSystem

_FILES: Key = ("data", "source", "files")
_READERS = (".parquet", ".csv", ".csv.gz", ".jsonl")
# What a part of a pattern stands for.
_WILD = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*"}


@dataclass(frozen=True)
class Files:
    """Files that a pattern stands for, in the order of their names."""

    pattern: str
    system: FileSystem
    remote: bool
    paths: tuple[str, ...]

    def state(self) -> list[tuple[str, int, int]]:
        """Name, size in bytes and time of the last change in nanoseconds of each.

        Raises:
            SourceError: The object storage does not answer.
        """
        try:
            found = self.system.get_file_info(list(self.paths))
        except OSError as err:
            raise _silent(self.pattern, err) from None
        return [(one.path, one.size, one.mtime_ns) for one in found]


def list_files(pattern: str, project: Path, *, of_rows: bool = True) -> Files:
    """Look for the files of a source.

    Args:
        pattern: Path or glob from the project's folder, or a URL of object storage.
        project: The folder.
        of_rows: Whether they must be of a kind that is read here.

    Raises:
        ConfigError: One is of another kind.
        NoSourceError: There are none.
        SourceError: The object storage does not answer.
    """
    from pyarrow.fs import LocalFileSystem

    if "://" in pattern:
        files = _list_remote(pattern)
        hint = "see that bucket and folder are there; * and ** are the wildcards"
    else:
        absolute = pattern if Path(pattern).is_absolute() else str(project / pattern)
        paths = tuple(sorted(glob.glob(absolute, recursive=True)))  # noqa: PTH207 - an absolute pattern
        files, hint = (
            Files(pattern, LocalFileSystem(), remote=False, paths=paths),
            f"paths start from {project}",
        )
    if not files.paths:
        message = f"no file matches {without_password(pattern)}"
        if "://" not in pattern and not glob.has_magic(pattern):
            message += meant_file(Path(pattern), project)
        raise NoSourceError(message, hint=hint, key=_FILES)
    for path in files.paths if of_rows else ():
        if not path.endswith(_READERS):
            name = path.rpartition("/")[2]
            message = f"{name} is not one of: {', '.join(_READERS)}"
            raise ConfigError(message, key=_FILES)
    return files


def matches(pattern: str, project: Path, path: Path) -> bool:
    """Whether a file of this machine is one that a pattern stands for; arguments as `list_files`.

    Args:
        pattern: Path or glob, or a URL, which stands for none.
        project: The folder that it starts from.
        path: The file, which need not be there.
    """
    if "://" in pattern:
        return False
    wanted, name = (os.path.normpath(project / one) for one in (pattern, path))
    return re.fullmatch(_expression(wanted), name) is not None


def _list_remote(pattern: str) -> Files:
    import pyarrow as pa
    from pyarrow.fs import FileSelector, FileSystem, FileType

    # What follows a question mark are options of the address, such as endpoint_override.
    address, mark, options = pattern.partition("?")
    wild = address.find("*")
    folder = address if wild < 0 else address[: address.rindex("/", 0, wild)]
    try:
        system, root = FileSystem.from_uri(folder + mark + options)
        if wild < 0:
            info = system.get_file_info(root)
            paths = [root] if info.type == FileType.File else []
            return Files(pattern, system, remote=True, paths=tuple(paths))
        rest = address[len(folder) + 1 :]
        deep = "/" in rest or "**" in rest
        listed = system.get_file_info(FileSelector(root, allow_not_found=True, recursive=deep))
    except (OSError, pa.ArrowException, ValueError) as err:
        raise _silent(pattern, err) from None
    expression = re.compile(_expression(rest))
    names = (one.path for one in listed if one.type == FileType.File)
    paths = sorted(name for name in names if expression.fullmatch(name[len(root) :].lstrip("/")))
    return Files(pattern, system, remote=True, paths=tuple(paths))


def _expression(pattern: str) -> str:
    """A pattern of names as a regular expression, as `glob` reads it."""
    parts = re.split(r"(\*\*/|\*\*|\*)", pattern)
    return "".join(_WILD.get(part) or re.escape(part) for part in parts)


def _silent(pattern: str, err: Exception) -> SourceError:
    said = next(iter(str(err).strip().splitlines()), type(err).__name__)
    message = f"{without_password(pattern)} cannot be looked at: {said}"
    hint = "see the address, and the credentials in the environment"
    return SourceError(message, hint=hint, key=_FILES)


def read_files(
    pattern: str,
    name: str,
    project: Path,
    part: Callable[[pa.Table, str], pa.Table] = lambda table, _: table,
    as_text: Collection[str] = (),
) -> pa.Table:
    """Read all files of a source as one table.

    Args:
        pattern: As for `list_files`.
        name: Of the source, for messages.
        project: As for `list_files`.
        part: Takes the wanted rows of a file, given its path: what another file holds does not
            matter to them.
        as_text: Columns whose cells in CSV are the text that is written there.

    Raises:
        ConfigError: As `list_files`.
        NoSourceError: As `list_files`.
        SourceError: As `list_files`, or one of them cannot be had any more.
        DataError: One is damaged, or those with wanted rows have not the same columns.
    """
    files = list_files(pattern, project)
    return together({path: part(_read(files, path, as_text), path) for path in files.paths}, name)


def together(tables: Mapping[str, pa.Table], name: str) -> pa.Table:
    """The rows of several tables as one.

    Args:
        tables: By the name of each.
        name: Of all of them, for messages.

    Raises:
        DataError: Those with rows have not the same columns.
    """
    import pyarrow as pa

    try:
        return pa.concat_tables(tables.values(), promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as err:
        wanted = {path: table for path, table in tables.items() if len(table)}
        if wanted and len(wanted) < len(tables):
            with suppress(pa.ArrowInvalid, pa.ArrowTypeError):
                return pa.concat_tables(wanted.values(), promote_options="permissive")
        message = f"{name} do not have the same columns: {_difference(wanted or tables) or err}"
        raise DataError(message) from err


def _difference(tables: Mapping[str, pa.Table]) -> str | None:
    """Which file has a column in other values than one before it; None where none is found."""
    import pyarrow as pa

    (first, schema), *others = ((path, table.schema) for path, table in tables.items())
    for path, other in others:
        try:
            schema = pa.unify_schemas([schema, other], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as err:
            return f"{first} and {path}: {err}"
    return None


def read_file(path: Path) -> pa.Table:
    """Read a Parquet, CSV or JSON lines file, by its ending.

    Raises:
        ConfigError: It has another ending.
        DataError: It is damaged.
        SourceError: The machine does not give it.
    """
    from pyarrow.fs import LocalFileSystem

    if not path.name.endswith(_READERS):
        message = f"{path} is not one of: {', '.join(_READERS)}"
        raise ConfigError(message)
    files = Files(str(path), LocalFileSystem(), remote=False, paths=(str(path),))
    return _read(files, str(path))


def _read(files: Files, path: str, as_text: Collection[str] = ()) -> pa.Table:
    import pyarrow as pa

    try:
        table = _parse(files.system, path, as_text)
        _ = table.column_names  # a name that is not UTF-8 fails here
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as err:
        message = f"{path} cannot be read: {err}"
        # Of a damaged file on this machine Arrow says an OSError, too, but one without a number.
        away = isinstance(err, OSError) and (files.remote or err.errno is not None)
        raise (SourceError if away else DataError)(message) from err
    return table


def _parse(system: FileSystem, path: str, as_text: Collection[str]) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv, json, parquet

    if path.endswith(".parquet"):
        return parquet.read_table(path, filesystem=system)
    if path.endswith(".jsonl"):
        return json.read_json(system.open_input_stream(path))
    options = csv.ConvertOptions(strings_can_be_null=True, null_values=[*CSV_NULLS])
    options.column_types = dict.fromkeys(as_text, pa.string())
    table = csv.read_csv(system.open_input_stream(path), convert_options=options)
    # 12:30 stays the text that it is, as a request will say it.
    times = {f.name: pa.string() for f in table.schema if pa.types.is_time(f.type)}
    if not times:
        return table
    options.column_types |= times
    return csv.read_csv(system.open_input_stream(path), convert_options=options)
