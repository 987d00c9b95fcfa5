"""Kinds of columns: what a table's types mean, whatever library wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from holdtrue.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdtrue.references import Kind

# The arrow type that each kind is stored as: one way to write each thing, for stable digests.
ARROW: dict[Kind, pa.DataType] = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "string": pa.string(),
    "boolean": pa.bool_(),
    "time": pa.timestamp("us", tz="UTC"),
}


def as_table(rows: Any, source: str) -> pa.Table:
    """Bring a DataFrame or Arrow table into the types that snapshots are stored in.

    Args:
        rows: What a source returned.
        source: Its name, for messages.

    Raises:
        DataError: It is neither, has a column twice, or a column's values have no common kind.
    """
    if isinstance(rows, pd.DataFrame):
        names = list(rows.columns)
        odd = [name for name in names if not isinstance(name, str)]
        if odd:
            message = f"{source}: column names must be text, found {odd[0]!r}"
            raise DataError(message)
    elif isinstance(rows, pa.Table):
        names = rows.column_names
    else:
        found = type(rows).__name__
        message = f"{source} returned {found}, expected a pandas DataFrame or an Arrow table"
        raise DataError(message)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = f"{source}: columns occur twice: {', '.join(twice)}"
        raise DataError(message)
    table = rows
    if isinstance(rows, pd.DataFrame):
        try:
            table = pa.Table.from_pandas(rows, preserve_index=False)
        except (
            pa.ArrowInvalid,
            pa.ArrowTypeError,
            pa.ArrowNotImplementedError,
            OverflowError,
        ) as err:
            said = "; ".join(str(part) for part in err.args)
            message, hint = f"{source}: a column mixes kinds of values: {said}", None
            if isinstance(err, OverflowError):
                large = [name for name in names if rows[name].map(_is_too_large).any()]
                message = f"{source}: {', '.join(large) or 'a column'} has numbers beyond int64"
                hint = "turn them into text or floats, or leave the column out"
            raise DataError(message, hint=hint) from err
    columns = {name: _column(table[name], f"{source}: column {name}") for name in names}
    return pa.table(columns).combine_chunks()


def _is_too_large(value: Any) -> bool:
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _column(column: pa.ChunkedArray, place: str) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = kind_of(column.type)
    if kind is None:
        message = f"{place} has the type {column.type}, which holdtrue cannot learn from"
        hint = "leave it out, or turn it into numbers, text or times"
        if pa.types.is_binary(column.type):
            message = f"{place} has values that are not text in UTF-8"
            hint = "convert the file (iconv -f latin1 -t utf-8), or leave the column out"
        raise DataError(message, hint=hint)
    target = ARROW[kind]
    if column.type == target:
        return _without_nan(column) if kind == "number" else column
    try:
        if kind == "time":
            counts = microseconds(column)
            return pa.chunked_array([chunk.view(target) for chunk in counts.chunks], type=target)
        column = column.cast(target)
    except pa.ArrowInvalid as err:
        message = f"{place} does not fit {target}: {err}"
        raise DataError(message) from err
    return _without_nan(column) if kind == "number" else column


def microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times or dates in microseconds without a zone, in UTC; what is finer is cut off.

    Raises:
        pa.ArrowInvalid: One is beyond what microseconds can count.
    """
    import pyarrow.compute as pc

    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        # Towards the past, as where a text is read; a cast goes towards 1970.
        column = pc.floor_temporal(column.cast(pa.timestamp("ns")), unit="microsecond")
    return column.cast(pa.timestamp("us"))


def _without_nan(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Missing is null, never NaN: one way to say one thing."""
    import pyarrow.compute as pc

    return pc.if_else(pc.is_nan(column), None, column)


def kind_of(arrow: pa.DataType) -> Kind | None:
    """The kind that an arrow type stands for; None where there is none."""
    types = pa.types
    if types.is_boolean(arrow):
        return "boolean"
    if types.is_integer(arrow):
        return "integer"
    if types.is_floating(arrow) or types.is_decimal(arrow):
        return "number"
    if types.is_string(arrow) or types.is_large_string(arrow) or types.is_string_view(arrow):
        return "string"
    if types.is_timestamp(arrow) or types.is_date(arrow):
        return "time"
    if types.is_null(arrow):
        return "number"
    return None


def kinds_of(table: pa.Table) -> dict[str, Kind]:
    """Kinds by column of a table that `as_table` made."""
    back = {arrow: kind for kind, arrow in ARROW.items()}
    return {field.name: back[field.type] for field in table.schema}


FIRST_YEAR, LAST_YEAR = 1678, 2261
"""Of a feature that is a time: what nanoseconds since 1970 can count (see `holdtrue.times`)."""

_PANDAS: Mapping[Kind, str] = {
    "integer": "Int64",
    "number": "float64",
    "string": "str",
    "boolean": "boolean",
    "time": "datetime64[us, UTC]",
}


def as_frame(table: pa.Table, kinds: Mapping[str, Kind]) -> pd.DataFrame:
    """Turn a table from `as_table` into a frame with one dtype for each kind.

    Args:
        table: shape (n_rows, any columns).
        kinds: The wanted columns; whole numbers that were read as numbers become integers again.

    Raises:
        DataError: A column of whole numbers holds a fraction.
    """
    columns: dict[str, Any] = {}
    for name, kind in kinds.items():
        column = table[name]
        try:
            column = column.cast(ARROW[kind], safe=kind == "integer")
        except pa.ArrowInvalid as err:
            message = f"column {name} holds values that are no whole numbers: {err}"
            raise DataError(message) from err
        if kind in ("integer", "boolean"):
            columns[name] = column.to_pandas(types_mapper=_NULLABLE.get)
        else:
            columns[name] = column.to_pandas().astype(_PANDAS[kind])
    return pd.DataFrame(columns)


_NULLABLE: dict[pa.DataType, Any] = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}


def kinds_compatible(table: pa.Table, wanted: Mapping[str, Kind]) -> None:
    """Refuse a table whose columns hold other kinds of values than a model was fitted on.

    Times may be text, as in requests and in CSV: each is looked at when it is scored.

    Args:
        table: From `as_table`.
        wanted: Kinds by column; each must be a column of the table.

    Raises:
        DataError: Names each column with what it holds and what is expected.
    """
    found = kinds_of(table)
    numbers = {"integer", "number"}
    said = [
        f"column {name} holds {found[name]} values, expected {kind}"
        for name, kind in wanted.items()
        if found[name] != kind
        and not {found[name], kind} <= numbers
        and (found[name], kind) != ("string", "time")
        and table[name].null_count < len(table)
    ]
    if said:
        raise DataError("; ".join(said))
