"""Rows of a Delta table that others write."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from holdtrue.errors import ConfigError, DataError, Key, NoSourceError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    import pyarrow as pa
    from deltalake import DeltaTable

    from holdtrue.declaration import Delta

_DELTA: Key = ("data", "source", "delta")


def read_delta(
    source: Delta,
    project: Path,
    time: str | None,
    start: datetime | None,
    end: datetime | None,
) -> pa.Table:
    """Read the rows of a window; files that hold none of them are not read.

    Args:
        source: Table and version.
        project: Folder that its path starts from.
        time: Column with the time of the event, if there is one.
        start: First moment of the window.
        end: End of the window.

    Raises:
        ConfigError: There is no such version.
        NoSourceError: There is no such table.
        SourceError: Its place does not answer.
        DataError: It is damaged.
    """
    with _opened(source, project) as table:
        dataset = table.to_pyarrow_dataset()
        return dataset.to_table(filter=_window(dataset.schema, time, start, end))


def version_of(source: Delta, project: Path) -> int:
    """The version that would be read; arguments and errors as for `read_delta`."""
    with _opened(source, project) as table:
        version: int = table.version()
        return version


@contextmanager
def _opened(source: Delta, project: Path) -> Iterator[DeltaTable]:
    import pyarrow as pa
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    remote = "://" in source.table
    place = source.table if remote else str(project / source.table)
    try:
        yield DeltaTable(place, version=source.version)
    except TableNotFoundError:
        message = f"there is no Delta table at {place}"
        hint = None if remote else f"paths start from {project}"
        raise NoSourceError(message, hint=hint, key=(*_DELTA, "table")) from None
    except (DeltaError, pa.ArrowException, OSError, ValueError) as err:
        if source.version is not None and "version" in str(err):
            message = f"{place} has no version {source.version}"
            hint = "leave it out to read the newest"
            raise ConfigError(message, hint=hint, key=(*_DELTA, "version")) from None
        # What follows the first line is the library's own stack.
        said = next(iter(str(err).strip().splitlines()), type(err).__name__)
        message = f"the Delta table {place} cannot be read: {said}"
        away = remote or (isinstance(err, OSError) and err.errno is not None)
        raise (SourceError if away else DataError)(message) from err


def _window(
    schema: pa.Schema, time: str | None, start: datetime | None, end: datetime | None
) -> Any:
    """The condition of a window; rows without a time are for the contract to set aside."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    if time not in schema.names or not pa.types.is_timestamp(schema.field(time).type):
        return None
    kind = schema.field(time).type
    field = ds.field(time)
    conditions = []
    if start is not None:
        conditions.append(field >= pa.scalar(_like(start, kind), kind))
    if end is not None:
        conditions.append(field < pa.scalar(_like(end, kind), kind))
    if not conditions:
        return None
    inside = conditions[0] if len(conditions) == 1 else conditions[0] & conditions[1]
    return inside | field.is_null()


def _like(moment: datetime, kind: pa.DataType) -> datetime:
    """A moment as a column of times without a zone has it: in UTC."""
    return moment if kind.tz is not None else moment.replace(tzinfo=None)
