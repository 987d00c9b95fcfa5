from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest

from holdtrue.errors import ServingError, ValueProblem
from holdtrue.models import MISSING, Signature, from_columns, from_rows, typed


def test_a_request_is_the_row_of_the_training(
    rows: pd.DataFrame, records: list[dict[str, Any]], make_signature: Any
) -> None:
    signature = make_signature(None)
    pd.testing.assert_frame_equal(typed(rows, signature), from_rows(records, signature))


def test_what_the_pipeline_is_given(rows: pd.DataFrame, make_signature: Any) -> None:
    frame = typed(rows, make_signature(None))
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        "whole": "float64",
        "number": "float64",
        "flag": "float64",
        "text": "object",
        "code": "object",
        "level": "object",
    }
    assert set(frame["text"]) == {"a", "b", "é", MISSING}
    assert set(frame["code"]) == {"1", "2", "3", MISSING}
    assert set(frame["level"]) == {"1.0", "2.0", "2.5", MISSING}
    assert frame["flag"].dropna().isin([0.0, 1.0]).all()
    assert frame["whole"].isna().sum() == rows["whole"].isna().sum() > 0


def one(kind: Any, *, category: bool = False) -> Signature:
    return Signature(
        target="y",
        task="regression",
        classes=None,
        columns={"x": kind},
        categorical=("x",) if category else (),
    )


@pytest.mark.parametrize(
    ("kind", "category", "value", "wanted"),
    [
        ("integer", False, 3, 3.0),
        ("integer", False, 3.0, 3.0),
        ("integer", True, 3.0, "3"),
        ("number", False, 3, 3.0),
        ("number", True, 3, "3.0"),
        ("number", True, -0.5, "-0.5"),
        ("boolean", False, True, 1.0),
        ("boolean", True, True, "True"),
        ("string", True, "3", "3"),
        ("string", True, None, MISSING),
        ("string", True, "", ""),
    ],
)
def test_values_that_are_taken(kind: str, category: bool, value: Any, wanted: Any) -> None:
    assert from_rows([{"x": value}], one(kind, category=category))["x"].tolist() == [wanted]


@pytest.mark.parametrize("kind", ["integer", "number", "boolean"])
def test_null_is_missing(kind: str) -> None:
    assert np.isnan(from_rows([{"x": None}], one(kind))["x"][0])


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("integer", 1.5, "expected a whole number or null, got a fraction"),
        ("integer", "1", "expected a whole number or null, got str"),
        ("integer", True, "expected a whole number or null, got true or false"),
        ("integer", 10**400, "expected a whole number or null, got int"),
        ("integer", float("inf"), "expected a whole number or null, got inf"),
        ("number", float("nan"), "expected a finite number or null, got nan"),
        ("number", "nan", "expected a finite number or null, got str"),
        ("number", [1], "expected a finite number or null, got list"),
        ("number", True, "expected a finite number or null, got true or false"),
        ("boolean", 1, "expected true, false or null, got int"),
        ("boolean", "true", "expected true, false or null, got str"),
        ("string", 1, "expected text or null, got int"),
        ("string", {"a": 1}, "expected text or null, got dict"),
    ],
)
def test_values_that_are_refused(kind: str, value: Any, said: str) -> None:
    signature = one(kind, category=kind == "string")
    with pytest.raises(ServingError, match=f"row 1, column x: {said}"):
        from_rows([{"x": None}, {"x": value}], signature)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "row 0: lacks x"),
        ({"x": 1, "z": 2}, "row 0: has columns that the model does not know: z"),
        ({"z": 2}, "row 0: lacks x and has columns that the model does not know: z"),
    ],
)
def test_columns_that_are_refused(row: dict[str, Any], said: str) -> None:
    with pytest.raises(ServingError, match=said) as caught:
        from_rows([row], one("number"))
    assert caught.value.hint == "expected exactly: x"


def test_columns_are_taken_like_rows(records: list[dict[str, Any]], make_signature: Any) -> None:
    signature = make_signature(None)
    lists = {name: [record[name] for record in records] for name in signature.columns}
    wanted = from_rows(records, signature)
    pd.testing.assert_frame_equal(from_columns(lists, signature), wanted)
    arrays: dict[str, Any] = dict(lists)
    arrays["number"] = np.ma.array(
        [value or 0.0 for value in lists["number"]],
        mask=[value is None for value in lists["number"]],
    )
    arrays["text"] = np.array(lists["text"], object)
    pd.testing.assert_frame_equal(from_columns(arrays, signature), wanted)


def test_zero_is_one_category_whatever_its_sign() -> None:
    signature = one("number", category=True)
    rows = from_rows([{"x": -0.0}, {"x": 0.0}, {"x": 0}], signature)
    table = typed(pd.DataFrame({"x": [-0.0, 0.0, 0.0]}), signature)
    assert rows["x"].tolist() == table["x"].tolist() == ["0.0"] * 3


def test_a_problem_crosses_processes_whole() -> None:
    with pytest.raises(ValueProblem) as caught:
        from_rows([{"x": None}, {"x": "1"}], one("number"))
    back = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes
    assert (back.row, back.column, back.found, back.expected) == (
        1,
        "x",
        "str",
        "a finite number or null",
    )
    assert str(back) == str(caught.value)
