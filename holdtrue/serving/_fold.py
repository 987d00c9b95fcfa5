"""Move captured segments into a Delta table, each row exactly once, and read them back."""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from holdtrue.references import Reference
from holdtrue.serving._capture import CLOSED_SUFFIX, OPEN_SUFFIX, ask_to_close, is_orphan
from holdtrue.store import locked
from holdtrue.tables import force, is_table, opened, written

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.compute as pc

    from holdtrue.store import Store

BATCH = "batch"
"""The role of a version that has scored rows interval by interval, without being asked."""
ANSWERED = ("champion", "challenger", BATCH)
"""The roles whose scores were an answer; a shadow's were not."""
_APPLICATION = "holdtrue.capture"
_SEGMENTS_PER_COMMIT = 40
_ROWS_AT_A_TIME = 65_536


class Folded(Reference):
    """What one call of `fold_in` moved."""

    segments: int = 0
    rows: int = 0
    damaged: int = 0
    """Lines that could not be read, such as the last one of a process that was killed."""


def capture_places(store: Store, system: str) -> tuple[Path, Path]:
    """The folder that a system's replicas write segments to, and the table they are folded into."""
    return store.path("captured", system, "segments"), store.path("captured", system, "table")


def schema() -> pa.Schema:
    """The columns of the table; they do not change with the model's.

    `digest` is that of the version's bundle, null in rows from before it was captured; `key` and
    `row` are JSON objects; `scores` holds the probabilities in the order of the model's classes,
    or the one predicted value; `decided` is the class that was answered. A shadow's scores have
    the id of the answer that they were given beside, and no `row`. The role of what was scored
    without being asked is `BATCH`.
    """
    import pyarrow as pa

    moment = pa.timestamp("us", tz="UTC")
    return pa.schema(
        {
            "id": pa.string(),
            "version": pa.int64(),
            "digest": pa.string(),
            "role": pa.string(),
            "received": moment,
            "event_time": moment,
            "key": pa.string(),
            "row": pa.string(),
            "scores": pa.list_(pa.float64()),
            "decided": pa.string(),
        }
    )


def fold_in(folder: Path, table: Path, wait_s: float = 5.0) -> Folded:
    """Move what was captured up to now into the table.

    It may be killed at any point and called again. Segments are first moved into a numbered
    batch beside the table; the number is committed with the rows, as a transaction of the table,
    and only then is the batch removed. A batch that is found later was either committed (its
    number is in the table) and is removed, or was not and is committed then.

    Args:
        folder: Where replicas write segments.
        table: The Delta table; made when the first rows arrive. On the same file system.
        wait_s: How long to wait for replicas to close the segments that they write to.
    """
    ask_to_close(folder, wait_s)
    batches = batches_of(table)
    total = Folded()
    with table_lock(batches):
        for batch in sorted(_numbered(batches), key=lambda path: int(path.name)):
            total = _sum(total, _commit(batch, table))
        closed = _closed_segments(folder)
        for first in range(0, len(closed), _SEGMENTS_PER_COMMIT):
            batch = batches / str(_last_number(table) + 1)
            batch.mkdir()
            for segment in closed[first : first + _SEGMENTS_PER_COMMIT]:
                with suppress(FileNotFoundError):
                    segment.rename(batch / segment.name)
            total = _sum(total, _commit(batch, table))
    return total


