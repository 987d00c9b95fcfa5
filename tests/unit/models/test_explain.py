from __future__ import annotations

from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.errors import ServingError
from holdtrue.models import pipeline, typed, write_bundle
from holdtrue.models._answering import Answering
from holdtrue.models._calibration import Calibration, Sigmoid
from holdtrue.models._explain import contributions, prepare, why_columns
from holdtrue.models._fit import sample_of
from holdtrue.models._served import ServedModel
from holdtrue.models.compiled._contributions import TreeExplainer
from holdtrue.models.compiled._trees import Tree, ensemble

TWO, THREE = ("no", "yes"), ("a", "b", "c")
XGBOOST = {"n_estimators": 20, "max_depth": 4}
MODELS: list[Any] = [
    pytest.param(path, params, classes, unit, id=f"{path.rpartition('.')[2]}-{len(classes or ())}")
    for path, params, classes, unit in (
        ("xgboost.XGBClassifier", XGBOOST, TWO, "log-odds"),
        ("xgboost.XGBClassifier", XGBOOST, THREE, "log-odds"),
        ("xgboost.XGBClassifier", XGBOOST | {"booster": "dart", "rate_drop": 0.5}, TWO, "log-odds"),
        ("xgboost.XGBRegressor", XGBOOST, None, "y"),
        ("xgboost.XGBRegressor", XGBOOST | {"objective": "reg:gamma"}, None, "log of y"),
        ("sklearn.linear_model.LogisticRegression", {}, TWO, "log-odds"),
        ("sklearn.linear_model.LogisticRegression", {}, THREE, "log-odds"),
        ("sklearn.linear_model.Ridge", {}, None, "y"),
        ("sklearn.ensemble.RandomForestClassifier", {"n_estimators": 7}, TWO, "probability"),
        ("sklearn.ensemble.RandomForestClassifier", {"n_estimators": 7}, THREE, "probability"),
        ("sklearn.ensemble.ExtraTreesRegressor", {"n_estimators": 5}, None, "y"),
        ("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 9}, THREE, "log-odds"),
        ("sklearn.ensemble.HistGradientBoostingRegressor", {"max_iter": 9}, None, "y"),
        ("lightgbm.LGBMClassifier", {"n_estimators": 9}, TWO, "log-odds"),
        ("lightgbm.LGBMClassifier", {"n_estimators": 9}, THREE, "log-odds"),
        ("lightgbm.LGBMRegressor", {"n_estimators": 9}, None, "y"),
        ("sklearn.ensemble.GradientBoostingClassifier", {"n_estimators": 9}, THREE, "log-odds"),
        ("sklearn.tree.DecisionTreeClassifier", {"max_depth": 4}, TWO, "probability"),
    )
]


@pytest.fixture
def served(tmp_path, rows, make_signature, target):
    """Fit, write and load a model, and give it with its training rows as records."""

    def make(path, params, classes, answering=None):
        signature = make_signature(classes)
        values = target(classes)
        if params.get("objective") == "reg:gamma":
            values = np.abs(values) + 0.1
        frame = typed(rows, signature)
        model = pipeline(path, params, signature, seed=0, threads=1).fit(frame, values)
        sample = sample_of(rows, signature)
        digest = write_bundle(
            *(tmp_path / "bundle", model, signature),
            estimator=path,
            params=params,
            sample=sample,
            answering=answering,
        )
        return ServedModel.load(tmp_path / "bundle", digest), model, frame, sample

    return make


def link_inverse(model: ServedModel, unit: str, answers: np.ndarray) -> np.ndarray:
    """The score in the unit of its explanation, up to what a softmax cannot know."""
    if unit == "log-odds":
        logs = np.log(answers)
        return logs[:, [1]] - logs[:, [0]] if answers.shape[1] == 2 else logs
    if unit == "probability":
        return answers[:, [1]] if answers.shape[1] == 2 else answers
    return np.log(answers)[:, None] if unit == "log of y" else answers[:, None]


@pytest.mark.parametrize(("path", "params", "classes", "unit"), MODELS)
def test_contributions_add_up_to_the_score(served, path, params, classes, unit):
    model, _, _, sample = served(path, params, classes)
    found = contributions(model, model.encode(sample))
    assert found.unit == unit
    assert found.columns == tuple(model.signature.columns)
    n_outputs = len(classes) if classes and len(classes) > 2 else 1
    assert found.values.shape == (len(sample), len(found.columns), n_outputs)
    assert found.base.shape == (len(sample), n_outputs)
    answers = model.raw(model.encode(sample))
    want, got = link_inverse(model, unit, answers), found.scores
    if n_outputs > 1 and unit == "log-odds":
        want = want - want.mean(axis=1, keepdims=True)
        got = got - got.mean(axis=1, keepdims=True)
    assert np.abs(got - want).max() < 2e-6 * max(1, np.abs(want).max())
    for number in range(len(sample)):
        said = found.row(number)
        each = said.get("classes", {"": said}).values()
        for one in each:
            assert one["base"] + sum(one["contributions"].values()) == pytest.approx(
                one["score"], abs=1e-9
            )


@pytest.mark.parametrize("classes", [TWO, THREE, None], ids=["two", "three", "values"])
def test_trees_are_explained_as_by_xgboost_itself(served, classes):
    import xgboost

    name = "XGBRegressor" if classes is None else "XGBClassifier"
    model, pipe, frame, _ = served(f"xgboost.{name}", {"n_estimators": 60, "max_depth": 5}, classes)
    encoded = pipe["features"].transform(frame).astype("float32")
    booster = pipe["model"].get_booster()
    theirs = booster.predict(xgboost.DMatrix(encoded), pred_contribs=True)
    theirs = theirs.reshape(len(frame), -1, encoded.shape[1] + 1).transpose(0, 2, 1)
    from holdtrue.models.compiled._contributions import _read_booster

    explainer = TreeExplainer(*_read_booster(bytes(booster.save_raw("json"))))
    ours = explainer(encoded.astype("float64"), np.arange(encoded.shape[1]))
    assert np.abs(ours - theirs[:, :-1]).max() < 1e-5
    assert np.abs(explainer.base - theirs[:, -1]).max() < 1e-5
    # And those of the places of one column, summed.
    assert model.scorer.width >= len(model.signature.columns)


def grow(chance: np.random.Generator, n_features: int, depth: int) -> tuple[Tree, np.ndarray]:
    """A random tree that may ask for a feature twice on one way, and its cover."""
    feature, left, right, value, cover = [], [], [], [], []

    def node(level: int, weight: float) -> int:
        number = len(feature)
        split = level < depth and chance.random() < 0.8
        for values, new in (
            (feature, int(chance.integers(n_features)) if split else -1),
            *((children, -1) for children in (left, right)),
            (value, 0.0 if split else chance.normal()),
            (cover, weight),
        ):
            values.append(new)
        if split:
            share = chance.uniform(0.1, 0.9)
            left[number] = node(level + 1, weight * share)
            right[number] = node(level + 1, weight * (1 - share))
        return number

    node(0, 100.0)
    n_nodes = len(feature)
    tree = Tree(
        feature=np.array(feature),
        threshold=np.round(chance.normal(size=n_nodes), 1),
        left=np.array(left),
        right=np.array(right),
        missing_left=chance.random(n_nodes) < 0.5,
        value=np.array(value),
    )
    return tree, np.array(cover)


def expected(tree: Tree, cover: np.ndarray, row: np.ndarray, known: frozenset[int]) -> float:
    """The mean of a tree's leaves where only some features are known, by its definition."""

    def below(node: int) -> float:
        asked = tree.feature[node]
        if asked < 0:
            return tree.value[node]
        sides = (tree.left[node], tree.right[node])
        if asked not in known:
            return sum(below(side) * cover[side] / cover[node] for side in sides)
        x = row[asked]
        goes_left = tree.missing_left[node] if np.isnan(x) else x <= tree.threshold[node]
        return below(sides[0] if goes_left else sides[1])

    return below(0)


@pytest.mark.parametrize("classes", [TWO, THREE, None])
def test_trees_of_lightgbm_are_explained_as_by_lightgbm_itself(served, classes):
    path = "lightgbm.LGBMRegressor" if classes is None else "lightgbm.LGBMClassifier"
    model, fitted, frame, sample = served(path, {"n_estimators": 9}, classes)
    encoded = np.asarray(fitted["features"].transform(frame))[: len(sample)]
    found = contributions(model, model.encode(sample))
    wanted = fitted["model"].booster_.predict(encoded, pred_contrib=True)
    by_place = wanted.reshape(len(sample), len(found.outputs), -1)
    assert np.allclose(found.base, by_place[:, :, -1], atol=1e-9)
    # Of a class of several a category has a place for each.
    columns = model.scorer.encoder.columns
    for number, column in enumerate(found.columns):
        at = next((one.at, one.width) for one in columns if one.name == column)
        shares = by_place[:, :, at[0] : at[0] + at[1]].sum(axis=2)
        assert np.allclose(found.values[:, number], shares, atol=1e-9), column


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), depth=st.integers(0, 6))
def test_contributions_are_shapley_values_by_their_definition(seed, depth):
    chance = np.random.default_rng(seed)
    n = 4
    grown = [grow(chance, n, depth) for _ in range(2)]
    trees = ensemble(
        [tree for tree, _ in grown], [0.5], strict=False, single=False, single_inputs=False
    )
    rows = chance.normal(size=(3, n))
    rows[chance.random(rows.shape) < 0.2] = np.nan
    explainer = TreeExplainer(trees, np.concatenate([cover for _, cover in grown]))
    found = explainer(rows, np.arange(n))[:, :, 0]

    def worth(row: np.ndarray, known: tuple[int, ...]) -> float:
        return sum(expected(*one, row, frozenset(known)) for one in grown)

    for row, values in zip(rows, found, strict=True):
        for feature in range(n):
            others = [f for f in range(n) if f != feature]
            want = sum(
                factorial(size)
                * factorial(n - size - 1)
                / factorial(n)
                * (worth(row, (*known, feature)) - worth(row, known))
                for size in range(n)
                for known in combinations(others, size)
            )
            assert values[feature] == pytest.approx(want, abs=1e-9)
    assert explainer.base[0] == pytest.approx(0.5 + worth(rows[0], ()), abs=1e-9)


