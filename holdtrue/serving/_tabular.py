"""Rows as CSV and as Arrow streams, in and out."""

from __future__ import annotations

import csv
import io
import struct
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.cells import CSV_NULLS, NO_NUMBERS, typed_cell
from holdtrue.serving._asked import (
    MAX_ROWS,
    Answered,
    Problem,
    Reply,
    check_rows,
    value_problem,
)

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from holdtrue.models._served import ServedModel
    from holdtrue.references import Kind
    from holdtrue.serving._asked import Column

CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"

MAX_TEXT_BYTES = 10_000_000
"""Of one column, where rows refer to texts that they share."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBERS = ("integer", "number")
_NULLS = frozenset(CSV_NULLS)


# CSV


def read_csv(body: bytes) -> dict[str, list[str]]:
    """Read a header and rows.

    Args:
        body: UTF-8, as RFC 4180 has it; with or without a byte order mark.

    Returns:
        The cells by column; which of them are numbers, only a model knows.

    Raises:
        Problem: It is no CSV (400), or a row is too short or too long (422), or there are no or
            too many rows.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise Problem(400, f"the content is not CSV: it is not UTF-8 at byte {err.start}") from err
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    try:
        header = next(reader, [])
        for row in reader:
            if row:
                rows.append(row)
            if len(rows) > MAX_ROWS:
                break
    except csv.Error as err:
        detail = f"the content is not CSV: {err}, in line {reader.line_num}"
        raise Problem(400, detail) from err
    if len({*header}) != len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise Problem(400, f"the header has the column {twice[:100]} twice")
    check_rows(len(rows))
    width = len(header)
    for number, row in enumerate(rows):
        if len(row) != width:
            raise value_problem(number, None, f"{len(row)}", f"{width} cells, as in the header")
    return dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))


def typed_cells(cells: dict[str, list[str]], model: ServedModel) -> dict[str, Column]:
    """Read the cells of a CSV by the kinds of a model's columns.

    An empty cell is a missing value, and so are the other ways to write one that training files
    may have; but for NaN where numbers are expected, which is refused as in JSON. A cell that
    cannot be read stays text, for the model's own check to refuse it with its place.
    """
    kinds = model.signature.columns
    return {
        name: [_cell(text, kinds.get(name, "string")) for text in texts]
        for name, texts in cells.items()
    }


def _cell(text: str, kind: Kind) -> Any:
    if text in _NULLS and not (kind in _NUMBERS and text.lower() in NO_NUMBERS):
        return None
    return typed_cell(text, kind)


# Arrow


def read_arrow(body: bytes) -> tuple[dict[str, Column], int]:
    """Read an Arrow IPC stream.

    Returns:
        The columns by name, and the number of rows. Missing values are None, so that an integer
        stays what it is where others are missing; NaN stays NaN, and is refused as such.

    Raises:
        Problem: It is no such stream (400), or has no or too many rows, a column twice, or a
            column of values that are no numbers, texts, truths or times (422).
    """
    import pyarrow as pa

    _refuse_compressed(body)
    try:
        with pa.ipc.open_stream(body) as stream:
            batches, n_rows = [], 0
            for batch in stream:
                n_rows += batch.num_rows
                if n_rows > MAX_ROWS:
                    break
                # Offsets of a stream from outside may point anywhere until they are checked.
                batch.validate(full=True)
                batches.append(batch)
            schema = stream.schema
        check_rows(n_rows)
        table = pa.Table.from_batches(batches, schema)
        names = table.column_names
        columns = {name: _arrow_column(table.column(i), name) for i, name in enumerate(names)}
    except (pa.ArrowException, OSError, ValueError, TypeError, MemoryError) as err:
        detail = f"the content is not an Arrow IPC stream: {str(err)[:200]}"
        raise Problem(400, detail) from err
    if len(columns) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise Problem(400, f"the schema has the column {twice[:100]} twice")
    return columns, n_rows


def _arrow_column(column: pa.ChunkedArray, name: str) -> Column:
    import pyarrow as pa

    types = pa.types
    kind = column.type
    is_coded = types.is_dictionary(kind)
    if is_coded:
        kind = kind.value_type
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    if is_text and (is_coded or types.is_string_view(kind)):
        _refuse_repeated(column, name)
    if is_coded:
        column = column.cast(kind)
    if types.is_floating(kind) or types.is_decimal(kind):
        kind = pa.float64()
        column = column.cast(kind)
    elif types.is_timestamp(kind) or types.is_date(kind):
        return _moments(column, name)
    elif not (types.is_integer(kind) or types.is_boolean(kind) or types.is_null(kind) or is_text):
        raise value_problem(None, name, str(kind)[:100], "numbers, text, booleans or times")
    if types.is_floating(kind) or types.is_integer(kind):
        return _numbers(column.combine_chunks())
    listed: list[Any] = column.to_pylist()
    return listed


def _refuse_repeated(column: pa.ChunkedArray, name: str) -> None:
    """Refuse long texts that are sent once, and that thousands of rows refer to.

    Rows refer to texts by a dictionary, or by views (Apache Arrow columnar format, variable-size
    binary view layout).
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    n_bytes = 0
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            lengths = _lengths(chunk.dictionary).take(chunk.indices)
        else:
            lengths = _lengths(chunk)
        n_bytes += pc.sum(lengths).as_py() or 0
    if n_bytes > MAX_TEXT_BYTES:
        detail = f"column {name[:100]} has {n_bytes:,} bytes of text where each row has its own"
        raise Problem(413, f"{detail}; at most {MAX_TEXT_BYTES:,}")


def _lengths(texts: pa.Array) -> pa.Array:
    """Bytes of each text, null for null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_string_view(texts.type):
        return pc.binary_length(texts.cast(pa.large_string())).cast(pa.int64())
    # The first of the four whole numbers of each view.
    views = np.frombuffer(texts.buffers()[1], "<i4", 4 * len(texts), 16 * texts.offset)
    found = pa.array(views[::4].astype(np.int64))
    return pc.if_else(texts.is_valid(), found, pa.scalar(None, pa.int64()))


