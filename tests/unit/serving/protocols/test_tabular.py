from __future__ import annotations

import csv
import io
import json
import struct
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdtrue.cells import CSV_NULLS
from holdtrue.serving._asked import MAX_ROWS
from holdtrue.serving._tabular import MAX_TEXT_BYTES

CSV = b"text/csv"
ARROW = b"application/vnd.apache.arrow.stream"
TYPES = {
    "distance": pa.int64(),
    "delay": pa.float64(),
    "weekend": pa.bool_(),
    "carrier": pa.string(),
    "gate": pa.int64(),
}
SCHEMA = pa.schema(TYPES)


def csv_of(rows):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*rows[0]])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def arrow_of(table, **options):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as out:
        out.write_table(table, max_chunksize=7)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def table(rows):
    return pa.Table.from_pylist(rows, SCHEMA)


def test_json_csv_and_arrow_give_the_same_scores(any_door, rows, table):
    wanted = any_door.scores("predict", rows)
    assert (any_door.scores("predict", csv_of(rows), CSV) == wanted).all()
    assert (any_door.scores("predict", arrow_of(table), ARROW) == wanted).all()
    one = [any_door.scores("predict", row)[0] for row in rows]
    # Matrix products may round otherwise with the number of rows.
    np.testing.assert_allclose(one, wanted, rtol=0, atol=1e-12)


VALUES = {
    "distance": st.none() | st.integers(-(2**53), 2**53),
    "delay": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    "weekend": st.none() | st.booleans(),
    # In CSV an empty text, or NA, cannot be told from a missing one.
    "carrier": st.none()
    | st.text(st.characters(codec="utf-8")).filter(lambda text: text not in CSV_NULLS),
    "gate": st.none() | st.integers(-(2**63), 2**63 - 1),
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=5))
def test_any_rows_are_the_same_in_all_formats(door, rows):
    asked = [
        door.ask("predict", rows),
        door.ask("predict", csv_of(rows), CSV),
        door.ask("predict", arrow_of(pa.Table.from_pylist(rows, SCHEMA)), ARROW),
    ]
    for question in asked:
        assert question.rows() == rows
        np.testing.assert_array_equal(question.encoded.matrix, asked[0].encoded.matrix)
        assert question.encoded.unknown == asked[0].encoded.unknown


def test_what_other_programs_write_is_read(door, rows, table):
    sink = io.BytesIO()
    pyarrow.csv.write_csv(table, sink)
    wanted = door.scores("predict", rows)
    assert (door.scores("predict", sink.getvalue(), CSV) == wanted).all()
    assert (door.scores("predict", b"\xef\xbb\xbf" + csv_of(rows), CSV) == wanted).all()
    plain = csv_of(rows).replace(b"\r\n", b"\n") + b"\n"
    assert (door.scores("predict", plain, CSV) == wanted).all()
    floats = table.set_column(0, "distance", table["distance"].cast(pa.float64()))
    coded = floats.set_column(3, "carrier", table["carrier"].dictionary_encode())
    small = coded.set_column(4, "gate", table["gate"].cast(pa.uint8()))
    large = small.set_column(3, "carrier", table["carrier"].cast(pa.large_string()))
    views = small.set_column(3, "carrier", table["carrier"].cast(pa.string_view()))
    for one in (floats, coded, small, large, views):
        assert (door.scores("predict", arrow_of(one), ARROW) == wanted).all()


def test_integers_stay_exact_where_others_are_missing(compiled, door_of):
    door = door_of(compiled, key=("flight",))
    row = dict.fromkeys(TYPES)
    keys = [2**63 - 1, None, 2**53 + 1]
    table = pa.Table.from_pylist([row | {"flight": key} for key in keys])
    assert door.ask("predict", arrow_of(table), ARROW).keys == [{"flight": key} for key in keys]


