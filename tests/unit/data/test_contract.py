from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from holdtrue.data import (
    as_frame,
    as_table,
    broken_contract,
    check_frame,
    class_names,
    refuse_unusable,
    take_snapshot,
    write_check,
)
from holdtrue.data._contract import Checked
from holdtrue.data._kinds import kinds_of
from holdtrue.declaration import Declaration
from holdtrue.errors import DataError
from holdtrue.references import Finding
from holdtrue.store import Store

Declare = Callable[..., Declaration]
N = 400


@pytest.fixture
def frame() -> pd.DataFrame:
    chance = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id": np.arange(N),
            "size": chance.integers(1, 100, N),
            "weight": chance.normal(size=N),
            "color": chance.choice(["red", "green", "blue"], N),
            "y": chance.integers(0, 2, N),
        }
    )


def check(declaration: Declaration, frame: pd.DataFrame) -> Checked:
    table = as_table(frame, "rows")
    kinds = kinds_of(table)
    return check_frame(declaration, as_frame(table, kinds), kinds)


def finding(checked: Checked, rule: str) -> Finding:
    return next(found for found in checked.findings if found.rule == rule)


def contract(declare: Declare, columns: dict[str, Any] | None = None, **rest: Any) -> Declaration:
    return declare(data={"key": ["id"], "contract": {"columns": columns or {}, **rest}})


def test_good_rows_pass(declare: Declare, frame: pd.DataFrame) -> None:
    checked = check(contract(declare), frame)
    assert [found for found in checked.findings if not found.passed] == []
    assert (len(checked.kept), len(checked.quarantined), checked.unlabelled) == (N, 0, 0)
    assert checked.numeric == ("size", "weight")
    assert checked.categorical == ("color",)
    assert checked.classes == ("0", "1")
    assert set(checked.kept["y"]) == {"0", "1"}


@pytest.mark.parametrize(
    ("column", "rule", "bad", "said"),
    [
        ("size", {"min": 1}, -5, "size: at least 1"),
        ("size", {"max": 100}, 101, "size: at most 100"),
        ("weight", {"min": -50.5}, -51.0, "weight: at least -50.5"),
        (
            "color",
            {"allowed": ["red", "green", "blue"]},
            "pink",
            "color: one of the allowed values",
        ),
        ("size", {"allowed": list(range(1, 100))}, 7_000, "size: one of the allowed values"),
        ("id", {"unique": True}, 3, "id: unique"),
    ],
)
def test_rows_that_break_a_rule_are_set_aside(
    declare: Declare, frame: pd.DataFrame, column: str, rule: dict[str, Any], bad: Any, said: str
) -> None:
    frame.loc[10, column] = bad
    checked = check(contract(declare, {column: rule}), frame)
    assert checked.quarantined["reason"].tolist() == [said]
    assert checked.quarantined["y"].tolist() == [frame["y"][10]]
    assert len(checked.kept) == N - 1
    assert 10 not in checked.kept["id"].tolist()
    found = finding(checked, said)
    assert (found.passed, found.blocking, found.rows) == (False, False, 1)
    assert found.detail == "1 of 400 rows"
    assert finding(checked, "at most 1% of the rows set aside").passed


def test_too_many_rows_set_aside_stop_the_training(declare: Declare, frame: pd.DataFrame) -> None:
    frame.loc[:9, "size"] = -1
    checked = check(contract(declare, {"size": {"min": 0}}, quarantine="2%"), frame)
    found = finding(checked, "at most 2% of the rows set aside")
    assert (found.passed, found.blocking, found.rows) == (False, True, 10)
    assert found.detail == "10 of 400 rows (2.5%), 10 of them break size: at least 0"


def test_a_row_is_set_aside_once_for_the_first_reason(
    declare: Declare, frame: pd.DataFrame
) -> None:
    frame.loc[10, ["size", "weight"]] = [-1, 99.0]
    checked = check(contract(declare, {"size": {"min": 0}, "weight": {"max": 9}}), frame)
    assert checked.quarantined["reason"].tolist() == ["size: at least 0"]
    assert finding(checked, "weight: at most 9").rows == 1