def _numbers(values: pa.Array) -> npt.NDArray[Any]:
    """Numbers as they lie in memory; `to_numpy` would import pandas, and make integers floats."""
    import pyarrow as pa

    def raw(array: pa.Array, dtype: str) -> npt.NDArray[Any]:
        dtype_ = np.dtype(dtype)
        return np.frombuffer(array.buffers()[1], dtype_, len(array), array.offset * dtype_.itemsize)

    numbers = raw(values, "float64" if pa.types.is_floating(values.type) else str(values.type))
    if not values.null_count:
        return numbers
    null = raw(values.is_null().cast(pa.uint8()), "uint8").astype(bool)
    return np.ma.MaskedArray(numbers, null)


def _moments(column: pa.ChunkedArray, name: str) -> list[Any]:
    """Times as ISO 8601 in UTC; Arrow keeps those with a zone in UTC, and those without are."""
    import pyarrow as pa

    try:
        counts = _microseconds(column).cast(pa.int64()).to_pylist()
        return [
            None if count is None else (_EPOCH + timedelta(microseconds=count)).isoformat()
            for count in counts
        ]
    except (OverflowError, pa.ArrowInvalid) as err:
        raise value_problem(None, name, "a time beyond the year 9999", "a time") from err


def _microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """As `holdtrue.data` does it, which imports pandas."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = pc.floor_temporal(column.cast(pa.timestamp("ns")), unit="microsecond")
    return column.cast(pa.timestamp("us"))


def _refuse_compressed(body: bytes) -> None:
    """Refuse buffers that are compressed: their size is only known once they are in memory.

    References:
        Apache Arrow, IPC format, encapsulated messages; Message.fbs (fields of Message: version,
        header_type, header, bodyLength) and its RecordBatch (length, nodes, buffers, compression).
    """
    place = 0
    try:
        while place < len(body):
            (size,) = struct.unpack_from("<i", body, place)
            place += 4
            if size == -1:  # since format 0.15 a marker comes first
                (size,) = struct.unpack_from("<i", body, place)
                place += 4
            if size <= 0:
                return
            message = body[place : place + size]
            (root,) = struct.unpack_from("<I", message, 0)
            if _is_compressed(message, root):
                detail = (
                    "the Arrow stream has compressed buffers; send it without, and where it is "
                    "large with Content-Encoding: gzip"
                )
                raise Problem(415, detail)
            length = _field(message, root, 3)
            skipped = 0 if length is None else struct.unpack_from("<q", message, length)[0]
            if skipped < 0:
                return
            place += size + skipped
    except (struct.error, IndexError):
        return  # it is damaged, and the reader will say so


def _is_compressed(message: bytes, root: int) -> bool:
    kind = _field(message, root, 1)
    header = _field(message, root, 2)
    if kind is None or header is None:
        return False
    batch = header + struct.unpack_from("<I", message, header)[0]
    if message[kind] == 2:  # of a dictionary: the batch is its second field
        data = _field(message, batch, 1)
        if data is None:
            return False
        batch = data + struct.unpack_from("<I", message, data)[0]
    elif message[kind] != 3:
        return False
    return _field(message, batch, 3) is not None


def _field(message: bytes, table: int, number: int) -> int | None:
    """Where a field of a flatbuffers table lies; None where it is left out."""
    vtable = table - struct.unpack_from("<i", message, table)[0]
    if vtable < 0:
        raise struct.error
    (size,) = struct.unpack_from("<H", message, vtable)
    entry = 4 + 2 * number
    if entry + 2 > size:
        return None
    (offset,) = struct.unpack_from("<H", message, vtable + entry)
    return table + offset if offset else None


# Answers


def answer_columns(answered: Answered) -> dict[str, list[Any]]:
    """The answer as columns, named as in the files that `holdtrue predict` writes.

    Returns:
        ``id``, ``version``, ``prediction``, then ``probability_<class>``, or ``interval_low`` and
        ``interval_high`` where an interval is declared; then those of `why_columns` where
        explanations were asked for.
    """
    scores, classes = answered.scores, answered.signature.classes
    columns: dict[str, list[Any]] = {
        "id": [*answered.ids],
        "version": [answered.version] * len(scores),
    }
    if classes is None:
        columns["prediction"] = answered.listed
        ends = answered.answering.intervals(scores)
        if ends is not None:
            columns["interval_low"], columns["interval_high"] = ends.T.tolist()
    else:
        columns["prediction"] = answered.decided
        for name, values in zip(classes, scores.T.tolist(), strict=True):
            columns[f"probability_{name}"] = values
    if answered.contributions is not None:
        from holdtrue.models._explain import why_columns

        indices = None if classes is None else answered.answering.decide(scores)
        why = why_columns(answered.contributions, indices)
        columns |= {name: values.tolist() for name, values in why.items()}
    return columns


def write_csv(answered: Answered) -> Reply:
    """The answer as text/csv."""
    columns = answer_columns(answered)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return Reply(200, text.getvalue().encode(), f"{CSV}; charset=utf-8")


def write_arrow(answered: Answered) -> Reply:
    """The answer as an Arrow IPC stream."""
    import pyarrow as pa

    table = pa.table(answer_columns(answered))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return Reply(200, sink.getvalue().to_pybytes(), ARROW)