def test_key_and_time_come_as_columns_too(door, rows):
    at = ["2024-05-01T08:30:00+00:00", None, "1969-12-31T23:59:59.500000+00:00"]
    table = pa.Table.from_pylist(rows[:3], SCHEMA).append_column(
        "flight", pa.array(["a", "b", "c"])
    )
    for kind in (pa.timestamp("ns", "America/New_York"), pa.timestamp("ms"), pa.string()):
        values = pa.array([None if t is None else np.datetime64(t[:-6], "ms") for t in at])
        column = pa.array(at) if kind == pa.string() else values.cast(kind)
        question = door.ask("predict", arrow_of(table.append_column("at", column)), ARROW)
        assert question.times == at
        assert question.keys == [{"flight": "a"}, {"flight": "b"}, {"flight": "c"}]
        assert question.rows() == rows[:3]
    lines = [
        row | {"at": t or "", "flight": n}
        for n, (row, t) in enumerate(zip(rows[:3], at, strict=True))
    ]
    question = door.ask("predict", csv_of(lines), CSV)
    assert question.times == at
    assert question.keys == [{"flight": "0"}, {"flight": "1"}, {"flight": "2"}]


HEADER = b"distance,delay,weekend,carrier,gate\n"


@pytest.mark.parametrize(
    ("line", "column", "found"),
    [
        (b"x,1,true,AA,1", "distance", "str"),
        (b"1_000,1,true,AA,1", "distance", "str"),
        (b" 1,1,true,AA,1", "distance", "str"),
        ("٣,1,true,AA,1".encode(), "distance", "str"),
        (b"1.5,1,true,AA,1", "distance", "a fraction"),
        (b"1,nan,true,AA,1", "delay", "nan"),
        (b"1,-NaN,true,AA,1", "delay", "nan"),
        (b"1,-Infinity,true,AA,1", "delay", "-inf"),
        (b"1,1e999,true,AA,1", "delay", "inf"),
        (b"1,true,true,AA,1", "delay", "str"),
        (b"1,1,2,AA,1", "weekend", "str"),
        (b"1,1,true,AA,A", "gate", "str"),
    ],
)
def test_refuses_a_cell_with_its_place(any_door, line, column, found):
    status, content = any_door.refused("predict", HEADER + b"1,1,true,AA,1\n" + line, CSV)
    (error,) = content["errors"]
    assert (status, error["row"], error["column"], error["found"]) == (422, 1, column, found)


@pytest.mark.parametrize("number", [b"12", b"+12", b"12.0", b"1.2e1", b"12.", b"0.12E+2"])
def test_reads_numbers_as_they_are_written(any_door, number):
    wanted = any_door.scores("predict", HEADER + b"12,12,TRUE,AA,1", CSV)
    line = HEADER + number + b"," + number + b",True,AA,1"
    assert (any_door.scores("predict", line, CSV) == wanted).all()
    huge = HEADER + b"9" * 300 + b"," + b"9" * 300 + b",True,AA,1"
    assert any_door.reply("predict", huge, CSV).status in (200, 422)


@pytest.mark.parametrize("null", [b"NA", b"null", b"N/A", b"NULL", b"#N/A"])
def test_a_missing_value_is_written_as_in_training_files(any_door, null):
    lines = [b"%b,1,true,AA,1", b"1,%b,true,AA,1", b"1,1,%b,AA,1", b"1,1,true,%b,1"]
    for line in lines:
        wanted = any_door.scores("predict", HEADER + line % b"", CSV)
        assert (any_door.scores("predict", HEADER + line % null, CSV) == wanted).all()
    wanted = any_door.scores("predict", HEADER + lines[3] % b"", CSV)
    assert (any_door.scores("predict", HEADER + lines[3] % b"nan", CSV) == wanted).all()


def test_missing_values_are_those_of_the_reader_of_files():
    assert sorted(CSV_NULLS) == sorted(pa.csv.ConvertOptions().null_values)


