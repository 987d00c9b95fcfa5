"""The rows of an interval, read and scored, as files that are published together or not at all."""

from __future__ import annotations

import filecmp
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from holdtrue.batch._job import score_files
from holdtrue.batch._pieces import typed
from holdtrue.batch._score import PREDICTION
from holdtrue.data._kinds import ARROW
from holdtrue.errors import ConfigError, DataError
from holdtrue.models import read_signature
from holdtrue.models.compiled._rules import EXPECTED
from holdtrue.plan import read_rows
from holdtrue.references import ScoredInterval
from holdtrue.serving._capture import new_ids
from holdtrue.serving._fold import BATCH, schema
from holdtrue.serving._record import is_sampled
from holdtrue.store import new_folder, replacing, write_json

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from holdtrue.models import Signature
    from holdtrue.plan import Context
    from holdtrue.progress import Progress
    from holdtrue.references import Interval
    from holdtrue.registry import RegisteredVersion

ID, VERSION, INTERVAL = "prediction_id", "model_version", "scored_interval"
"""The columns that scored rows have beside those of `score_files`."""
SCORED, CAPTURED, REJECTS, NOTE = (
    *("scored.parquet", "captured.parquet", "rejected.parquet"),
    "note.json",
)
"""The files of an interval that is ready; the last one is there of every one."""
_READY = "ready"
_REASONS = ("column", "reason")
_NO_TIME = "expected a time, got nothing or other text: the row belongs to no interval"
# Rows in memory at a time, beside their JSON.
_ROWS = 65_536


def work_folder(context: Context) -> Path:
    """Where the intervals of a system lie that are being scored."""
    return context.store.path("batch", context.system, "work")


def ready_folder(context: Context, interval: Interval) -> Path:
    """What is to be published of an interval; there once it is scored."""
    return work_folder(context) / interval.name / _READY


def prepare(
    context: Context, interval: Interval, version: RegisteredVersion, progress: Progress
) -> Path:
    """Score the rows of an interval; nobody but `publish` sees what comes of it.

    The rows are read at once, as sources give them, and scored in pieces. A run that was killed
    goes on with the pieces where it reads the same rows again.

    Args:
        context: Of the system.
        interval: Which rows.
        version: Which model.
        progress: Told how many rows are done.

    Returns:
        The folder for `publish`.

    Raises:
        ConfigError: The source does not exist, or the model has a feature with the name of a column
            that is added.
        DataError: As `read_source` and `score_files`.
        HoldtrueError: The machine refused, such as where its disk is full.
        SourceError: The source does not answer.
        ServingError: The bundle is damaged.
        StackError: Ray does not answer.
    """
    store, bundle = context.store, context.store.path(version.bundle)
    signature = read_signature(bundle, version.digest)
    _refuse_taken(signature)
    ready = ready_folder(context, interval)
    rows, scored = ready.parent / "rows.parquet", ready.parent / SCORED
    progress(0, 0, "reading the rows")
    count, odd = _extract(context, interval, signature, rows)
    found = None
    if count:
        found = score_files(
            *(bundle, version.digest, [rows], scored),
            stack=context.stack,
            address=context.declaration.ray.address,
            progress=progress,
        )
    at = datetime.now(UTC)
    with new_folder(ready) as work:
        if found is not None:
            progress(0, 0, "naming the predictions")
            _name_predictions(context, interval, version, scored, work, at)
        n_rejected = odd.n_rows + (0 if found is None else found.rejected)
        if n_rejected:
            _write_rejects(rows, None if found is None else found.rejects, odd.told, work)
        told = ScoredInterval(
            start=interval.start,
            end=interval.end,
            system=context.system,
            version=version.number,
            digest=version.digest,
            rows=0 if found is None else found.rows,
            rejected=n_rejected,
            unknown={} if found is None else found.unknown,
            at=at,
            output=store.relative(ready),
            rejects=None,
        )
        write_json(work / NOTE, json.loads(told.model_dump_json()))
    return ready