def read_captured(
    table: Path,
    start: datetime,
    end: datetime,
    roles: Collection[str] = ANSWERED,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Read what was captured in [start, end), all of it at once; see `captured_batches`."""
    import pyarrow as pa

    empty = schema().empty_table().select(columns or schema().names)
    return pa.concat_tables([empty, *captured_batches(table, start, end, roles, columns)])


def captured_batches(
    table: Path,
    start: datetime,
    end: datetime,
    roles: Collection[str] = ANSWERED,
    columns: Sequence[str] | None = None,
) -> Iterator[pa.Table]:
    """Read what was captured in [start, end), in tables of 65,536 rows or a few more.

    The time of a row is that of its event where the request told it, else when it was received.

    Args:
        table: The Delta table; one that does not exist yet has no rows.
        start: First moment, with a zone.
        end: First moment after, with a zone.
        roles: Whose scores; left out, those that were answers.
        columns: Which of `schema`; all where left out. Those not named are not read from the disk.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    low, high = (pa.scalar(t.astimezone(UTC), pa.timestamp("us", tz="UTC")) for t in (start, end))

    def within(name: str) -> pc.Expression:
        return (pc.field(name) >= low) & (pc.field(name) < high)

    if not is_table(table):
        return
    wanted = within("event_time") | (pc.field("event_time").is_null() & within("received"))
    names = [*(columns or schema().names)]
    with opened(table) as captured:
        rows = captured.to_pyarrow_dataset(schema=schema())
        # Not more read ahead than what is next: rows may be large.
        batches = rows.to_batches(
            columns=list(dict.fromkeys([*names, "role"])),
            filter=wanted,
            batch_size=_ROWS_AT_A_TIME,
            batch_readahead=1,
            fragment_readahead=1,
        )
        parts, n_rows = [], 0
        for batch in batches:
            # Not as part of the question: rows that an older version captured have no role, and
            # Delta would pass over their files. They were the champion's.
            role = pc.fill_null(batch["role"], "champion")
            found = batch.filter(pc.is_in(role, pa.array([*roles], pa.string()))).select(names)
            if len(found):
                parts.append(found)
                n_rows += len(found)
            if n_rows >= _ROWS_AT_A_TIME:
                yield pa.Table.from_batches(parts)
                parts, n_rows = [], 0
        if parts:
            yield pa.Table.from_batches(parts)


def some_answers(
    table: Path, start: datetime, end: datetime, version: int, column: str, most: int
) -> tuple[pa.ChunkedArray, int]:
    """Read a column of what a version answered in [start, end), spread evenly where it is much.

    Args:
        table: As for `captured_batches`, as are the moments.
        start: First moment.
        end: First moment after.
        version: Whose answers.
        column: Of `schema`.
        most: How many values, at most; of more answers more than half as many.

    Returns:
        The values, and how many answers there are.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    kept, step, n_answers = pa.chunked_array([], schema().field(column).type), 1, 0
    for captured in captured_batches(table, start, end, columns=("version", column)):
        found = captured.filter(pc.equal(captured["version"], version))[column]
        taken = found.take(np.arange(-n_answers % step, len(found), step))
        kept = pa.chunked_array([*kept.chunks, *taken.chunks], kept.type)
        n_answers += len(found)
        while len(kept) > most:
            kept, step = kept.take(np.arange(0, len(kept), 2)), 2 * step
    return kept, n_answers


def find_captured(folder: Path, table: Path, name: str) -> pa.Table:
    """Find what was captured of one prediction, also where it is not folded in yet.

    Args:
        folder: Where replicas write segments.
        table: The Delta table.
        name: Id of the prediction.

    Returns:
        The answer and, where there was a shadow, its scores; no rows where nothing was captured.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    found: list[dict[str, Any]] = []
    # In the order that lines take from a segment into the table, so that none slips by.
    for path in _segments(folder):
        found += _lines_of(path, name)
    for batch in _numbered(batches_of(table)):
        for path in _segments(batch):
            found += _lines_of(path, name)
    found += _read_table(table, pc.field("id") == name).to_pylist()
    by_role = {record["role"]: record for record in found}
    return pa.Table.from_pylist([*by_role.values()], schema=schema())


def _read_table(table: Path, wanted: pc.Expression) -> pa.Table:
    if not is_table(table):
        return schema().empty_table()
    with opened(table) as captured:
        found: pa.Table = captured.to_pyarrow_dataset(schema=schema()).to_table(filter=wanted)
    return found


def _segments(place: Path) -> list[Path]:
    """Segments of a folder, whatever their state."""
    if not place.is_dir():
        return []
    suffixes = (OPEN_SUFFIX, CLOSED_SUFFIX)
    return sorted(path for path in place.glob("[!.]*") if path.name.endswith(suffixes))


def _lines_of(segment: Path, name: str) -> list[dict[str, Any]]:
    """The records of one prediction in a segment; none where it was moved on meanwhile."""
    for path in (segment, segment.with_name(segment.name.removesuffix(".open"))):
        with suppress(FileNotFoundError):
            records: list[dict[str, Any]] = []
            content = path.read_bytes()
            if name.encode() in content:
                _parse(content, records)
            return [record for record in records if record["id"] == name]
    return []


def batches_of(table: Path) -> Path:
    """The folder beside a table that segments are moved through; its lock is that of the table."""
    return table.with_name(f".{table.name}-batches")


def table_lock(batches: Path) -> AbstractContextManager[None]:
    """Be the only one who changes the table."""
    return locked(batches / "lock")


def _numbered(batches: Path) -> list[Path]:
    if not batches.is_dir():
        return []
    return [path for path in batches.iterdir() if path.name.isdecimal()]


def _closed_segments(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    closed = list(folder.glob(f"[!.]*{CLOSED_SUFFIX}"))
    for segment in folder.glob(f"[!.]*{OPEN_SUFFIX}"):
        with suppress(FileNotFoundError):  # closed in the meantime: the next call takes it
            if is_orphan(segment):
                closed.append(segment)
    return sorted(closed)


def _last_number(table: Path) -> int:
    if not is_table(table):
        return -1
    with opened(table) as captured:
        number = captured.transaction_version(_APPLICATION)
    return -1 if number is None else int(number)


def _commit(batch: Path, table: Path) -> Folded:
    import pyarrow as pa

    folded = Folded()
    if int(batch.name) > _last_number(table):
        records: list[dict[str, Any]] = []
        segments = sorted(batch.iterdir())
        damaged = sum(_read(segment, records) for segment in segments)
        if records:
            rows = pa.Table.from_pylist(records, schema=schema())
            _append(rows, table, _APPLICATION, int(batch.name))
        folded = Folded(segments=len(segments), rows=len(records), damaged=damaged)
    shutil.rmtree(batch)
    return folded


def _read(segment: Path, records: list[dict[str, Any]]) -> int:
    """Add a segment's lines to `records`; returns how many could not be read."""
    return _parse(segment.read_bytes(), records)


def _parse(content: bytes, records: list[dict[str, Any]]) -> int:
    damaged = 0
    for line in content.split(b"\n"):
        if not line:
            continue
        try:
            records.append(_record(orjson.loads(line)))
        except (ValueError, KeyError, TypeError):
            damaged += 1
    return damaged


def _record(line: dict[str, Any]) -> dict[str, Any]:
    event_time, digest = line["event_time"], line.get("digest")  # which older segments lack
    return {
        "id": str(line["id"]),
        "version": int(line["version"]),
        "digest": None if digest is None else str(digest),
        "role": str(line["role"]),
        "received": datetime.fromisoformat(line["received"]),
        "event_time": None if event_time is None else datetime.fromisoformat(event_time),
        "key": orjson.dumps(line["key"], option=orjson.OPT_SORT_KEYS).decode(),
        "row": None if line["row"] is None else orjson.dumps(line["row"]).decode(),
        "scores": [float(score) for score in line["scores"]],
        "decided": line["decided"],
    }


def capture_once(rows: Path, table: Path, name: str) -> bool:
    """Add rows that no replica has answered to the table, unless they were added before.

    It may be killed at any point and called again: the name is committed with the rows.

    Args:
        rows: A Parquet file of `schema`; read a part at a time.
        table: The Delta table; made where there is none.
        name: What the rows are, such as an interval: no other rows are added by the same name.

    Returns:
        Whether they were added now.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with table_lock(batches_of(table)), pq.ParquetFile(rows) as file:
        if is_table(table):
            with opened(table) as captured:
                if captured.transaction_version(name) is not None:
                    return False
        if file.metadata.num_rows == 0:
            return False
        reader = pa.RecordBatchReader.from_batches(schema(), file.iter_batches(_ROWS_AT_A_TIME))
        _append(reader, table, name, 0)
    return True


def _append(
    rows: pa.Table | pa.RecordBatchReader, table: Path, application: str, number: int
) -> None:
    from deltalake import CommitProperties, Transaction, write_deltalake

    table.parent.mkdir(parents=True, exist_ok=True)
    transaction = Transaction(application, number)
    with written(table):
        write_deltalake(
            table,
            rows,
            mode="append",
            schema_mode="merge",  # a table that an older version made lacks columns
            commit_properties=CommitProperties(app_transactions=[transaction]),
        )
    # Before the segments that it replaces are removed.
    force(table)


def _sum(first: Folded, second: Folded) -> Folded:
    return Folded(
        segments=first.segments + second.segments,
        rows=first.rows + second.rows,
        damaged=first.damaged + second.damaged,
    )