def test_decimals_of_a_stream_are_numbers(any_door, table):
    delays = pa.array([Decimal("1.25"), None, Decimal("-3.50")], pa.decimal128(20, 4))
    table = table.slice(0, 3)
    plain = table.set_column(1, "delay", delays.cast(pa.float64()))
    exact = table.set_column(1, "delay", delays)
    wanted = any_door.scores("predict", arrow_of(plain), ARROW)
    assert (any_door.scores("predict", arrow_of(exact), ARROW) == wanted).all()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 422, "at least one row"),
        (HEADER, 422, "at least one row"),
        (b"\n\n", 422, "at least one row"),
        (b"\n1,2", 422, "row 0"),
        (HEADER + b"1,2\n", 422, "row 0: expected 5 cells"),
        (HEADER + b"1,1,true,AA,1\n1,1,true,AA,1,6\n", 422, "row 1: expected 5 cells"),
        (HEADER + b'1,1,true,"AA,1\n', 400, "not CSV"),
        (HEADER + b'1,1,true,"AA"x,1\n', 400, "not CSV"),
        (HEADER + b"1,1,true," + b"A" * 150_000 + b",1\n", 400, "not CSV"),
        (HEADER + b"1,1,true,\xff,1\n", 400, "not UTF-8"),
        (b"a,b,a\n1,2,3\n", 400, "the column a twice"),
        (b"distance\n1\n", 422, "lacks"),
        (b"x\n" + b"1\n" * (MAX_ROWS + 5), 413, "at most 10,000 rows"),
    ],
)
def test_refuses_what_is_no_csv(door, body, status, said):
    found, content = door.refused("predict", body, CSV)
    assert (found, said in content["detail"]) == (status, True), content["detail"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text('distance,ly"\n\r1.eE+-\x00wkABé', max_size=80))
def test_any_text_is_answered_or_refused(door, text):
    for body in (text.encode(), HEADER + text.encode()):
        assert door.reply("predict", body, CSV).status in (200, 400, 422)