def test_a_key_that_occurs_twice_is_set_aside(declare: Declare, frame: pd.DataFrame) -> None:
    frame.loc[10, "id"] = 9
    checked = check(contract(declare), frame)
    assert checked.quarantined["reason"].tolist() == ["key id: unique"]
    assert checked.quarantined.index.tolist() == [10]


@pytest.mark.parametrize(
    ("column", "rule", "said", "detail"),
    [
        ("size", {"type": "string"}, "size: type string", "it is integer"),
        ("color", {"type": "integer"}, "color: type integer", "it is string"),
        ("weight", {"missing": "1%"}, "weight: at most 1% missing", "2.5% missing"),
        ("color", {"min": 1}, "color: at least 1", "it is string"),
    ],
)
def test_rules_about_columns_stop_the_training(
    declare: Declare, frame: pd.DataFrame, column: str, rule: dict[str, Any], said: str, detail: str
) -> None:
    frame.loc[:9, "weight"] = np.nan
    checked = check(contract(declare, {column: rule}), frame)
    found = finding(checked, said)
    assert (found.passed, found.blocking, found.detail) == (False, True, detail)
    assert len(checked.kept) == N


def test_whole_numbers_are_numbers(declare: Declare, frame: pd.DataFrame) -> None:
    checked = check(contract(declare, {"size": {"type": "number", "missing": "2%"}}), frame)
    assert all(found.passed for found in checked.findings)


@pytest.mark.parametrize(
    ("bounds", "rule", "passed"),
    [
        ({"min": 400}, "at least 400 rows", True),
        ({"min": 401}, "at least 401 rows", False),
        ({"max": 400}, "at most 400 rows", True),
        ({"max": 399}, "at most 399 rows", False),
    ],
)
def test_the_number_of_rows(
    declare: Declare, frame: pd.DataFrame, bounds: dict[str, int], rule: str, passed: bool
) -> None:
    found = finding(check(contract(declare, rows=bounds), frame), rule)
    assert (found.passed, found.blocking) == (passed, True)
    assert (found.rows, found.detail) == (0, "400 rows")  # no row of them is at fault


def test_missing_values_are_no_breach_of_a_range(declare: Declare, frame: pd.DataFrame) -> None:
    frame.loc[:3, "weight"] = np.nan
    frame.loc[:3, "color"] = None
    rules = {"weight": {"min": -9, "max": 9}, "color": {"allowed": ["red", "green", "blue"]}}
    assert len(check(contract(declare, rules), frame).quarantined) == 0


def test_infinite_numbers_are_set_aside(declare: Declare, frame: pd.DataFrame) -> None:
    frame.loc[3, "weight"] = -np.inf
    checked = check(contract(declare), frame)
    assert checked.quarantined["reason"].tolist() == ["weight: finite"]


def test_rows_without_a_label_are_not_kept(declare: Declare, frame: pd.DataFrame) -> None:
    frame["y"] = frame["y"].astype("float64")
    frame.loc[:4, "y"] = np.nan
    checked = check(contract(declare), frame)
    assert (checked.unlabelled, len(checked.kept)) == (5, N - 5)
    assert checked.classes == ("0", "1")  # 1.0 is the class 1


@pytest.mark.parametrize(
    ("change", "rule", "detail"),
    [
        (
            lambda f: f.assign(weight=f["weight"].where(f["id"] % 10 != 0, -999)),
            "weight: no stand-in for missing",
            "-999 stands far from the other values and is frequent",
        ),
        (lambda f: f.assign(color="red"), "features: none constant", "color"),
        (lambda f: f.assign(weight=np.nan), "features: none constant", "weight"),
    ],
)
def test_what_looks_odd_is_a_warning(
    declare: Declare, frame: pd.DataFrame, change: Any, rule: str, detail: str
) -> None:
    found = finding(check(contract(declare), change(frame)), rule)
    assert (found.passed, found.blocking, found.detail) == (False, False, detail)


def test_equal_rows_are_a_warning(declare: Declare, frame: pd.DataFrame) -> None:
    doubled = pd.concat([frame, frame.iloc[:3]], ignore_index=True)
    found = finding(check(declare(), doubled), "rows: no exact duplicates")
    assert (found.passed, found.blocking, found.rows) == (False, False, 3)