def _refuse_taken(signature: Signature) -> None:
    taken = next((name for name in (ID, VERSION, INTERVAL) if name in signature.columns), None)
    if taken is not None:
        message = f"the model has a feature {taken}, and scored rows have a column of that name"
        raise ConfigError(message, hint="train it with another name for that column")


@dataclass(frozen=True)
class _Odd:
    """Rows that are rejected before any is scored."""

    n_rows: int
    told: pa.Table
    """A line for each wrong value: key and time of its row, the column, and why."""


def _extract(
    context: Context, interval: Interval, signature: Signature, path: Path
) -> tuple[int, _Odd]:
    """Write the rows of an interval; how many can be scored, and the others."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    data, batch = context.declaration.data, context.declaration.batch
    assert batch is not None  # noqa: S101 - nothing else leads here
    assert data.time is not None  # noqa: S101 - the declaration asks for it
    place = ("data" if batch.source is None else "batch", "source")
    given = read_rows(
        context, *interval.bounds, source=batch.source, place=place, features=signature.columns
    )
    named = [name for name in (*data.key, data.time) if name in given.column_names]
    timed = pc.is_valid(given[data.time])
    untimed = given.filter(pc.invert(timed)).select(named)
    table = given.filter(timed)
    unread: list[pa.Table] = []
    if (batch.source or data.source).files is not None and len(table):
        table, unread = _read_cells(table, signature, named)
    told = pa.concat_tables([*unread, _told(untimed, data.time, _NO_TIME)])
    odd = _Odd(len(given) - len(table), told)
    table = table.drop_columns([n for n in (ID, VERSION, INTERVAL) if n in table.column_names])
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    pq.write_table(table, draft)
    # The pieces that an earlier run has scored are found by the file that they are of.
    if path.exists() and filecmp.cmp(draft, path, shallow=False):
        draft.unlink()
    else:
        draft.replace(path)
    return len(table), odd


def _read_cells(
    table: pa.Table, signature: Signature, named: list[str]
) -> tuple[pa.Table, list[pa.Table]]:
    """Make numbers of the text that CSV has; the rows of which all can be read, and the others.

    Raises:
        DataError: There is no row that can be read.
    """
    import pyarrow as pa

    readable = np.ones(len(table), dtype=bool)
    unread: list[pa.Table] = []
    for name, kind in signature.columns.items():
        if kind in ("string", "time") or not pa.types.is_string(table.schema.field(name).type):
            continue
        values, column = typed(table[name], kind)
        if isinstance(values, list):  # some cells are no such values
            wrong = np.array([isinstance(value, str) for value in values])
            reason = f"expected {EXPECTED[kind]}, got other text"
            unread.append(_told(table.filter(pa.array(wrong)).select(named), name, reason))
            readable &= ~wrong
        table = table.set_column(table.column_names.index(name), name, column)
    if len(table) and not readable.any():
        first = unread[0].slice(0, 1).to_pylist()[0]
        message = f"no row can be scored: column {first['column']}: {first['reason']}"
        raise DataError(message)
    return table.filter(pa.array(readable)), unread


def _name_predictions(
    context: Context,
    interval: Interval,
    version: RegisteredVersion,
    scored: Path,
    work: Path,
    at: datetime,
) -> None:
    """Write the scored rows with an id each, and the share of them that is captured."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    signature = read_signature(context.store.path(version.bundle), version.digest)
    share, writer = context.declaration.serve.capture, None
    moment = pa.scalar(interval.start, ARROW["time"])
    with (
        pq.ParquetFile(scored) as file,
        pq.ParquetWriter(work / CAPTURED, schema()) as captured,
    ):
        try:
            for batch in file.iter_batches(_ROWS):
                ids = new_ids(len(batch))
                table = _as_learnt(pa.Table.from_batches([batch]), signature)
                table = table.append_column(ID, pa.array(ids))
                table = table.append_column(VERSION, pa.array([version.number] * len(ids)))
                table = table.append_column(INTERVAL, pa.repeat(moment, len(ids)))
                writer = writer or pq.ParquetWriter(work / SCORED, table.schema, compression="zstd")
                writer.write_table(table)
                if share < 1:
                    table = table.filter(pa.array([is_sampled(name, share) for name in ids]))
                if len(table):
                    captured.write_table(_as_captured(context, version, signature, table, at))
        finally:
            if writer is not None:
                writer.close()