def test_refuses_what_is_no_stream(door, table):
    good = arrow_of(table)
    assert door.refused("predict", b"", ARROW)[0] == 400
    assert door.refused("predict", b"nothing of it", ARROW)[0] == 400
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, SCHEMA) as out:
        out.write_table(table)
    assert door.refused("predict", sink.getvalue().to_pybytes(), ARROW)[0] == 400
    assert door.refused("predict", good[: len(good) // 2], ARROW)[0] in (400, 422)
    assert door.refused("predict", arrow_of(table.slice(0, 0)), ARROW)[0] == 422


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [
        ("delay", pa.array([1.0, float("nan")]), "nan"),
        ("delay", pa.array([1.0, float("-inf")]), "-inf"),
        ("delay", pa.array([True, False]), "true or false"),
        ("distance", pa.array(["1", "2"]), "str"),
        ("distance", pa.array([1.0, 1.5]), "a fraction"),
        ("carrier", pa.array([1, 2]), "int"),
        ("carrier", pa.array([b"a", b"b"]), "binary"),
        ("delay", pa.array([[1], [2]]), "list<item: int64>"),
        ("carrier", pa.array([{"a": 1}, None]), "struct<a: int64>"),
    ],
)
def test_refuses_an_arrow_column_with_its_name(any_door, rows, column, values, found):
    table = pa.Table.from_pylist(rows[:2], SCHEMA)
    place = table.column_names.index(column)
    body = arrow_of(table.set_column(place, column, values))
    status, content = any_door.refused("predict", body, ARROW)
    assert (status, content["errors"][0]["column"]) == (422, column)
    assert content["errors"][0]["found"] == found


def test_refuses_tables_whose_size_is_not_in_their_bytes(door, table):
    many = pa.table({"x": pa.nulls(50_000_000)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, many.schema) as out:
        out.write_table(many)
    body = sink.getvalue().to_pybytes()
    assert len(body) < 10_000
    assert door.refused("predict", body, ARROW)[0] == 413
    for codec in ("lz4", "zstd"):
        status, content = door.refused("predict", arrow_of(table, compression=codec), ARROW)
        assert (status, "compressed" in content["detail"]) == (415, True)
    coded = table.set_column(3, "carrier", table["carrier"].dictionary_encode())
    body = arrow_of(coded.select(["carrier"]), compression="zstd")
    assert door.refused("predict", body, ARROW)[0] == 415


def test_refuses_a_long_text_that_many_rows_share(door, table):
    most = MAX_TEXT_BYTES // 9_000
    for length, status in ((most, 200), (most + 2, 413)):
        few = pa.concat_tables([table.slice(0, 1)] * 9_000).combine_chunks()
        shared = pa.DictionaryArray.from_arrays(
            pa.array([0] * 9_000, pa.int32()), pa.array(["x" * length])
        )
        for column in (shared, views_of("x" * length, 9_000)):
            body = arrow_of(few.set_column(3, "carrier", pa.chunked_array([column])))
            assert len(body) < MAX_TEXT_BYTES // 4
            reply = door.reply("predict", body, ARROW)
            assert reply.status == status, reply.content[:200]


def views_of(text, count):
    """The same text in each row, and its bytes once."""
    view = struct.pack("<i4sii", len(text), text[:4].encode(), 0, 0)
    buffers = [None, pa.py_buffer(view * count), pa.py_buffer(text.encode())]
    return pa.Array.from_buffers(pa.string_view(), count, buffers)


def test_refuses_a_column_twice(door):
    body = arrow_of(pa.table([[1], [2]], names=["x", "x"]))
    assert "the column x twice" in door.refused("predict", body, ARROW)[1]["detail"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_stream_is_answered_or_refused(door, rows, data):
    table = pa.Table.from_pylist(rows[:9], SCHEMA)
    body = bytearray(arrow_of(table.set_column(3, "carrier", table["carrier"].dictionary_encode())))
    for _ in range(data.draw(st.integers(1, 8))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    reply = door.reply("predict", bytes(body), ARROW)
    assert reply.status in (200, 400, 413, 415, 422)


@pytest.mark.parametrize("accept", [None, b"*/*", b"text/html, */*"])
def test_answers_in_the_format_of_the_request(door, rows, table, accept):
    headers = {} if accept is None else {"accept": accept}
    scores = door.scores("predict", rows)
    reply = door.reply("predict", csv_of(rows), CSV, **headers)
    assert reply.media_type == "text/csv; charset=utf-8"
    lines = [*csv.DictReader(io.StringIO(reply.content.decode(), newline=""))]
    assert [line["id"] for line in lines] == [f"id-{n}" for n in range(len(rows))]
    assert [float(line["probability_yes"]) for line in lines] == scores[:, 1].tolist()
    reply = door.reply("predict", arrow_of(table), ARROW, **headers)
    assert reply.media_type == ARROW.decode()
    answer = pa.ipc.open_stream(reply.content).read_all()
    assert answer["probability_no"].to_pylist() == scores[:, 0].tolist()
    assert answer["prediction"].to_pylist() == [line["prediction"] for line in lines]


def test_answers_in_the_format_that_is_wanted(regression, door_of, rows, table):
    door = door_of(regression)
    values = door.scores("predict", rows)
    reply = door.reply("predict", arrow_of(table), ARROW, accept=b"application/json")
    predictions = json.loads(reply.content)["predictions"]
    assert [one["value"] for one in predictions] == values.tolist()
    reply = door.reply("predict", rows, accept=ARROW)
    answer = pa.ipc.open_stream(reply.content).read_all().to_pydict()
    assert answer["prediction"] == values.tolist()
    assert answer["interval_low"] == (values - 1).tolist()
    assert answer["interval_high"] == (values + 2).tolist()
    assert answer["version"] == [3] * len(rows)


def test_explains_in_columns(compiled, door_of, table):
    door = door_of(compiled, explain=True)
    body = arrow_of(table)
    reply = door.reply("predict", body, ARROW, b"explain=true")
    answer = pa.ipc.open_stream(reply.content).read_all().to_pydict()
    parts = [answer[f"why_{name}"] for name in TYPES]
    total = np.sum(parts, axis=0) + answer["explained_base"]
    np.testing.assert_allclose(total, answer["explained_score"])


def test_reads_streams_without_pandas(table):
    code = (
        "import sys\n"
        "from holdtrue.serving._tabular import read_arrow\n"
        "columns, n_rows = read_arrow(sys.stdin.buffer.read())\n"
        "assert n_rows == 60 and columns['at'][0] == '2024-01-01T00:00:00+00:00'\n"
        "found = {'pandas', 'sklearn', 'xgboost', 'prefect', 'mlflow'} & {*sys.modules}\n"
        "assert not found, found\n"
    )
    at = pa.array([np.datetime64("2024-01-01", "ns")] * 60)
    body = arrow_of(table.append_column("at", at))
    ran = subprocess.run([sys.executable, "-c", code], input=body, capture_output=True, check=False)  # noqa: S603
    assert ran.returncode == 0, ran.stderr.decode()
