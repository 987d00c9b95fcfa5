"""What is written: a part for each piece, and at the end one file of all parts."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from contextlib import contextmanager
from itertools import compress
from typing import TYPE_CHECKING, Any

from holdtrue.errors import ConfigError
from holdtrue.store import alone, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from holdtrue.batch._pieces import Block
    from holdtrue.batch._score import Answers

FORMATS = (".csv", ".parquet", ".jsonl")
PARTS, REJECTED = ".parts", ".rejected.parquet"
"""What follows the name of an output: the folder of its parts, the table of rejected rows."""
_COPY_BYTES = 1_000_000
# Records in memory at a time.
_LINES = 10_000
_STRUCTURE = re.compile('[",\r\n]')


def format_of(output: Path) -> str:
    """The ending of a file to be written.

    Raises:
        ConfigError: It is not one of `FORMATS`.
    """
    for ending in FORMATS:
        if output.name.endswith(ending):
            return ending
    message = f"{output}: the ending must be .csv, .parquet or .jsonl"
    raise ConfigError(message)


def check_output(output: Path) -> None:
    """Prove that a file can be written; leaves nothing behind.

    Raises:
        ConfigError: Its ending is not one of `FORMATS`, or its folder cannot be written.
    """
    format_of(output)
    with writing(output), tempfile.NamedTemporaryFile(dir=output.parent, prefix=".probe-"):
        if output.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def check_place(folder: Path) -> None:
    """Prove that a folder can be written, or made; leaves nothing behind.

    Raises:
        ConfigError: It cannot.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    with writing(folder), tempfile.NamedTemporaryFile(dir=there, prefix=".probe-"):
        pass


def part_ending(output: Path) -> str:
    """How the parts of an output are kept: as lines where it has lines, else as Parquet."""
    return ".jsonl" if format_of(output) == ".jsonl" else ".parquet"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say which file cannot be written.

    Raises:
        ConfigError: It cannot.
    """
    try:
        yield
    except OSError as err:
        message = f"{path} cannot be written: {err.strerror or err}"
        raise ConfigError(message) from err


def write_part(path: Path, block: Block, answers: Answers) -> None:
    """Write the scored rows of a piece with their answers.

    Args:
        path: With the ending of `part_ending`.
        block: The piece.
        answers: What the model said to it.
    """
    with replacing(path) as draft:
        if path.name.endswith(".jsonl"):
            draft.write_bytes(_as_lines(_records(block, answers), answers))
        else:
            import pyarrow.parquet as pq

            pq.write_table(_as_table(block, answers), draft, compression="zstd")


def _records(block: Block, answers: Answers) -> list[dict[str, Any]]:
    if block.table is not None:
        found: list[dict[str, Any]] = block.table.filter(_mask(answers)).to_pylist()
        return found
    return [*compress(block.records or (), answers.kept.tolist())]


def _as_lines(rows: Sequence[Mapping[str, Any]], answers: Answers) -> bytes:
    import orjson

    names = [*answers.columns]
    lists = [values.tolist() for values in answers.columns.values()]
    lines = [
        orjson.dumps({**row, **dict(zip(names, values, strict=True))}, default=str)
        for row, *values in zip(rows, *lists, strict=True)
    ]
    return b"".join(line + b"\n" for line in lines)


def _as_table(block: Block, answers: Answers) -> pa.Table:
    import pyarrow as pa

    if block.table is not None:
        table = block.table.filter(_mask(answers)).replace_schema_metadata(None)
    else:
        table = _table_of(_records(block, answers))
    for name, values in answers.columns.items():
        if name in table.column_names:
            table = table.drop_columns([name])
        table = table.append_column(name, pa.array(values))
    return table


def _mask(answers: Answers) -> Any:
    import pyarrow as pa

    return pa.array(answers.kept)


def _table_of(records: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Records as a table; a column of several kinds of values, or nested ones, as JSON."""
    import pyarrow as pa

    names = dict.fromkeys(name for record in records for name in record)
    columns = {}
    for name in names:
        values = [record.get(name) for record in records]
        try:
            array = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            array = None
        if array is None or pa.types.is_nested(array.type):
            array = pa.array([_as_text(value) for value in values], pa.string())
        columns[name] = array
    return pa.table(columns)


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, default=str)


def assemble(
    parts: Sequence[Path],
    output: Path,
    *,
    last: Sequence[str] = (),
    say: Callable[[int], None] = lambda _: None,
) -> None:
    """Write the file of all parts, in their order; at most one row group is in memory.

    Args:
        parts: As `write_part` wrote them; at least one.
        output: The file.
        last: Names of the columns that come last.
        say: Told how many parts are in it.

    Raises:
        ConfigError: It cannot be written.
    """
    with writing(output), replacing(output) as draft:
        if format_of(output) == ".jsonl":
            _join_lines(parts, draft, say)
        else:
            schema = common_schema([_schema(part) for part in parts], last)
            _join_tables(parts, draft, schema, say, as_csv=format_of(output) == ".csv")


