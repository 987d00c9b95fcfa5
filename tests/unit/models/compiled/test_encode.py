from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.errors import ValueProblem
from holdtrue.models import Signature, from_rows
from holdtrue.models.compiled import problems
from holdtrue.models.compiled._encode import Encoder, Number
from holdtrue.times import count_of

OUTSIDE = "a time outside of these years"
PLAIN = "sklearn.ensemble.HistGradientBoostingClassifier"
SCALED = "sklearn.linear_model.LogisticRegression"
FEW = {"max_iter": 3}

KINDS: dict[str, Any] = {
    "whole": st.integers(-(10**18), 10**18) | st.integers(-50, 50).map(float),
    "number": st.floats(-1e9, 1e9) | st.integers(-100, 100),
    "flag": st.booleans(),
    "text": st.text(max_size=3) | st.sampled_from(["a", "b", "é", "rare", "(missing)"]),
    "code": st.integers(-3, 10) | st.sampled_from([1.0, 2.0, 10**30]),
    "level": st.sampled_from([1.0, 1, 2, 2.5, -0.0, 0, 1e300]),
    "mark": st.booleans(),
    "day": st.datetimes(
        datetime(1678, 1, 3),  # noqa: DTZ001 - zones are given beside
        datetime(2261, 12, 29),  # noqa: DTZ001
        timezones=st.none() | st.timezones() | st.just(UTC),
    ).map(datetime.isoformat),
}
RECORDS = st.lists(
    st.fixed_dictionaries({name: st.none() | kind for name, kind in KINDS.items()}),
    min_size=1,
    max_size=5,
)


def encoded(case: Any, records: list[dict[str, Any]]) -> np.ndarray:
    """What the pipeline's own transformers make of records."""
    return np.asarray(case.pipeline["features"].transform(from_rows(records, case.signature)))


@pytest.mark.parametrize("task", ["two", "three", "value"])
@pytest.mark.parametrize("estimator", ["tree", "linear"])
def test_rows_are_encoded_to_the_last_bit_as_by_the_pipeline(
    case: Any, new_records: list[dict[str, Any]], task: str, estimator: str
) -> None:
    kind = "Regressor" if task == "value" else "Classifier"
    path = {
        "tree": f"sklearn.tree.DecisionTree{kind}",
        "linear": f"sklearn.ensemble.GradientBoosting{kind}",
    }[estimator]
    made = case(path, task, max_depth=2)
    wanted = encoded(made, new_records)
    assert np.array_equal(made.compiled.encode(new_records).matrix, wanted, equal_nan=True)


@pytest.mark.parametrize("path", [PLAIN, SCALED])
@given(records=RECORDS)
@settings(max_examples=60)
def test_any_acceptable_rows_are_encoded_as_by_the_pipeline(
    case: Any, path: str, records: list[dict[str, Any]]
) -> None:
    made = case(path, "three", max_iter=50)
    by_row = made.compiled.encode(records)
    assert np.array_equal(by_row.matrix, encoded(made, records), equal_nan=True)
    columns = {name: [record[name] for record in records] for name in records[0]}
    by_column = made.compiled.encode_columns(columns, len(records))
    assert np.array_equal(by_column.matrix, by_row.matrix, equal_nan=True)
    assert by_column.unknown == by_row.unknown


def test_unknown_categories_are_counted_by_column(
    case: Any, new_records: list[dict[str, Any]]
) -> None:
    made = case(SCALED, "two", max_iter=50)
    unknown = made.compiled.encode(new_records).unknown
    assert unknown == {"text": 60, "code": 60, "level": 60}
    assert made.compiled.encode(made.records).unknown == {}


def test_a_rare_category_is_known_and_shares_the_place_of_the_others(case: Any) -> None:
    made = case(SCALED, "two", max_iter=50)
    base = dict(made.records[0])
    rare, new = (made.compiled.encode([base | {"text": text}]) for text in ("rare", "new"))
    assert np.array_equal(rare.matrix, new.matrix)
    assert rare.unknown == {}
    assert new.unknown == {"text": 1}


def test_a_null_is_the_missing_category(case: Any) -> None:
    made = case(PLAIN, "two", **FEW)
    base = dict(made.records[0])
    null, named = (made.compiled.encode([base | {"text": v}]) for v in (None, "(missing)"))
    assert np.array_equal(null.matrix, named.matrix, equal_nan=True)


