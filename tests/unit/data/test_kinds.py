from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from holdtrue.data import as_frame, as_table, kinds_compatible
from holdtrue.data._kinds import kinds_of
from holdtrue.errors import DataError

NOON = dt.datetime(2024, 7, 1, 12, tzinfo=dt.UTC)
NAIVE = NOON.replace(tzinfo=None)

PANDAS: dict[str, tuple[pd.Series, str, list[Any]]] = {
    "int32": (pd.Series([1, 2], dtype="int32"), "integer", [1, 2]),
    "Int64 with null": (pd.Series([1, None], dtype="Int64"), "integer", [1, None]),
    "uint64": (pd.Series([1, 2], dtype="uint64"), "integer", [1, 2]),
    "category of numbers": (pd.Series([1, 2], dtype="category"), "integer", [1, 2]),
    "float32 with NaN": (pd.Series([1.5, np.nan], dtype="float32"), "number", [1.5, None]),
    "float16": (pd.Series([1.5, 2], dtype="float16"), "number", [1.5, 2.0]),
    "decimal": (pd.Series([decimal.Decimal("1.5"), None]), "number", [1.5, None]),
    "nothing": (pd.Series([None, None], dtype=object), "number", [None, None]),
    "text": (pd.Series(["a", None]), "string", ["a", None]),
    "text as objects": (pd.Series(["a", None], dtype=object), "string", ["a", None]),
    "category": (pd.Series(["a", None], dtype="category"), "string", ["a", None]),
    "bool": (pd.Series([True, False]), "boolean", [True, False]),
    "boolean with null": (pd.Series([True, None], dtype="boolean"), "boolean", [True, None]),
    "bool as objects": (pd.Series([True, None], dtype=object), "boolean", [True, None]),
    "ns": (pd.Series([NAIVE, None], dtype="datetime64[ns]"), "time", [NOON, None]),
    "us": (pd.Series([NAIVE, None], dtype="datetime64[us]"), "time", [NOON, None]),
    "s": (pd.Series([NAIVE, None], dtype="datetime64[s]"), "time", [NOON, None]),
    "UTC": (pd.Series([NOON, None], dtype="datetime64[ns, UTC]"), "time", [NOON, None]),
    "another zone": (
        pd.Series([NOON, None], dtype="datetime64[us, America/New_York]"),
        "time",
        [NOON, None],
    ),
    "dates": (pd.Series([NOON.date()]), "time", [NOON.replace(hour=0)]),
    "category of times": (pd.Series([NAIVE]).astype("category"), "time", [NOON]),
}
ARROW: dict[str, tuple[pa.Array, str, list[Any]]] = {
    "large string": (pa.array(["a", None], pa.large_string()), "string", ["a", None]),
    "string view": (pa.array(["a", None], pa.string_view()), "string", ["a", None]),
    "dictionary": (pa.array(["a", None, "a"]).dictionary_encode(), "string", ["a", None, "a"]),
    "date": (pa.array([NOON.date(), None]), "time", [NOON.replace(hour=0), None]),
    "seconds": (pa.array([NAIVE], pa.timestamp("s")), "time", [NOON]),
    "a zone": (pa.array([NOON], pa.timestamp("ms", "Europe/Berlin")), "time", [NOON]),
    "decimal": (pa.array([decimal.Decimal("1.25"), None]), "number", [1.25, None]),
    "null": (pa.nulls(2), "number", [None, None]),
    "NaN": (pa.array([1.5, float("nan")]), "number", [1.5, None]),
    "int8": (pa.array([1, None], pa.int8()), "integer", [1, None]),
}
DTYPES = {
    "integer": "Int64",
    "number": "float64",
    "string": "str",
    "boolean": "boolean",
    "time": "datetime64[us, UTC]",
}


@pytest.mark.parametrize("name", PANDAS)
def test_every_pandas_type_has_a_kind(name: str) -> None:
    values, kind, wanted = PANDAS[name]
    assert_kind(as_table(pd.DataFrame({"x": values}), "rows"), kind, wanted)


@pytest.mark.parametrize("name", ARROW)
def test_every_arrow_type_has_a_kind(name: str) -> None:
    values, kind, wanted = ARROW[name]
    assert_kind(as_table(pa.table({"x": values}), "rows"), kind, wanted)


def assert_kind(table: pa.Table, kind: str, wanted: list[Any]) -> None:
    kinds = kinds_of(table)
    assert kinds == {"x": kind}
    assert table["x"].to_pylist() == wanted
    frame = as_frame(table, kinds)
    assert str(frame["x"].dtype) == DTYPES[kind]
    assert as_table(frame, "again").equals(table)