def write_table(table: pa.Table, output: Path) -> None:
    """Write a table as one file, which appears whole or not at all.

    Args:
        table: shape (n_rows, n_columns).
        output: CSV, Parquet or JSON lines, by its ending; replaced when all is written.

    Raises:
        ConfigError: It cannot be written.
        StackError: Another process writes it.
    """
    import orjson
    import pyarrow.parquet as pq

    ending = format_of(output)
    lock = output.with_name(f".{output.name}.lock")
    with writing(output), alone(lock, f"writing {output}"), replacing(output) as draft:
        if ending == ".parquet":
            pq.write_table(table, draft)
        elif ending == ".csv":
            with _Csv(draft, table.schema) as file:
                file.write_table(table)
        else:
            with draft.open("wb") as lines:
                for batch in table.to_batches(_LINES):
                    lines.writelines(orjson.dumps(row) + b"\n" for row in batch.to_pylist())


def _schema(part: Path) -> pa.Schema:
    import pyarrow.parquet as pq

    return pq.read_schema(part)


def _join_lines(parts: Sequence[Path], draft: Path, say: Callable[[int], None]) -> None:
    with draft.open("wb") as file:
        for number, part in enumerate(parts, 1):
            with part.open("rb") as content:
                while chunk := content.read(_COPY_BYTES):
                    file.write(chunk)
            say(number)


def _join_tables(
    parts: Sequence[Path],
    draft: Path,
    schema: pa.Schema,
    say: Callable[[int], None],
    *,
    as_csv: bool,
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if as_csv:
        schema = pa.schema([_flat(field) for field in schema])
        writer: Any = _Csv(draft, schema)
    else:
        writer = pq.ParquetWriter(draft, schema)
    with writer:
        for number, part in enumerate(parts, 1):
            with pq.ParquetFile(part) as file:
                for group in range(file.metadata.num_row_groups):
                    writer.write_table(_fitted(file.read_row_group(group), schema))
            say(number)


class _Csv:
    """Writes tables below each other, with quotes only where some text needs them."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = path.open("wb")
        self._write(schema.empty_table(), any(_STRUCTURE.search(n) for n in schema.names), True)

    def __enter__(self) -> _Csv:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write_table(self, table: pa.Table) -> None:
        """Write the rows of a table."""
        import pyarrow as pa
        import pyarrow.compute as pc

        texts = [column for column in table.columns if pa.types.is_string(column.type)]
        pattern = _STRUCTURE.pattern
        odd = any(pc.any(pc.match_substring_regex(text, pattern)).as_py() for text in texts)
        self._write(table, odd, False)

    def _write(self, table: pa.Table, quotes: bool, header: bool) -> None:
        from pyarrow import csv

        style = "needed" if quotes else "none"
        options = csv.WriteOptions(include_header=header, quoting_style=style, quoting_header=style)
        csv.write_csv(table, self._file, write_options=options)


def common_schema(schemas: Sequence[pa.Schema], last: Sequence[str]) -> pa.Schema:
    """The columns of all parts; where parts have one in different types, what holds both.

    Args:
        schemas: Of the parts.
        last: Names of the columns that come last.
    """
    import pyarrow as pa

    fields: dict[str, pa.Field] = {}
    for schema in schemas:
        for field in schema:
            known = fields.get(field.name)
            if known is None:
                fields[field.name] = field
            elif known.type != field.type:
                fields[field.name] = _common(known, field)
    order = [name for name in fields if name not in last] + [*last]
    return pa.schema([fields[name].with_nullable(True) for name in order])


def _common(one: pa.Field, other: pa.Field) -> pa.Field:
    import pyarrow as pa

    pair = [pa.schema([one]), pa.schema([other])]
    try:
        return pa.unify_schemas(pair, promote_options="permissive").field(0)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.field(one.name, pa.string())


def _flat(field: pa.Field) -> pa.Field:
    """CSV has no nested values: they are written as JSON."""
    import pyarrow as pa

    types = pa.types
    odd = types.is_nested(field.type) or types.is_binary(field.type)
    odd = odd or types.is_dictionary(field.type) or types.is_large_string(field.type)
    return field.with_type(pa.string()) if odd else field


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(len(table), field.type))
            continue
        column = table[field.name]
        if column.type != field.type:
            if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
                column = pa.array([_as_text(value) for value in column.to_pylist()], pa.string())
            column = column.cast(field.type)
        columns.append(column)
    return pa.table(columns, schema=schema)
