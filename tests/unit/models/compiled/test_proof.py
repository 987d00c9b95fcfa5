from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from holdtrue.models.compiled import Compiled, Proof, prove
from holdtrue.models.compiled._encode import Category, Number
from holdtrue.models.compiled._linear import Linear
from holdtrue.models.compiled._onnx import write_onnx
from holdtrue.models.compiled._paths import Walk
from holdtrue.models.compiled._proof import break_even

TREES = [
    ("xgboost.XGBClassifier", "two", {"n_estimators": 8, "max_depth": 4}),
    ("xgboost.XGBClassifier", "three", {"n_estimators": 3, "max_depth": 3}),
    ("sklearn.ensemble.HistGradientBoostingClassifier", "two", {"max_iter": 5}),
    ("sklearn.ensemble.HistGradientBoostingRegressor", "value", {"max_iter": 5}),
    ("sklearn.ensemble.RandomForestClassifier", "three", {"n_estimators": 3, "max_depth": 5}),
    ("sklearn.ensemble.GradientBoostingRegressor", "value", {"n_estimators": 5}),
]


def named(case: tuple[str, str, dict[str, Any]]) -> str:
    return f"{case[0].rpartition('.')[2]}-{case[1]}"


def proof_of(case: Any, compiled: Compiled | None = None, **options: Any) -> Proof:
    return prove(compiled or case.compiled, case.predict, case.columns, **options)


def rebuilt(
    compiled: Compiled, *, trees: Any = None, columns: Any = None, linear: Any = None
) -> Compiled:
    """The same model with a part exchanged."""
    written = trees or compiled.trees
    return Compiled(
        compiled.signature,
        columns or compiled.encoder.columns,
        compiled.link,
        linear or compiled.linear or write_onnx(written, compiled.width),
        divisor=compiled.divisor,
        single=compiled.single,
        single_inputs=compiled.single_inputs,
        booster=compiled.booster,
        rounds=compiled.rounds,
        trees=compiled.trees,
    )


def reached(case: Any) -> set[int]:
    """Nodes that rows of the sample get to."""
    trees, found = case.compiled.trees, set()
    matrix = case.compiled.encode(case.records).matrix
    for root in trees.roots.tolist():
        at = np.full(len(matrix), root)
        found.add(root)
        while (trees.feature[at] >= 0).any():
            for node in np.unique(at[trees.feature[at] >= 0]).tolist():
                rows = at == node
                left = trees.goes_left(matrix[rows, trees.feature[node]], node)
                at[rows] = np.where(left, trees.left[node], trees.right[node])
            found.update(at.tolist())
    return found


def splits_on_number(case: Any) -> list[int]:
    """Splits with two sides that rows of the sample get to and that differ."""
    trees, nodes = case.compiled.trees, reached(case)
    (place,) = (c.at for c in case.compiled.encoder.columns if c.name == "number")
    found = []
    for node in np.flatnonzero(trees.feature == place).tolist():
        sides = (trees.left[node], trees.right[node])
        leaves = [float(trees.value[side]) for side in sides if trees.feature[side] < 0]
        if nodes >= {node, *sides} and len(set(leaves)) == len(leaves):
            found.append(node)
    return found


def moved(trees: Any, node: int, *, up: bool) -> Any:
    """The same trees with one threshold at its neighbour among the values that it is held against.

    scikit-learn's forests have thresholds between two of them.
    """
    dtype = np.float32 if trees.single_inputs else np.float64
    end = dtype(np.inf)
    threshold = trees.threshold.copy()
    last = dtype(threshold[node])
    if last > threshold[node]:
        last = np.nextafter(last, -end)
    threshold[node] = np.nextafter(last, end if up else -end)
    return replace(trees, threshold=threshold)


@pytest.mark.parametrize(("path", "task", "params"), TREES, ids=map(named, TREES))
def test_a_compiled_model_is_proven(
    case: Any, path: str, task: str, params: dict[str, Any]
) -> None:
    made = case(path, task, **params)
    proof = proof_of(made)
    assert proof.holds
    assert proof.reason is None
    assert proof.max_difference <= 2e-7
    assert proof.splits == made.compiled.trees.n_splits > 0
    assert proof.split_rows >= 2 * (proof.splits - proof.unreachable)
    assert proof.rows > len(made.records) + proof.split_rows
    assert set(proof.differences) == {
        "sample",
        "nulls",
        "categories",
        "unseen categories",
        "far numbers",
        "splits",
    }
    assert proof.identical


@pytest.mark.parametrize("task", ["two", "three"])
def test_a_linear_model_is_proven(case: Any, task: str) -> None:
    proof = proof_of(case("sklearn.linear_model.LogisticRegression", task, max_iter=300))
    assert proof.holds
    assert (proof.splits, proof.split_rows) == (0, 0)
    assert proof.max_difference <= 1e-12