def _as_captured(
    context: Context,
    version: RegisteredVersion,
    signature: Signature,
    table: pa.Table,
    at: datetime,
) -> pa.Table:
    """Scored rows as those that replicas capture."""
    import pyarrow as pa

    data, count = context.declaration.data, len(table)
    classes = signature.classes
    names = [PREDICTION] if classes is None else [f"probability_{name}" for name in classes]
    scores = np.stack([table[name].to_numpy() for name in names], axis=1)
    decided = [None] * count if classes is None else table[PREDICTION].to_pylist()
    keys = table.select([name for name in data.key if name in table.column_names]).to_pylist()
    rows = table.select([*signature.columns]).to_pylist()
    same: dict[str, Any] = {
        "version": version.number,
        "digest": version.digest,
        "role": BATCH,
        "received": at,
    }
    columns: dict[str, Any] = {
        "id": table[ID],
        **{name: _repeated(value, name, count) for name, value in same.items()},
        "event_time": table[data.time],
        "key": pa.array([_key(values) for values in keys] if keys else ["{}"] * count),
        "row": pa.array([orjson.dumps(row).decode() for row in rows]),
        "scores": pa.array(scores.tolist(), schema().field("scores").type),
        "decided": pa.array(decided, pa.string()),
    }
    return pa.table([columns[name] for name in schema().names], schema=schema())


def _repeated(value: Any, name: str, count: int) -> pa.Array:
    import pyarrow as pa

    return pa.repeat(pa.scalar(value, schema().field(name).type), count)


def _as_learnt(table: pa.Table, signature: Signature) -> pa.Table:
    """Numbers by the kind that the model knows them as: the same in every interval.

    Whole numbers are read as others where some are missing, and the other way round where no
    fraction is among them.
    """
    import pyarrow as pa

    for name, kind in signature.columns.items():
        column, at = table[name], table.column_names.index(name)
        if (kind == "integer" and pa.types.is_floating(column.type)) or (
            kind == "number" and pa.types.is_integer(column.type)
        ):
            table = table.set_column(at, name, column.cast(ARROW[kind]))
    return table


def _key(values: dict[str, Any]) -> str:
    """A key as requests say it; a time as it is written where labels are joined."""
    options = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME
    return orjson.dumps(values, default=str, option=options).decode()


def _write_rejects(rows: Path, rejects: Path | None, told: pa.Table, work: Path) -> None:
    """Write which rows were rejected: their key and time, the column that is wrong, and why."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = [told]
    if rejects is not None:
        late = pq.read_table(rejects)
        named = [name for name in told.column_names if name not in _REASONS]
        of = pq.read_table(rows, columns=named).take(late["row"])
        found = [_beside(of, {name: late[name] for name in _REASONS}), told]
    with replacing(work / REJECTS) as draft:
        pq.write_table(pa.concat_tables(found), draft)


def _told(rows: pa.Table, column: str, reason: str) -> pa.Table:
    """Rows, by the columns that name them, with one reason for all."""
    import pyarrow as pa

    told = zip(_REASONS, (column, reason), strict=True)
    return _beside(rows, {name: pa.array([said] * len(rows), pa.string()) for name, said in told})


def _beside(table: pa.Table, columns: dict[str, Any]) -> pa.Table:
    """A table with further columns; those of these names that it has are theirs, not ours."""
    for name, values in columns.items():
        if name in table.column_names:
            table = table.drop_columns([name])
        table = table.append_column(name, values)
    return table