def test_a_column_of_several_places_gets_their_sum():
    tree = Tree(
        feature=np.array([0, -1, 1, -1, -1]),
        threshold=np.array([0.5, 0, 0.5, 0, 0]),
        left=np.array([1, -1, 3, -1, -1]),
        right=np.array([2, -1, 4, -1, -1]),
        missing_left=np.zeros(5, bool),
        value=np.array([0.0, 1.0, 0.0, 2.0, 4.0]),
    )
    trees = ensemble([tree], [0.0], strict=False, single=False, single_inputs=False)
    explainer = TreeExplainer(trees, np.array([4.0, 2.0, 2.0, 1.0, 1.0]))
    row = np.array([[1.0, 1.0]])
    apart = explainer(row, np.array([0, 1]))
    together = explainer(row, np.array([0, 0]))
    assert together[0, 0, 0] == pytest.approx(apart.sum())
    assert together.shape == (1, 1, 1)


def test_where_probabilities_are_calibrated_it_says_that_it_explains_what_was_before(served):
    calibration = Calibration(method="sigmoid", curves=(Sigmoid(a=-2.0, b=0.3),), rows=10)
    answering = Answering(calibration=calibration)
    model, _, _, sample = served("xgboost.XGBClassifier", XGBOOST, TWO, answering)
    rows = model.encode(sample)
    said = contributions(model, rows).row(0)
    assert said["explains"] == "score before calibration"
    assert said["class"] == "yes"
    before = 1 / (1 + np.exp(-said["score"]))
    assert before == pytest.approx(model.raw(rows)[0, 1], abs=1e-6)
    assert before != pytest.approx(model.predict(rows)[0, 1], abs=1e-3)


def test_columns_of_a_table_explain_the_class_that_was_decided(served):
    model, _, _, sample = served("xgboost.XGBClassifier", XGBOOST, THREE)
    rows = model.encode(sample)
    found = contributions(model, rows)
    decided = model.answering.decide(model.predict(rows))
    columns = why_columns(found, decided)
    assert [*columns] == [
        *(f"why_{name}" for name in model.signature.columns),
        "explained_base",
        "explained_score",
    ]
    for number, index in enumerate(decided):
        row = found.row(number)["classes"][THREE[index]]
        assert columns["explained_score"][number] == row["score"]
        assert columns["why_text"][number] == row["contributions"]["text"]


def test_a_row_is_explained_the_same_alone_and_among_others(served):
    model, _, _, sample = served("xgboost.XGBRegressor", XGBOOST, None)
    together = contributions(model, model.encode(sample)).values
    alone = [contributions(model, model.encode([row])).values for row in sample]
    assert np.array_equal(together, np.concatenate(alone))


def test_what_is_not_compiled_is_not_explained(served):
    model, _, _, _ = served("sklearn.naive_bayes.GaussianNB", {}, TWO)
    with pytest.raises(ServingError, match="cannot be explained, for it is not compiled"):
        prepare(model)