def test_a_rare_or_near_value_is_no_stand_in(declare: Declare, frame: pd.DataFrame) -> None:
    frame.loc[:200, "size"] = 99  # frequent, but among the others
    frame.loc[0, "weight"] = -999  # far, but rare
    rules = [found.rule for found in check(contract(declare), frame).findings]
    assert not [rule for rule in rules if "stand-in" in rule]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_feature_that_gives_the_target_away_stops_the_training(
    declare: Declare, frame: pd.DataFrame, sign: int
) -> None:
    frame["weight"] = frame["y"] * sign * 10.0 + frame["weight"]
    found = finding(check(contract(declare), frame), "features: none gives the target away")
    assert (found.passed, found.blocking) == (False, True)
    assert found.detail.startswith("weight alone orders the target with an area of 1.0000")


def test_a_good_feature_is_no_leak(declare: Declare, frame: pd.DataFrame) -> None:
    frame["weight"] = frame["y"] * 2.0 + frame["weight"]
    assert finding(check(contract(declare), frame), "features: none gives the target away").passed


@pytest.mark.parametrize(
    ("target", "passed", "detail"),
    [
        (["a"] * 200 + ["b"] * 200, True, "2 classes, the rarest with 200 rows"),
        (["a"] * 391 + ["b"] * 9, False, "2 classes, the rarest with 9 rows"),
        ([f"c{i % 101}" for i in range(N)], False, "101 classes, the rarest with 3 rows"),
    ],
)
def test_classes_are_neither_rare_nor_many(
    declare: Declare, frame: pd.DataFrame, target: list[str], passed: bool, detail: str
) -> None:
    checked = check(contract(declare), frame.assign(y=target))
    found = finding(checked, "y: 2 to 100 classes of at least 10 rows")
    assert (found.passed, found.blocking, found.detail) == (passed, True, detail)


def test_one_class_left_after_the_quarantine_is_a_breach(
    declare: Declare, frame: pd.DataFrame
) -> None:
    frame["size"] = np.where(frame["y"] == 1, -1, 5)
    checked = check(contract(declare, {"size": {"min": 0}}, quarantine=1.0), frame)
    found = finding(checked, "y: 2 to 100 classes of at least 10 rows")
    assert (found.passed, found.detail) == (False, "every row is 0: there is nothing to learn")


UNUSABLE = [
    (lambda f: f.iloc[:0], "the source has no rows"),
    (lambda f: f.assign(y=1), "data.target: y is 1 in every row"),
    (lambda f: f.assign(y=None), "data.target: no row has a value of y"),
    (lambda f: f.drop(columns="y").rename(columns={"id": "yy"}), r"data.target: y is not a column"),
    (lambda f: f.rename(columns={"id": "idx"}), r"data.key\[0\]: id .* \(did you mean idx\?\)"),
]


@pytest.mark.parametrize(("change", "said"), UNUSABLE)
def test_rows_that_nothing_can_be_learnt_from_are_refused(
    declare: Declare, frame: pd.DataFrame, change: Any, said: str
) -> None:
    changed = change(frame)
    with pytest.raises(DataError, match=said):
        check(contract(declare), changed)
    with pytest.raises(DataError, match=said):
        refuse_unusable(contract(declare), as_table(changed, "rows"))


def test_no_rows_are_told_by_what_gave_none(declare: Declare, frame: pd.DataFrame) -> None:
    """A window is spoken of where there is one."""
    source = {"source": {"step": "cleaned"}}
    for time, said, hint in (
        (None, "the step cleaned gave no rows", "see what the step cleaned reads and keeps"),
        ("at", "the step cleaned gave no rows in the window", "look at data.window, data.as_of"),
    ):
        declaration = declare(data={**source, "time": time}, steps={"cleaned": {"run": "a.b"}})
        with pytest.raises(DataError) as caught:
            check(declaration, frame.iloc[:0])
        assert caught.value.message == f"data.source: {said}"
        assert (caught.value.hint or "").startswith(hint)


def test_usable_rows_are_not_refused(declare: Declare, frame: pd.DataFrame) -> None:
    refuse_unusable(contract(declare), as_table(frame, "rows"))
    same = declare(task="regression")
    refuse_unusable(same, as_table(frame.assign(y=1.5), "rows"))