WRONG = [
    ("whole", 1.5, "a fraction"),
    ("whole", "1", "str"),
    ("whole", True, "true or false"),
    ("whole", 10**400, "int"),
    ("whole", math.inf, "inf"),
    ("number", math.nan, "nan"),
    ("number", -math.inf, "-inf"),
    ("number", [1], "list"),
    ("number", False, "true or false"),
    ("flag", 1, "int"),
    ("text", 1, "int"),
    ("text", {"a": 1}, "dict"),
    ("code", 10**400, "int"),
    ("code", 2.5, "a fraction"),
    ("code", "1", "str"),
    ("level", math.inf, "inf"),
    ("level", math.nan, "nan"),
    ("mark", 0, "int"),
    ("day", 20240101, "int"),
    ("day", True, "true or false"),
    ("day", "", "other text"),
    ("day", "today", "other text"),
    ("day", "2024-02-30", "other text"),
    ("day", "2024-01-01T10:00:61", "other text"),
    ("day", "\ud800", "other text"),
    ("day", "1677-12-31T23:59:59.999999Z", OUTSIDE),
    ("day", "1678-01-01T00:00:00+00:01", OUTSIDE),
    ("day", "2262-01-01", OUTSIDE),
    ("day", "0001-01-01T00:00:00+14:00", OUTSIDE),
    ("day", "9999-12-31T23:59:59-14:00", OUTSIDE),
]


@pytest.mark.parametrize(("column", "value", "found"), WRONG)
def test_values_are_refused_in_rows_and_in_columns(
    case: Any, column: str, value: Any, found: str
) -> None:
    made = case(PLAIN, "two", **FEW)
    records = [dict(made.records[0]), made.records[1] | {column: value}]
    columns = {name: [record[name] for record in records] for name in records[0]}
    for refused in (
        lambda: made.compiled.encode(records),
        lambda: made.compiled.encode_columns(columns, 2),
        lambda: from_rows(records, made.signature),
    ):
        with pytest.raises(ValueProblem) as caught:
            refused()
        problem = caught.value
        assert (problem.row, problem.column, problem.found) == (1, column, found)
        assert problem.expected.endswith("or null")
    (only,) = problems(columns, 2, made.signature)
    assert (only.row, only.column, only.found) == (1, column, found)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"extra": 1}, "row 1: has columns that the model does not know: extra"),
        ({"whole": ...}, "row 1: lacks whole"),
        ({"whole": ..., "extra": 1}, "row 1: lacks whole and has columns .*: extra"),
    ],
)
def test_other_columns_are_refused(case: Any, change: dict[str, Any], said: str) -> None:
    made = case(PLAIN, "two", **FEW)
    changed = {k: v for k, v in (made.records[1] | change).items() if v is not ...}
    with pytest.raises(ValueProblem, match=said) as caught:
        made.compiled.encode([made.records[0], changed])
    assert caught.value.column is None
    assert caught.value.hint == f"expected exactly: {', '.join(made.signature.columns)}"


def test_a_number_that_the_scale_takes_beyond_all_floats_is_refused() -> None:
    signature = Signature(
        target="y", task="regression", classes=None, columns={"x": "number"}, categorical=()
    )
    encoder = Encoder(signature, [Number("x", "number", 0, 0.0, mean=1.0, scale=0.5)])
    for refused in (
        lambda: encoder.rows([{"x": 1.0}, {"x": 1.7e308}]),
        lambda: encoder.columns_of({"x": [1.0, 1.7e308]}, 2),
    ):
        with pytest.raises(ValueProblem, match=r"row 1, column x: .* a number that is too large"):
            refused()
    assert [problem.row for problem in encoder.problems({"x": [1.7e308, 1.0]}, 2)] == [0]


def test_arrays_and_masked_arrays_are_taken_like_lists(case: Any) -> None:
    made = case(PLAIN, "two", **FEW)
    records = [dict(record) for record in made.records[:50]]
    for record in records:
        record["text"] = record["text"] or "a"
    columns = {name: [record[name] for record in records] for name in records[0]}
    wanted = made.compiled.encode(records)
    empty = {"whole": 0, "number": 0.0, "flag": False, "code": 0, "level": 0.0, "mark": False}
    arrays: dict[str, Any] = {"text": np.array(columns["text"])}
    arrays["day"] = np.array(
        [np.datetime64("NaT") if t is None else count_of(t) for t in columns["day"]], "M8[us]"
    )
    for name, filler in empty.items():
        values = np.array([filler if v is None else v for v in columns[name]])
        arrays[name] = np.ma.array(values, mask=[v is None for v in columns[name]])
    found = made.compiled.encode_columns(arrays, 50)
    assert np.array_equal(found.matrix, wanted.matrix, equal_nan=True)
    assert found.unknown == wanted.unknown