@pytest.mark.parametrize(("path", "task", "params"), TREES, ids=map(named, TREES))
@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_threshold_that_is_moved_to_its_neighbour_is_found(
    case: Any, path: str, task: str, params: dict[str, Any], up: bool
) -> None:
    made = case(path, task, **params)
    nodes = splits_on_number(made)
    assert nodes
    for node in nodes[:: max(1, len(nodes) // 4)]:
        trees = moved(made.compiled.trees, node, up=up)
        proof = proof_of(made, rebuilt(made.compiled, trees=trees))
        assert not proof.holds
        assert proof.differences["splits"] > 1e-6
        assert proof.reason is not None
        assert "differ from the pipeline's" in proof.reason


@pytest.mark.parametrize(("path", "task", "params"), TREES, ids=map(named, TREES))
def test_a_leaf_that_is_changed_is_found(
    case: Any, path: str, task: str, params: dict[str, Any]
) -> None:
    made = case(path, task, **params)
    trees = made.compiled.trees
    leaf = max(node for node in reached(made) if trees.feature[node] < 0)
    value = trees.value.copy()
    value[leaf] += 1e-3 * max(1.0, abs(value[leaf]))
    assert not proof_of(made, rebuilt(made.compiled, trees=replace(trees, value=value))).holds


@pytest.mark.parametrize(("path", "task", "params"), TREES[:4], ids=map(named, TREES[:4]))
def test_a_side_for_missing_values_that_is_changed_is_found(
    case: Any, path: str, task: str, params: dict[str, Any]
) -> None:
    made = case(path, task, **params)
    trees = made.compiled.trees
    missing_left = trees.missing_left.copy()
    missing_left[splits_on_number(made)[0]] ^= True
    changed = rebuilt(made.compiled, trees=replace(trees, missing_left=missing_left))
    assert not proof_of(made, changed).holds


@pytest.mark.parametrize(
    "path",
    ["sklearn.linear_model.LogisticRegression", "sklearn.ensemble.GradientBoostingClassifier"],
)
@pytest.mark.parametrize("part", ["mean", "scale", "missing"])
def test_a_scaling_that_is_changed_is_found(case: Any, path: str, part: str) -> None:
    made = case(path, "two")
    columns = [
        replace(column, **{part: getattr(column, part) + 0.01})
        if isinstance(column, Number) and column.name == "number"
        else column
        for column in made.compiled.encoder.columns
    ]
    assert not proof_of(made, rebuilt(made.compiled, columns=columns)).holds


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("sklearn.linear_model.LogisticRegression", 0),
        ("sklearn.linear_model.LogisticRegression", -1),
        ("xgboost.XGBClassifier", 0),
        ("xgboost.XGBClassifier", -1),
    ],
)
def test_a_category_that_is_changed_is_found(case: Any, path: str, code: int) -> None:
    made = case(path, "two")
    columns = []
    for column in made.compiled.encoder.columns:
        if isinstance(column, Category) and column.name == "text":
            values = list(column.values)
            values[code] = tuple(value + 0.5 for value in values[code])
            columns.append(replace(column, values=tuple(values)))
        else:
            columns.append(column)
    assert not proof_of(made, rebuilt(made.compiled, columns=columns)).holds


def test_a_coefficient_that_is_changed_is_found(case: Any) -> None:
    made = case("sklearn.linear_model.LogisticRegression", "three", max_iter=300)
    linear = made.compiled.linear
    coefficients = linear.coefficients.copy()
    coefficients[1, 2] += 1e-4
    changed = rebuilt(made.compiled, linear=Linear(coefficients, linear.intercepts))
    assert not proof_of(made, changed).holds


def test_answers_are_compared_after_calibration(case: Any) -> None:
    made = case("sklearn.linear_model.LogisticRegression", "two")
    linear = made.compiled.linear
    changed = rebuilt(made.compiled, linear=Linear(linear.coefficients, linear.intercepts + 1e-7))
    assert proof_of(made, changed).holds
    assert not proof_of(made, changed, calibrated=lambda scores: scores * 1000).holds


def test_an_answer_that_is_not_a_number_is_found(case: Any) -> None:
    made = case("sklearn.linear_model.LogisticRegression", "two")
    linear = made.compiled.linear
    broken = rebuilt(made.compiled, linear=Linear(linear.coefficients, linear.intercepts * np.nan))
    with pytest.raises(ValueError, match="JSON"):
        broken.files()
    proof = proof_of(made, calibrated=lambda scores: np.where(scores > 0.5, np.nan, scores))
    assert not proof.holds
    assert proof.max_difference == float("inf")


@pytest.mark.parametrize(("path", "task", "params"), TREES, ids=map(named, TREES))
def test_every_split_that_can_be_reached_is_reached_from_both_sides(
    case: Any, path: str, task: str, params: dict[str, Any]
) -> None:
    made = case(path, task, **params)
    trees = made.compiled.trees
    walk = Walk(made.compiled, trees, made.columns, len(made.records))
    sides: dict[int, set[bool]] = {}
    for columns in walk.batches(500):
        n_rows = len(columns["text"])
        matrix = made.compiled.encode_columns(columns, n_rows).matrix
        for root in trees.roots.tolist():
            at = np.full(n_rows, root)
            while True:
                inner = trees.feature[at] >= 0
                if not inner.any():
                    break
                for node in np.unique(at[inner]).tolist():
                    rows = at == node
                    left = trees.goes_left(matrix[rows, trees.feature[node]], node)
                    sides.setdefault(node, set()).update(left.tolist())
                    at[rows] = np.where(left, trees.left[node], trees.right[node])
    splits = set(np.flatnonzero(trees.feature >= 0).tolist())
    assert len(splits - set(sides)) <= walk.reached.unreachable
    assert sum(len(found) == 1 for found in sides.values()) <= walk.reached.one_sided
    # Of numbers all can be reached that are not below one that cannot; encodings by the target
    # are another matter: those of the training were made with a part of the rows each.
    assert walk.reached.unreachable + walk.reached.one_sided <= 0.4 * len(splits)


def test_the_break_even_is_a_number_of_rows(case: Any) -> None:
    made = case("xgboost.XGBClassifier", "two", n_estimators=8, max_depth=4)
    matrix = made.compiled.encode(made.records[:10]).matrix
    assert break_even(made.compiled, matrix, most_rows=16) in (1, 2, 4, 8, 16, 32)
    linear = case("sklearn.linear_model.LogisticRegression", "two").compiled
    assert break_even(linear, linear.encode(made.records[:1]).matrix, most_rows=16) == 32