def test_every_missing_column_is_named_with_its_place(
    declare: Declare, frame: pd.DataFrame
) -> None:
    declaration = declare(
        data={"target": "yy", "key": ["idd"], "contract": {"columns": {"siz": {"min": 0}}}},
        features={"numeric": ["wait"], "categorical": ["colour"], "temporal": ["att"]},
        evaluate={"slices": ["shape"]},
    )
    with pytest.raises(DataError) as caught:
        check(declaration, frame)
    for said in (
        "data.target: yy is not a column of the data",
        "data.key[0]: idd is not a column of the data (did you mean id?)",
        "data.contract.columns.siz: siz is not a column of the data (did you mean size?)",
        "features.numeric[0]: wait is not a column of the data",
        "features.categorical[0]: colour is not a column of the data (did you mean color?)",
        "features.temporal[0]: att is not a column of the data",
        "evaluate.slices[0]: shape is not a column of the data",
    ):
        assert said in caught.value.message
    assert caught.value.hint == "columns: id, size, weight, color, y"


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({"numeric": ["color"]}, r"features.numeric\[0\]: color holds string values"),
        ({"categorical": ["at"]}, r"features.categorical\[0\]: at holds time values"),
        ({"temporal": ["color"]}, r"features.temporal\[0\]: color holds string values"),
        ({"exclude": ["size", "weight", "color", "id", "at"]}, "no column is left"),
        ({"exclude": ["colour"]}, r"features.exclude\[0\]: colour is not a column"),
    ],
)
def test_features_that_are_none(
    declare: Declare, frame: pd.DataFrame, features: dict[str, Any], said: str
) -> None:
    frame["at"] = pd.date_range("2024-01-01", periods=N)
    with pytest.raises(DataError, match=said):
        check(declare(features=features), frame)


def test_names_are_no_categories(declare: Declare) -> None:
    frame = pd.DataFrame({"name": [f"n{i}" for i in range(1_001)], "x": range(1_001)})
    frame["y"] = frame["x"] % 2
    assert check(declare(), frame).categorical == ()


def test_regression_needs_numbers(declare: Declare, frame: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="color holds string values, regression needs numbers"):
        check(declare(task="regression", data={"target": "color"}), frame)
    checked = check(declare(task="regression", data={"target": "weight"}), frame)
    assert checked.classes is None
    assert checked.kept["weight"].dtype == "float64"


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([1.0, 0.0, np.nan], ["1", "0", None]),
        ([0.5, 1.0], ["0.5", "1.0"]),
        ([1.0, np.inf], ["1.0", "inf"]),
        ([True, False], ["True", "False"]),
        (pd.array([3, None], dtype="Int64"), ["3", None]),
        (["a", None], ["a", None]),
    ],
)
def test_class_names(values: Any, wanted: list[str | None]) -> None:
    names = class_names(pd.Series(values))
    assert [None if pd.isna(name) else name for name in names] == wanted


def test_what_was_found_is_kept(declare: Declare, frame: pd.DataFrame, store: Store) -> None:
    frame.loc[10, "size"] = -1
    declaration = contract(declare, {"size": {"min": 0}})
    table = as_table(frame, "rows")
    snapshot = take_snapshot(store, "small", table, None, None)
    kept = write_check(store, "data/checks/1", snapshot, check(declaration, frame))
    assert kept.broken == ()
    assert (kept.rows, kept.kept_rows, kept.quarantined, kept.unlabelled) == (N, N - 1, 1, 0)
    assert len(pd.read_parquet(store.path(kept.kept))) == N - 1
    assert pd.read_parquet(store.path(kept.quarantine or ""))["reason"].tolist() == [
        "size: at least 0"
    ]
    clean = write_check(store, "data/checks/2", snapshot, check(contract(declare), frame))
    assert clean.quarantine is None


def test_a_broken_contract_names_every_rule(
    declare: Declare, frame: pd.DataFrame, store: Store
) -> None:
    declaration = contract(declare, {"color": {"type": "integer"}}, rows={"min": 500})
    snapshot = take_snapshot(store, "small", as_table(frame, "rows"), None, None)
    kept = write_check(store, "data/checks/1", snapshot, check(declaration, frame))
    said = str(broken_contract(kept, Path("data.html")))
    assert "type integer: it is string; at least 500 rows: 400 rows" in said
    assert said.endswith("all findings: data.html")