def test_the_kind_does_not_depend_on_who_wrote_it() -> None:
    ways = [
        pd.Series([NAIVE, None], dtype="datetime64[ns]"),
        pd.Series([NOON, None], dtype="datetime64[us, UTC]"),
        pa.array([NAIVE, None], pa.timestamp("ms")),
    ]
    frames = [pd.DataFrame({"x": way}) if isinstance(way, pd.Series) else way for way in ways]
    tables = [
        as_table(f if isinstance(f, pd.DataFrame) else pa.table({"x": f}), "x") for f in frames
    ]
    assert tables[0].equals(tables[1])
    assert tables[1].equals(tables[2])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([1, 2], "rows returned list, expected a pandas DataFrame or an Arrow table"),
        (None, "rows returned NoneType"),
        (pd.DataFrame({"x": pd.Series([1, "a"], dtype=object)}), "mixes kinds of values.*column x"),
        (pd.DataFrame({"x": [object()]}), "mixes kinds"),
        (pd.DataFrame({"a": [1], "x": [2**70]}), "rows: x has numbers beyond int64"),
        (pd.DataFrame({"x": [[1], [2]]}), r"column x has the type list<.*cannot learn from"),
        (pa.table({"x": [{"a": 1}]}), r"column x has the type struct<"),
        (pa.table({"x": [b"a"]}), "column x has values that are not text in UTF-8"),
        (pa.table({"x": [dt.timedelta(1)]}), "column x has the type duration"),
        (pd.DataFrame({"x": pd.period_range("2024", periods=2)}), "column x has the type"),
        (pd.DataFrame({"x": np.array([2**63], dtype="uint64")}), "column x does not fit int64"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "rows: columns occur twice: a"),
        (pa.table([[1], [2]], names=["a", "a"]), "rows: columns occur twice: a"),
        (pd.DataFrame([[1]]), "rows: column names must be text, found 0"),
        (
            pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])),
            r"column names must be text, found \('a', 'b'\)",
        ),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(rows: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        as_table(rows, "rows")


def test_the_index_is_not_a_column() -> None:
    frame = pd.DataFrame({"x": [1]}, index=pd.Index(["row"], name="id"))
    assert as_table(frame, "rows").column_names == ["x"]


def test_whole_numbers_with_gaps_become_integers_again() -> None:
    table = as_table(pd.DataFrame({"x": [1.0, np.nan]}), "rows")
    frame = as_frame(table, {"x": "integer"})
    assert frame["x"].tolist() == [1, pd.NA]
    assert str(frame["x"].dtype) == "Int64"


def test_fractions_are_not_whole_numbers() -> None:
    with pytest.raises(DataError, match="column x holds values that are no whole numbers"):
        as_frame(as_table(pd.DataFrame({"x": [1.5]}), "rows"), {"x": "integer"})


@pytest.mark.parametrize(
    ("values", "wanted", "fits"),
    [
        ([1], "number", True),
        ([1.5], "integer", True),  # as_frame looks at the values
        (["a"], "number", False),
        ([1], "string", False),
        ([True], "integer", False),
        ([None], "string", True),
    ],
)
def test_kinds_are_compared(values: list[Any], wanted: Any, fits: bool) -> None:
    table = as_table(pa.table({"x": values}), "rows")
    if fits:
        kinds_compatible(table, {"x": wanted})
    else:
        with pytest.raises(DataError, match=f"column x holds .* values, expected {wanted}"):
            kinds_compatible(table, {"x": wanted})


def test_nanoseconds_are_cut_off_towards_the_past() -> None:
    column = pa.array([-1_500, -1, 1, 1_999, None], pa.timestamp("ns", "America/New_York"))
    found = as_table(pa.table({"at": column}), "rows")["at"]
    assert found.cast(pa.int64()).to_pylist() == [-2, -1, 0, 1, None]


@pytest.mark.parametrize("kind", [pa.timestamp("s"), pa.timestamp("s", "UTC"), pa.date32()])
def test_a_time_that_cannot_be_kept_is_refused(kind: pa.DataType) -> None:
    column = pa.array([2**31 - 1], pa.int32()).cast(pa.int64())
    column = column.cast(pa.int32()).cast(kind) if kind == pa.date32() else pa.array([2**50], kind)
    with pytest.raises(DataError, match="rows: column at does not fit"):
        as_table(pa.table({"at": column}), "rows")