@pytest.mark.parametrize("dtype", ["int8", "uint32", "int64", "float32", "float64"])
def test_numbers_of_any_width_are_taken(case: Any, dtype: str) -> None:
    made = case(PLAIN, "two", **FEW)
    base = dict(made.records[0])
    columns: dict[str, Any] = {name: [value] * 3 for name, value in base.items()}
    for name in ("whole", "number", "code", "level"):
        columns[name] = np.array([1, 2, 3], dtype)
    rows = [base | {"whole": i, "number": i, "code": i, "level": i} for i in (1, 2, 3)]
    found = made.compiled.encode_columns(columns, 3)
    wanted = made.compiled.encode(rows)
    assert np.array_equal(found.matrix, wanted.matrix, equal_nan=True)


@pytest.mark.parametrize(
    ("column", "values", "row", "found"),
    [
        ("number", np.array([1.0, np.nan]), 1, "nan"),
        ("whole", np.array([1.5, 1.0]), 0, "a fraction"),
        ("whole", np.array([True, False]), 0, "true or false"),
        ("flag", np.array([1, 0]), 0, "int"),
        ("text", np.array([b"a", b"b"]), 0, "bytes"),
        ("code", np.array([1.0, np.inf]), 1, "inf"),
        ("number", np.array(["1", "2"]), 0, "str"),
        ("number", [None, float("nan")], 1, "nan"),
        ("day", np.array(["2024-01-01", "2300-01-01"], "M8[us]"), 1, OUTSIDE),
        ("day", np.array([1.0, 2.0]), 0, "a fraction"),
        ("number", np.array(["2024-01-01"] * 2, "M8[us]"), 0, "datetime"),
        ("number", [1.0], 1, "1 values"),
    ],
    ids=repr,
)
def test_columns_that_are_refused(
    case: Any, column: str, values: Any, row: int, found: str
) -> None:
    made = case(PLAIN, "two", **FEW)
    columns = {name: [value] * 2 for name, value in made.records[0].items()} | {column: values}
    with pytest.raises(ValueProblem) as caught:
        made.compiled.encode_columns(columns, 2)
    assert (caught.value.row, caught.value.column, caught.value.found) == (row, column, found)


def test_all_problems_of_columns_are_named_in_the_order_of_the_rows(case: Any) -> None:
    made = case(PLAIN, "two", **FEW)
    columns = {name: [value] * 4 for name, value in made.records[0].items()}
    columns["whole"] = [1, "x", 2, True]
    columns["text"] = [3, "a", None, "b"]
    found = made.compiled.problems(columns, 4)
    assert [(problem.row, problem.column) for problem in found] == [
        (0, "text"),
        (1, "whole"),
        (3, "whole"),
    ]
    assert made.compiled.problems({n: [v] for n, v in made.records[0].items()}, 1) == []


def test_no_rows_are_encoded_to_an_empty_matrix(case: Any) -> None:
    made = case(PLAIN, "two", **FEW)
    assert made.compiled.encode([]).matrix.shape == (0, made.compiled.width)
    empty = {name: [] for name in made.signature.columns}
    assert made.compiled.encode_columns(empty, 0).matrix.shape == (0, made.compiled.width)


def test_times_that_are_refused_are_all_named(case: Any) -> None:
    made = case(PLAIN, "two", **FEW)
    columns = {name: [value] * 4 for name, value in made.records[0].items()}
    texts = [None, "2300-01-01", "never", "1678-01-01"]
    found = made.compiled.problems(columns | {"day": texts}, 4)
    assert [(p.row, p.column, p.found) for p in found] == [
        (1, "day", OUTSIDE),
        (2, "day", "other text"),
    ]
    moments = np.ma.array(
        np.array(["2300-01-01", "1500-01-01", "2300-01-01", "2024-01-01"], "M8[us]"),
        mask=[True, False, False, False],
    )
    found = made.compiled.problems(columns | {"day": moments}, 4)
    assert [problem.row for problem in found] == [1, 2]
