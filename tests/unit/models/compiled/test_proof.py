from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from holdtrue.models.compiled import Compiled, Proof, prove
from holdtrue.models.compiled._compiled import NEVER
from holdtrue.models.compiled._encode import Category, Number
from holdtrue.models.compiled._linear import Linear
from holdtrue.models.compiled._onnx import write_onnx
from holdtrue.models.compiled._paths import Walk
from holdtrue.models.compiled._proof import break_even
from holdtrue.times import PARTS

TREES = [
    ("xgboost.XGBClassifier", "two", {"n_estimators": 8, "max_depth": 4}),
    ("xgboost.XGBClassifier", "three", {"n_estimators": 3, "max_depth": 3}),
    ("sklearn.ensemble.HistGradientBoostingClassifier", "two", {"max_iter": 5}),
    ("sklearn.ensemble.HistGradientBoostingRegressor", "value", {"max_iter": 5}),
    ("lightgbm.LGBMClassifier", "two", {"n_estimators": 5}),
    ("lightgbm.LGBMRegressor", "value", {"n_estimators": 5}),
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
    (place,) = (c.at for c in case.compiled.encoder.columns if c.name == "number")
    return splits_on(case, place)


def splits_on(case: Any, place: int) -> list[int]:
    """Splits with two sides that rows of the sample get to and that differ in every leaf."""
    trees, nodes = case.compiled.trees, reached(case)
    found = []
    for node in np.flatnonzero(trees.feature == place).tolist():
        sides = (int(trees.left[node]), int(trees.right[node]))
        left, right = (leaves_below(trees, side) for side in sides)
        if nodes >= {node, *sides} and not left & right:
            found.append(node)
    return found


def leaves_below(trees: Any, node: int) -> set[float]:
    if trees.feature[node] < 0:
        return {float(trees.value[node])}
    sides = (int(trees.left[node]), int(trees.right[node]))
    return set.union(*(leaves_below(trees, side) for side in sides))


def asked_before(trees: Any, node: int, places: range) -> bool:
    """Whether a node above a node asks for one of some places of the matrix."""
    for above in np.flatnonzero(trees.feature >= 0).tolist():
        if node in (trees.left[above], trees.right[above]):
            return trees.feature[above] in places or asked_before(trees, above, places)
    return False


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
        "times",
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


@pytest.mark.parametrize(("path", "task", "params"), TREES[:2], ids=map(named, TREES[:2]))
@pytest.mark.parametrize("part", PARTS)
def test_a_threshold_of_a_time_that_is_moved_is_found(
    case: Any, path: str, task: str, params: dict[str, Any], part: str
) -> None:
    made = case(path, task, **(params | {"n_estimators": 30}))
    (column,) = (c for c in made.compiled.encoder.columns if c.name == "day")
    place = column.at + [each.part for each in column.parts].index(part)
    trees = made.compiled.trees
    # Below a split by another part there may be no moment at the threshold.
    parts = range(column.at, column.at + column.width)
    nodes = [node for node in splits_on(made, place) if not asked_before(trees, node, parts)]
    assert nodes
    for node in nodes[:3]:
        if part == "days":
            changed = moved(trees, node, up=True)
        else:  # between whole numbers one threshold is as good as another
            threshold = trees.threshold.copy()
            threshold[node] += 1
            changed = replace(trees, threshold=threshold)
        assert not proof_of(made, rebuilt(made.compiled, trees=changed)).holds


def test_a_time_that_is_encoded_otherwise_is_found(case: Any) -> None:
    made = case("xgboost.XGBClassifier", "two", n_estimators=30, max_depth=4)
    columns = [*made.compiled.encoder.columns]
    (at,) = (i for i, column in enumerate(columns) if column.name == "day")
    parts = columns[at].parts
    for number, part in enumerate(parts):
        wrong = (*parts[:number], replace(part, mean=1.0), *parts[number + 1 :])
        other = [*columns[:at], replace(columns[at], parts=wrong), *columns[at + 1 :]]
        assert not proof_of(made, rebuilt(made.compiled, columns=other)).holds


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


class Timed:
    """A model of two engines that take as long as they are told, by a clock of its own."""

    engines = ("onnx", "xgboost")

    def __init__(self, seconds: Callable[[str, int], float]) -> None:
        self.seen: list[np.ndarray] = []
        self.now = 0.0
        self._seconds = seconds

    def raw(self, matrix: np.ndarray, engine: str) -> np.ndarray:
        self.seen.append(matrix)
        self.now += self._seconds(engine, len(matrix))
        return matrix


def broken_even(model: Any, n_rows: int, most_rows: int = 256) -> int:
    matrix = np.arange(2.0 * n_rows).reshape(n_rows, 2)
    return break_even(model, matrix, most_rows=most_rows, clock=lambda: model.now)


@pytest.mark.parametrize(
    ("per_call", "rows"), [(0.0, 1), (3.0, 1), (30.0, 8), (60.0, 16), (900.0, 256)]
)
def test_the_break_even_is_where_xgboost_becomes_faster(per_call: float, rows: int) -> None:
    model = Timed(lambda engine, n: 5.0 * n if engine == "onnx" else per_call + n)
    assert broken_even(model, 300) == rows


def test_xgboost_is_never_asked_where_it_is_never_faster(case: Any) -> None:
    assert broken_even(Timed(lambda engine, n: n if engine == "onnx" else 2.0 * n), 300) == NEVER
    linear = case("sklearn.linear_model.LogisticRegression", "two").compiled
    assert break_even(linear, linear.encode([]).matrix) == NEVER
    made = case("xgboost.XGBClassifier", "two", n_estimators=8, max_depth=4)
    model = Compiled.read(made.compiled.files(), made.signature, switch_rows=NEVER)
    model.scores(np.resize(model.encode(made.records).matrix, (5_000, model.width)))
    assert model._xgboost is None


def test_the_break_even_is_measured_on_rows_that_differ() -> None:
    # Rows that are repeated take the same way through the trees, which processors learn.
    model = Timed(lambda engine, n: 5.0 * n if engine == "onnx" else 30.0 + n)
    assert broken_even(model, 300) == 8
    assert max(len(part) for part in model.seen) == 256
    for part in model.seen:
        assert len(np.unique(part, axis=0)) == len(part)
    small = {part.tobytes() for part in model.seen if len(part) == 8}
    assert len(small) > 3


def test_too_few_rows_say_nothing_about_many() -> None:
    for n_rows in (1, 10, 200):
        model = Timed(lambda engine, n: n if engine == "onnx" else 100.0 * n)
        assert broken_even(model, n_rows) == max(64, 256 if n_rows == 200 else 0)
        assert max(len(part) for part in model.seen) <= n_rows


def test_a_moment_in_which_the_machine_was_busy_does_not_move_the_break_even() -> None:
    calls = itertools.count()

    def seconds(engine: str, n: int) -> float:
        busy = 10_000.0 if next(calls) % 6 == 0 else 0.0
        return busy + (5.0 * n if engine == "onnx" else 30.0 + n)

    assert broken_even(Timed(seconds), 300) == 8


def test_the_break_even_of_a_real_model(case: Any) -> None:
    made = case("xgboost.XGBClassifier", "two", n_estimators=8, max_depth=4)
    matrix = made.compiled.encode(made.records).matrix
    assert break_even(made.compiled, matrix, most_rows=16) in (1, 2, 4, 8, 16, NEVER)


ODD = [("inf", math.inf), ("-inf", -math.inf), ("nan", math.nan)]


@pytest.mark.parametrize(("said", "odd"), ODD, ids=[said for said, _ in ODD])
@pytest.mark.parametrize("way", ["encode", "encode_columns"])
def test_a_model_that_takes_what_is_not_finite_is_found(
    case: Any, monkeypatch: pytest.MonkeyPatch, way: str, said: str, odd: float
) -> None:
    made = case("xgboost.XGBClassifier", "two", n_estimators=8, max_depth=4)
    strict = getattr(Compiled, way)

    def known(value: Any) -> Any:
        return None if isinstance(value, float) and str(value) == said else value

    def lenient(self: Compiled, given: Any, *more: Any) -> Any:
        if isinstance(given, list):
            cleaned: Any = [{name: known(value) for name, value in row.items()} for row in given]
        else:
            cleaned = {name: [*map(known, values)] for name, values in given.items()}
        return strict(self, cleaned, *more)

    monkeypatch.setattr(Compiled, way, lenient)
    proof = proof_of(made)
    assert not proof.holds
    assert proof.reason == f"column level takes {said}"
    assert proof.max_difference <= 1e-6  # nothing else is wrong with it


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("matrix", "rows and columns with the same values are encoded differently"),
        ("unknown", "unknown categories are counted differently in rows and in columns"),
    ],
)
def test_columns_that_are_encoded_otherwise_than_rows_are_found(
    case: Any, monkeypatch: pytest.MonkeyPatch, part: str, said: str
) -> None:
    made = case("xgboost.XGBClassifier", "two", n_estimators=8, max_depth=4)
    right = Compiled.encode_columns

    def off(self: Compiled, columns: Any, n_rows: int) -> Any:
        found = right(self, columns, n_rows)
        if part == "unknown":
            return replace(found, unknown={"text": 1})
        # The last bit of one value: no answer need change by it.
        found.matrix[-1, 0] = np.nextafter(found.matrix[-1, 0], np.inf)
        return found

    monkeypatch.setattr(Compiled, "encode_columns", off)
    proof = proof_of(made)
    assert not proof.holds
    assert proof.reason == said
