"""Files cut into pieces of a bounded size, in the order of their rows."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdtrue.batch._output import PARTS, REJECTED
from holdtrue.batch._score import Reject, features_of
from holdtrue.cells import CSV_NULLS, typed_cell
from holdtrue.errors import ConfigError, DataError, meant_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

    from holdtrue.models._signature import Signature
    from holdtrue.references import Kind

ENDINGS = (".parquet", ".csv", ".csv.gz", ".jsonl")
PIECE_ROWS = 250_000
PIECE_BYTES = 64_000_000
_BLOCK_BYTES = 4_000_000
_INDEX = re.compile(r"__index_level_\d+__")  # pandas keeps the index of a frame in such columns
# Lines without anything may follow the last row.
_TAIL_BYTES = 4_096
_LEADING_ZERO = "^[+-]?0[0-9]"


@dataclass(frozen=True)
class Block:
    """The rows of a piece: what is scored, and what is written beside the answers."""

    n_rows: int
    features: dict[str, Any]
    """Values by feature column, as `answer` takes them."""
    numbers: npt.NDArray[np.int64]
    """shape (n_rows,): number of each row in its file, from 0."""
    rejects: tuple[Reject, ...] = ()
    """Rows of the file that are none: they are not among the others."""
    table: pa.Table | None = None
    """All columns, where the file is a table."""
    records: list[dict[str, Any]] | None = None
    """All rows, where the file has one record a line."""

    @property
    def names(self) -> list[str]:
        """Columns that at least one row has."""
        if self.table is not None:
            found: list[str] = self.table.column_names
            return found
        return [*dict.fromkeys(name for record in self.records or () for name in record)]


@dataclass(frozen=True)
class TableRows:
    """Rows [start, stop) of a Parquet file."""

    path: Path
    start: int
    stop: int

    def read(self, signature: Signature, *, as_text: bool) -> Block:
        """Read the rows; arguments as for `read_piece`."""
        del as_text
        import pyarrow as pa
        import pyarrow.parquet as pq

        parts, at = [], 0
        with _reading(self.path), pq.ParquetFile(self.path) as file:
            names = [name for name in file.schema_arrow.names if not _INDEX.fullmatch(name)]
            _refuse_twice(names, self.path)
            schema = pa.schema([file.schema_arrow.field(name) for name in names])
            for group in range(file.metadata.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if at >= self.stop or at + rows <= self.start:
                    at += rows
                    continue
                for batch in file.iter_batches(row_groups=[group], columns=names):
                    first, last = max(self.start, at), min(self.stop, at + len(batch))
                    if first < last:
                        parts.append(batch.slice(first - at, last - first))
                    at += len(batch)
                    if at >= self.stop:  # what follows belongs to other pieces
                        break
        table = pa.Table.from_batches([part.select(names) for part in parts], schema)
        return Block(
            n_rows=len(table),
            features=features_of(table, signature, str(self.path)),
            numbers=np.arange(self.start, self.start + len(table)),
            table=table,
        )


@dataclass(frozen=True)
class Lines:
    """Bytes [start, stop) of a file with one JSON record a line."""

    path: Path
    start: int
    stop: int
    first: int
    """Number of the first line among those that are not empty."""

    def read(self, signature: Signature, *, as_text: bool) -> Block:
        """Read the rows; arguments as for `read_piece`."""
        del as_text
        with _reading(self.path), self.path.open("rb") as file:
            file.seek(self.start)
            content = file.read(self.stop - self.start)
        lines = [line for line in content.split(b"\n") if line.strip()]
        records: list[dict[str, Any]] = []
        numbers: list[int] = []
        rejects: list[Reject] = []
        for number, line in enumerate(lines, self.first):
            record, reason = _record(line)
            if record is None:
                rejects.append(Reject(number, None, reason))
            else:
                records.append(record)
                numbers.append(number)
        return Block(
            n_rows=len(records),
            # A missing value may be null or left out.
            features={name: [record.get(name) for record in records] for name in signature.columns},
            numbers=np.array(numbers, dtype=np.int64),
            rejects=tuple(rejects),
            records=records,
        )


def _record(line: bytes) -> tuple[dict[str, Any] | None, str]:
    import orjson

    from holdtrue.serving._asked import Problem
    from holdtrue.serving._json import check_names

    try:
        record = orjson.loads(line)
        check_names(record, line)
    except orjson.JSONDecodeError as err:
        return None, f"expected a JSON object, got text that is none ({err})"
    except Problem as problem:
        return None, problem.detail
    if not isinstance(record, dict):
        return None, f"expected a JSON object, got {type(record).__name__}"
    return record, ""


@dataclass(frozen=True)
class Cells:
    """Rows of a CSV file that were read already, all cells as text."""

    path: Path
    table: pa.Table
    numbers: npt.NDArray[np.int64]
    rejects: tuple[Reject, ...] = field(default=())

    def read(self, signature: Signature, *, as_text: bool) -> Block:
        """Make numbers of the cells; arguments as for `read_piece`."""
        import pyarrow as pa

        from holdtrue.data import require_features

        names = self.table.column_names
        require_features(names, signature.columns, str(self.path))
        table, numbers, no_text = _decoded(self.table, self.numbers)
        features: dict[str, Any] = {}
        shown: dict[str, pa.ChunkedArray] = {}
        for name in names:
            kind = signature.columns.get(name)
            column = table[name]
            if kind is not None:
                features[name], shown_as = typed(column, kind)
                column = column if as_text else shown_as
            elif not as_text:
                column = _guessed(column)
            shown[name] = column
        return Block(
            n_rows=len(table),
            features=features,
            numbers=numbers,
            rejects=(*self.rejects, *no_text),
            table=pa.table(shown),
        )


def _decoded(
    table: pa.Table, numbers: npt.NDArray[np.int64]
) -> tuple[pa.Table, npt.NDArray[np.int64], list[Reject]]:
    """Set the rows aside that have a cell which is not UTF-8.

    Args:
        table: All cells as text, which may be none.
        numbers: shape (n_rows,): of its rows.

    Returns:
        The other rows, their numbers, and why those are none.
    """
    import pyarrow as pa

    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        pass
    else:
        return table, numbers, []
    rejects: list[Reject] = []
    kept = np.ones(len(table), dtype=bool)
    for name in table.column_names:
        cells = table[name].cast(pa.binary()).to_pylist()
        for row, cell in enumerate(cells):
            if cell is not None and (byte := _no_utf8(cell)) is not None:
                kept[row] = False
                said = f"expected text in UTF-8, got the byte 0x{byte:02x}"
                rejects.append(Reject(int(numbers[row]), name, said))
    return table.filter(pa.array(kept)), numbers[kept], rejects


def _no_utf8(cell: bytes) -> int | None:
    """The first byte that does not belong to a text in UTF-8."""
    try:
        cell.decode()
    except UnicodeDecodeError as err:
        return cell[err.start]
    return None


Piece = TableRows | Lines | Cells


def list_inputs(path: Path) -> list[Path]:
    """The files to be scored: one, or those of a folder by name, with the folders in it.

    What `score_files` leaves beside an output is none of them.

    Raises:
        ConfigError: A file has an ending that is not known, or a folder holds none.
        DataError: There is no such file, or it cannot be read.
    """
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and not _passed_over(p, path))
        if not found:
            message = f"{path} holds no file that ends with {', '.join(ENDINGS)}"
            raise ConfigError(message)
        hint = "leave it out of the folder, or have its name begin with _: then it is passed over"
        for file in found:
            _refuse_ending(file, hint)
        return found
    if not path.exists():
        message = f"{path}: no such file{meant_file(path)}"
        raise DataError(message)
    _refuse_ending(path, "convert it to one of them")
    with _reading(path), path.open("rb"):
        return [path]


def _refuse_ending(path: Path, hint: str) -> None:
    if not path.name.endswith(ENDINGS):
        message = f"{path} is not one of: {', '.join(ENDINGS)}"
        raise ConfigError(message, hint=hint)


def _passed_over(path: Path, folder: Path) -> bool:
    """Whether a file is one that programs leave beside data: .crc, _SUCCESS, _delta_log/, ours."""
    parts = path.relative_to(folder).parts
    ours = path.name.endswith(REJECTED) or any(part.endswith(PARTS) for part in parts[:-1])
    return ours or any(part.startswith((".", "_")) for part in parts)


def pieces_of(path: Path, *, rows: int = PIECE_ROWS) -> Iterator[Piece]:
    """Cut a file into pieces, in order.

    Args:
        path: The file.
        rows: Most rows of a piece.

    Raises:
        DataError: It cannot be read.
    """
    if path.name.endswith(".parquet"):
        n_rows = parquet_rows(path)
        for start in range(0, n_rows, rows):
            yield TableRows(path, start, min(start + rows, n_rows))
    elif path.name.endswith(".jsonl"):
        yield from _lines(path, rows)
    else:
        yield from _cells(path, rows)


def parquet_rows(path: Path) -> int:
    """Rows of a Parquet file.

    Raises:
        DataError: It cannot be read.
    """
    import pyarrow.parquet as pq

    with _reading(path), pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def _lines(path: Path, rows: int) -> Iterator[Lines]:
    """Cut after so many lines, or bytes, whatever comes first."""
    start = at = first = count = 0
    with _reading(path), path.open("rb") as file:
        for line in file:
            if at > start and (count == rows or at + len(line) - start > PIECE_BYTES):
                yield Lines(path, start, at, first)
                start, first, count = at, first + count, 0
            at += len(line)
            count += bool(line.strip())
    if count:
        yield Lines(path, start, at, first)


def _cells(path: Path, rows: int) -> Iterator[Cells]:
    """Read all cells as text, block by block."""
    import pyarrow as pa
    from pyarrow import csv

    odd: list[tuple[int, Reject]] = []
    unclosed: list[int] = []

    def set_aside(row: Any) -> str:
        if "\n" in row.text and row.text.count('"') % 2:
            unclosed.append(row.number - 2)
        said = f"expected {row.expected_columns} cells, got {row.actual_columns}"
        odd.append((row.number, Reject(row.number, None, said)))
        return "skip"

    parsing = csv.ParseOptions(newlines_in_values=True, invalid_row_handler=set_aside)
    reading = csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES)
    with _reading(path):
        names = csv.open_csv(path, read_options=reading, parse_options=parsing).schema.names
        _ = [name.encode() for name in names]  # one that is not UTF-8 fails here
        _refuse_twice(names, path)
        odd.clear()
        unclosed.clear()
        texts = csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=True,
            null_values=[*CSV_NULLS],
            check_utf8=False,  # a row that is not has its own reason
        )
        batches = csv.open_csv(
            path, read_options=reading, parse_options=parsing, convert_options=texts
        )
        parts: list[pa.RecordBatch] = []
        physical, waiting = 2, 0  # rows are counted from 1, and the header is the first
        for batch in batches:
            parts.append(batch)
            waiting += len(batch)
            while waiting >= rows or sum(part.nbytes for part in parts) > PIECE_BYTES:
                table = pa.Table.from_batches(parts)
                piece, physical = _piece(path, table.slice(0, rows), odd, physical)
                yield piece
                parts = table.slice(rows).to_batches()
                waiting = max(0, waiting - rows)
                if not parts:
                    break
        table = pa.Table.from_batches(parts, batches.schema)
        piece, end = _piece(path, table, odd, physical, last=True)
        if not unclosed and len(table) and _is_open_at_the_end(path, table):
            unclosed.append(end - 3)
        if unclosed:
            message = f"{path}: a quote that row {unclosed[0]:,} opens is never closed"
            raise DataError(message, hint="close it: the rows after it cannot be told apart")
        if len(table) or piece.rejects:
            yield piece


def _is_open_at_the_end(path: Path, table: pa.Table) -> bool:
    """Whether the last cell has lines, so that a quote opens it, and no quote closes it."""
    text = table.column(table.num_columns - 1)[-1].as_buffer()
    if text is None or b"\n" not in text.to_pybytes() or path.name.endswith(".gz"):
        return False
    with path.open("rb") as file:
        file.seek(-min(_TAIL_BYTES, path.stat().st_size), 2)
        return not file.read().rstrip(b"\r\n").endswith(b'"')


def _piece(
    path: Path,
    table: pa.Table,
    odd: list[tuple[int, Reject]],
    physical: int,
    *,
    last: bool = False,
) -> tuple[Cells, int]:
    """Number the rows, between those that were set aside.

    Args:
        path: The file.
        table: Rows of it.
        odd: Those that were set aside and belong to no piece yet, by their number; taken out.
        physical: Number of the first row.
        last: Whether all that were set aside belong to this piece.

    Returns:
        The piece, and the number of the first row after it.
    """
    skipped = sorted(number for number, _ in odd)
    stop, passed = physical + len(table), 0
    while passed < len(skipped) and (skipped[passed] < stop or last):
        stop += skipped[passed] < stop
        passed += 1
    mine = sorted(odd, key=lambda each: each[0])[:passed]
    odd[:] = [each for each in odd if each[0] not in {number for number, _ in mine}]
    numbers = np.setdiff1d(np.arange(physical, stop), [number for number, _ in mine])[: len(table)]
    rejects = tuple(Reject(number - 2, None, reject.reason) for number, reject in mine)
    return Cells(path, table, numbers - 2, rejects), stop


def typed(column: pa.ChunkedArray, kind: Kind) -> tuple[Any, pa.ChunkedArray]:
    """Cells of a feature column by its kind: what is scored, and what is written.

    A cell that cannot be read stays text, for the model's own rules to refuse it.
    """
    import pyarrow as pa

    if kind in ("string", "time"):
        return column, column
    found = _cast(column, kind)
    if found is not None:
        return found, found
    values = [None if text is None else typed_cell(text, kind) for text in column.to_pylist()]
    # The rows of those that stay text will not be written.
    readable = [None if isinstance(value, str) else value for value in values]
    types = {"integer": (pa.int64(), pa.float64()), "number": (pa.float64(),)}
    for wanted in types.get(kind, (pa.bool_(),)):
        try:
            return values, pa.chunked_array([pa.array(readable, wanted)])
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            continue
    return values, column


def _cast(column: pa.ChunkedArray, kind: Kind) -> pa.ChunkedArray | None:
    """The column at once, where every cell is an ordinary one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    types = {"integer": (pa.int64(), pa.float64()), "number": (pa.float64(),), "boolean": ()}
    if kind == "integer" and pc.any(pc.match_substring(column, "0x", ignore_case=True)).as_py():
        return None  # Arrow reads hexadecimal numbers
    for wanted in types[kind]:
        try:
            return column.cast(wanted)
        except pa.ArrowInvalid:
            continue
    return None


def _guessed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers where all cells are, else the text; 007 is text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pc.any(pc.match_substring_regex(column, _LEADING_ZERO)).as_py():
        return column
    for wanted in (pa.int64(), pa.float64()):
        try:
            return column.cast(wanted)
        except pa.ArrowInvalid:
            continue
    return column


def _refuse_twice(names: Sequence[str], path: Path) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        message = f"{path} has the column {twice} twice"
        raise DataError(message, hint="give one of them another name, or leave it out")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say which file cannot be read."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowInvalid, OSError, UnicodeError) as err:
        message = f"{path} cannot be read: {err}"
        raise DataError(message) from err