def test_rows_without_a_time_are_set_aside(declare: Declare, frame: pd.DataFrame) -> None:
    frame["at"] = pd.date_range("2024-01-01", periods=N, tz="UTC")
    frame.loc[[3, 5], "at"] = pd.NaT
    checked = check(declare(data={"time": "at"}), frame)
    assert checked.quarantined["reason"].tolist() == ["at: a time in every row"] * 2
    assert len(checked.kept) == N - 2
    assert checked.asked["at"].notna().all()


def test_arrow_and_pandas_are_checked_alike(declare: Declare, frame: pd.DataFrame) -> None:
    arrow = as_table(pa.Table.from_pandas(frame), "rows")
    checked = check_frame(contract(declare), as_frame(arrow, kinds_of(arrow)), kinds_of(arrow))
    assert checked.findings == check(contract(declare), frame).findings


def test_times_are_features(declare: Declare, frame: pd.DataFrame, store: Store) -> None:
    frame["at"] = pd.date_range("2024-01-01", periods=N, tz="Europe/Berlin")
    frame["due"] = [day.date() for day in pd.date_range("2025-01-01", periods=N)]
    inferred = check(declare(data={"time": "at"}), frame)
    assert inferred.temporal == ("due",)
    # The time of the event is one where it is named.
    declaration = declare(data={"time": "at"}, features={"temporal": ["at", "due"]})
    checked = check(declaration, frame)
    assert (checked.numeric, checked.categorical) == ((), ())
    assert checked.temporal == ("at", "due")
    assert [*checked.asked] == ["at", "due"]
    snapshot = take_snapshot(store, "small", as_table(frame, "rows"), None, None)
    assert write_check(store, "checks", snapshot, checked).temporal == ("at", "due")


def test_times_that_no_request_may_have_are_set_aside(
    declare: Declare, frame: pd.DataFrame
) -> None:
    frame["due"] = pd.Series([pd.Timestamp("2025-01-01")] * N, dtype="datetime64[us]")
    years = [1677, 1678, 2261, 2262, 9999]
    frame["due"] = frame["due"].where(frame.index >= 5, pd.NaT)
    for row, year in enumerate(years):
        frame.loc[row, "due"] = pd.Timestamp(year, 6, 1)
    checked = check(declare(), frame)
    assert checked.quarantined["due"].dt.year.tolist() == [1677, 2262, 9999]
    assert set(checked.quarantined["reason"]) == {"due: from 1678 to 2261"}


def test_a_time_that_gives_the_target_away_is_found(declare: Declare, frame: pd.DataFrame) -> None:
    start = pd.Timestamp("2024-01-01", tz="UTC")
    frame["closed"] = start + pd.to_timedelta(frame["y"] * 100 + frame["weight"], unit="D")
    checked = check(declare(), frame)
    assert not finding(checked, "features: none gives the target away").passed


def test_classes_that_came_late_are_told(declare: Declare, frame: pd.DataFrame) -> None:
    at = pd.date_range("2024-01-01", periods=N, freq="h", tz="UTC")
    late = frame.assign(at=at, y=frame["y"].astype(str))
    late.loc[late.index[350::3], "y"] = "new"
    declaration = declare(data={"time": "at"})
    checked = check(declaration, late)
    assert {name: (new.rows, new.since) for name, new in checked.new_classes.items()} == {
        "new": (17, at[350].to_pydatetime())
    }
    found = finding(checked, "y: no class is new")
    assert (found.passed, found.blocking, found.rows) == (False, False, 17)
    assert found.detail.startswith("new is in 17 rows, the first of 2024-01-15 14:00 UTC")
    known = check(declaration, late.assign(y=np.where(late["y"] == "new", "0", late["y"])))
    assert finding(known, "y: no class is new").passed
    assert check(declare(), late).new_classes == {}


