"""What was scored of an interval, put where it belongs: each row once, also when tried again."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdtrue.batch._output import writing
from holdtrue.batch._prepare import CAPTURED, INTERVAL, NOTE, REJECTS, SCORED
from holdtrue.declaration import ToDelta
from holdtrue.declaration._data import without_password
from holdtrue.errors import ConfigError, DataError, Key, SourceError
from holdtrue.references import ScoredInterval
from holdtrue.serving._fold import capture_once, capture_places
from holdtrue.store import read_json, replacing, sync, write_json
from holdtrue.tables import force, sql_moment, written

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from deltalake import DeltaTable

    from holdtrue.declaration import Declaration
    from holdtrue.plan import Context
    from holdtrue.store import Store

_OWNER = "_holdtrue.json"
_REJECTED = "_rejected"
# Rows in memory at a time.
_TO: Key = ("batch", "to")
_ROWS = 65_536


class Place(ABC):
    """Where scored rows go."""

    @abstractmethod
    def put(self, scored: Path | None, told: ScoredInterval) -> str:
        """Put the rows of an interval in place of those that are there of it.

        Args:
            scored: A Parquet file; None where there are no rows.
            told: What came of the interval.

        Returns:
            Where they are, in words.
        """

    @property
    @abstractmethod
    def rejects(self) -> Path:
        """The folder for the tables of rows that were rejected."""


class Folder(Place):
    """A folder with a Parquet file for each interval.

    Args:
        path: The folder; made when first needed.
        system: Whose rows are in it.
    """

    def __init__(self, path: Path, system: str) -> None:
        self._path = path
        self._system = system

    @property
    def rejects(self) -> Path:
        """In a folder whose name begins with _: who reads the others passes it over."""
        return self._path / _REJECTED

    def put(self, scored: Path | None, told: ScoredInterval) -> str:
        """As `Place.put`.

        Raises:
            ConfigError: The folder cannot be written, or another system's rows are in it.
        """
        file = self._path / f"{told.name}.parquet"
        with writing(file):
            self._path.mkdir(parents=True, exist_ok=True)
            owner = read_json(self._path / _OWNER)
            if owner is None:
                write_json(self._path / _OWNER, {"system": self._system})
            elif owner.get("system") != self._system:
                message = f"{self._path} has the rows of {owner.get('system')}"
                raise ConfigError(message, hint="give each system a folder of its own", key=_TO)
            _copy_or_remove(scored, file)
        return str(file)


class Table(Place):
    """A Delta table; the rows of an interval are replaced in one transaction.

    Args:
        place: Its folder or URL; made when first needed.
        system: Whose rows are in it.
        rejects: The folder for tables of rejected rows.
    """

    def __init__(self, place: str, system: str, rejects: Path) -> None:
        self._place = place
        self._system = system
        self._rejects = rejects

    @property
    def rejects(self) -> Path:
        """A folder of the store."""
        return self._rejects

    def put(self, scored: Path | None, told: ScoredInterval) -> str:
        """As `Place.put`.

        Raises:
            ConfigError: The table is not of this system's scored rows.
            DataError: A column has values that the table's do not hold.
            SourceError: Its place does not answer.
        """
        from deltalake import CommitProperties, DeltaTable, Transaction

        # Of one attempt: what is tried again after a kill finds that it was done.
        name, number = f"holdtrue.batch.{told.name}", int(told.at.timestamp() * 1_000)
        commit = CommitProperties(app_transactions=[Transaction(name, number)])
        shown = without_password(self._place)
        with self._answering(shown):
            table = DeltaTable(self._place) if DeltaTable.is_deltatable(self._place) else None
            if table is not None:
                self._check_owner(table, shown)
                before = table.transaction_version(name)
                if before == number:
                    return shown
            same = f"{INTERVAL} = {sql_moment(told.start)}"
            if scored is not None:
                self._write(scored, table, same, commit)
            elif table is not None:
                table.delete(same, commit_properties=commit)
            if "://" not in self._place and DeltaTable.is_deltatable(self._place):
                force(Path(self._place))
        return shown

    def _write(self, scored: Path, table: DeltaTable | None, same: str, commit: Any) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq
        from deltalake import write_deltalake

        with pq.ParquetFile(scored) as file:
            schema = file.schema_arrow
            if table is not None:
                known = table.to_pyarrow_dataset().schema
                schema = pa.schema([_field(field, known) for field in schema])
                odd = [
                    field
                    for field in schema
                    if field.type != file.schema_arrow.field(field.name).type
                ]
                # Before anything is written, and where what is wrong is still told as it is.
                for batch in file.iter_batches(_ROWS, columns=[field.name for field in odd]):
                    _fitted(batch, pa.schema(odd))
            parts = (_fitted(batch, schema) for batch in file.iter_batches(_ROWS))
            write_deltalake(
                self._place,
                pa.RecordBatchReader.from_batches(schema, parts),
                mode="overwrite",
                predicate=same if table is not None else None,
                schema_mode="merge" if table is not None else None,
                name=self._system,
                commit_properties=commit,
            )

    def _check_owner(self, table: DeltaTable, shown: str) -> None:
        owner = table.metadata().name
        if owner != self._system:
            whose = f"has the rows of {owner}" if owner else "was not made by `holdtrue batch`"
            message = f"the Delta table {shown} {whose}"
            raise ConfigError(
                message, hint="give each system a table of its own, to be made", key=_TO
            )

    @contextmanager
    def _answering(self, shown: str) -> Iterator[None]:
        """Say which table cannot be written."""
        import pyarrow as pa
        from deltalake.exceptions import DeltaError

        try:
            with _written(self._place):
                yield
        except (DeltaError, pa.ArrowException, OSError) as err:
            # What follows the first line is the library's own stack.
            said = next(iter(str(err).strip().splitlines()), type(err).__name__)
            message = f"the Delta table {shown} cannot be written: {said}"
            raise SourceError(message, key=_TO) from err


@contextmanager
def _written(place: str) -> Iterator[None]:
    """As `tables.written`, for a table that may be elsewhere."""
    if "://" in place:
        yield
    else:
        with written(Path(place)):
            yield


def place_of(declaration: Declaration, project: Path, store: Store) -> Place:
    """Where the scored rows of a system go."""
    batch, system = declaration.batch, declaration.name
    assert batch is not None  # noqa: S101 - nothing else leads here
    if isinstance(batch.to, str):
        return Folder(project / batch.to, system)
    rejects = store.path("batch", system, "rejected")
    if isinstance(batch.to, ToDelta):
        remote = "://" in batch.to.delta
        return Table(batch.to.delta if remote else str(project / batch.to.delta), system, rejects)
    return Table(str(store.path("batch", system, "scored")), system, rejects)


def publish(context: Context, ready: Path) -> ScoredInterval:
    """Publish what `prepare` has left of an interval: output, captured rows and record.

    It may be killed at any point and called again. The output is replaced as a whole; rows are
    captured once for an interval, whatever is scored anew later; the record comes last.

    Args:
        context: Of the system.
        ready: The folder, which is removed with what is beside it.

    Raises:
        ConfigError: The output cannot be written, or is that of another system.
        DataError: A column has values that the table's do not hold; what was prepared is removed,
            for other rows may be there the next time.
        HoldtrueError: The machine refused.
        SourceError: The place of the output does not answer.
    """
    place = place_of(context.declaration, context.project, context.store)
    told = ScoredInterval.model_validate(read_json(ready / NOTE))
    scored, rejects = ready / SCORED, ready / REJECTS
    try:
        output = place.put(scored if scored.exists() else None, told)
    except DataError:
        _forget(ready)
        raise
    file = place.rejects / f"{told.name}.parquet"
    with writing(file):
        _copy_or_remove(rejects if rejects.exists() else None, file)
    if scored.exists():
        _, table = capture_places(context.store, context.system)
        capture_once(ready / CAPTURED, table, f"holdtrue.batch.{told.name}")
    shown = {"output": output, "rejects": str(file) if rejects.exists() else None}
    told = told.model_copy(update=shown)
    context.registry.record_interval(told)
    _forget(ready)
    return told


def _forget(ready: Path) -> None:
    """Remove what was published; killed on the way, what is left is nothing that is ready."""
    gone = ready.with_name(f".{ready.name}")
    if gone.exists():
        shutil.rmtree(gone)
    ready.rename(gone)
    shutil.rmtree(ready.parent)


def _copy_or_remove(source: Path | None, target: Path) -> None:
    """Put a file in another's place, on the disk; without one there is none afterwards."""
    if source is None:
        target.unlink(missing_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as draft:
        shutil.copyfile(source, draft)
        sync(draft)
    sync(target.parent)


def _field(field: pa.Field, known: pa.Schema) -> pa.Field:
    at = known.get_field_index(field.name)
    return field if at < 0 else field.with_type(known.field(at).type)


def _fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Rows in the types that the table has.

    Raises:
        DataError: Values of a column cannot be written so.
    """
    import pyarrow as pa

    columns = []
    for field in schema:
        column = batch[field.name]
        try:
            columns.append(column.cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as err:
            message = (
                f"column {field.name} is {field.type} in batch.to, and now {column.type}: {err}"
            )
            hint = "have the source give what it gave before, or let batch.to be another table"
            raise DataError(message, hint=hint) from err
    return pa.RecordBatch.from_arrays(columns, schema=schema)