def test_rows_of_a_class_with_too_few_are_set_aside_where_two_have_enough(
    declare: Declare, frame: pd.DataFrame
) -> None:
    y = ["a", None] * 100 + ["b"] * 198 + ["c"] * 2
    checked = check(declare(), frame.assign(y=y))
    rule = "y: a class of at least 10 rows"
    assert (checked.classes, len(checked.kept), checked.unlabelled) == (("a", "b"), 298, 100)
    assert checked.quarantined["reason"].tolist() == [rule] * 2
    assert (finding(checked, rule).rows, finding(checked, rule).blocking) == (2, False)
    # More of them than may be set aside break the contract, as other rows do.
    many = check(declare(), frame.assign(y=["a"] * 200 + ["b"] * 191 + ["c"] * 9))
    broken = [found.detail for found in many.findings if found.blocking and not found.passed]
    assert f"9 of 400 rows (2.25%), 9 of them break {rule}" in broken


def test_amounts_are_no_classes(declare: Declare, frame: pd.DataFrame) -> None:
    found = check(declare(), frame.assign(y=[0.5] * 20 + [1.5] * 20 + [*frame["weight"][40:]]))
    (said,) = (one.detail for one in found.findings if "set aside" in one.rule)
    assert said.endswith("most values have fewer: if it is an amount, declare task: regression")


DERIVE = {
    "density": "weight / size",
    "shade": "color + '-' + text(size // 50)",
    "heavy": "density > 0",
    "half": "size / 2",
}


def test_what_is_derived_is_known_by_kind_and_use(declare: Declare, frame: pd.DataFrame) -> None:
    found = check(
        declare(
            features={
                "numeric": ["size"],
                "categorical": ["heavy"],
                "exclude": ["half"],
                "derive": DERIVE,
            }
        ),
        frame,
    )
    assert (found.numeric, found.categorical, found.temporal) == (("size",), (), ())
    assert found.inputs == {"weight": "number", "color": "string"}
    assert [(one.name, one.kind, one.used) for one in found.derived] == [
        ("density", "number", "numeric"),
        ("shade", "string", "categorical"),
        ("heavy", "number", "categorical"),
        ("half", "number", None),
    ]
    assert list(found.asked) == ["size", "weight", "color"]


def test_features_found_by_type_are_joined_by_what_is_derived(
    declare: Declare, frame: pd.DataFrame
) -> None:
    found = check(
        declare(features={"exclude": ["color", "id"], "derive": {"shade": "lower(color)"}}), frame
    )
    assert (found.numeric, found.categorical) == (("size", "weight"), ())
    assert found.inputs == {"color": "string"}


def test_infinite_numbers_that_only_expressions_take_are_set_aside(
    declare: Declare, frame: pd.DataFrame
) -> None:
    frame.loc[3, "weight"] = np.inf
    declared = declare(features={"numeric": ["size"], "derive": {"double": "2 * weight"}})
    assert len(check(declared, frame).quarantined) == 1


@pytest.mark.parametrize(
    ("derive", "said"),
    [
        ({"size": "weight * 2"}, "features.derive.size: size is a column of the data"),
        (
            {"odd": "color * 2"},
            r"features.derive.odd: color \* 2 cannot be computed: text \* a number is not known",
        ),
        ({"odd": "sise * 2"}, "there is no column sise in the data; did you mean size"),
        ({"odd": "day(weight)"}, r"day\(...\) takes a time, not a number"),
    ],
)
def test_expressions_that_do_not_fit_the_data_are_refused(
    declare: Declare, frame: pd.DataFrame, derive: dict[str, str], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        check(declare(features={"derive": derive}), frame)


def test_what_is_derived_is_held_against_the_built_in_checks(
    declare: Declare, frame: pd.DataFrame
) -> None:
    frame["code"] = "n" + frame["y"].astype(str)
    found = check(
        declare(
            features={
                "numeric": ["size"],
                "derive": {
                    "never": "number(color)",
                    "told": "number(code[1:])",
                    "some": "size / 2 if weight > 0 else None",
                },
            }
        ),
        frame,
    )
    assert finding(found, "features: none constant").detail == "never"
    leak = finding(found, "features: none gives the target away")
    assert leak.blocking
    assert "told alone orders the target" in leak.detail
    assert found.derived_missing["never"] == 1.0
    assert found.derived_missing["some"] == pytest.approx((frame["weight"] <= 0).mean())
