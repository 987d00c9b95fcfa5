from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from holdtrue.errors import ServingError
from holdtrue.models import from_rows
from holdtrue.models import scores as of_pipeline
from holdtrue.models.compiled import Compiled, NotCompilable, compile_pipeline

ENSEMBLES = [
    ("xgboost.XGBClassifier", "two", {"n_estimators": 20, "max_depth": 4}),
    ("xgboost.XGBClassifier", "three", {"n_estimators": 10, "max_depth": 3}),
    ("xgboost.XGBClassifier", "two", {"booster": "dart", "n_estimators": 10, "rate_drop": 0.3}),
    ("xgboost.XGBClassifier", "two", {"tree_method": "exact", "n_estimators": 10}),
    ("xgboost.XGBRFClassifier", "two", {"n_estimators": 10}),
    ("xgboost.XGBClassifier", "three", {"n_estimators": 2, "gamma": 1e9}),
    ("xgboost.XGBRegressor", "value", {"n_estimators": 20}),
    ("xgboost.XGBRegressor", "value", {"n_estimators": 20, "base_score": 2.5}),
    ("xgboost.XGBRegressor", "value", {"n_estimators": 10, "objective": "count:poisson"}),
    ("xgboost.XGBRegressor", "value", {"n_estimators": 10, "objective": "reg:gamma"}),
    ("xgboost.XGBRegressor", "value", {"n_estimators": 10, "objective": "reg:tweedie"}),
    ("xgboost.XGBRegressor", "value", {"n_estimators": 10, "objective": "reg:absoluteerror"}),
    ("sklearn.ensemble.HistGradientBoostingClassifier", "two", {"max_iter": 20}),
    ("sklearn.ensemble.HistGradientBoostingClassifier", "three", {"max_iter": 10}),
    ("sklearn.ensemble.HistGradientBoostingRegressor", "value", {"max_iter": 20}),
    ("sklearn.ensemble.HistGradientBoostingRegressor", "value", {"max_iter": 9, "loss": "poisson"}),
    ("lightgbm.LGBMClassifier", "two", {"n_estimators": 20}),
    ("lightgbm.LGBMClassifier", "two", {"n_estimators": 9, "sigmoid": 0.7}),
    ("lightgbm.LGBMClassifier", "two", {"n_estimators": 9, "boosting_type": "dart"}),
    (
        "lightgbm.LGBMClassifier",
        "two",
        {"n_estimators": 9, "boosting_type": "rf", "subsample": 0.6, "subsample_freq": 1},
    ),
    ("lightgbm.LGBMClassifier", "three", {"n_estimators": 10}),
    ("lightgbm.LGBMClassifier", "two", {"n_estimators": 5, "min_child_samples": 400}),
    ("lightgbm.LGBMClassifier", "two", {"n_estimators": 9, "use_missing": False}),
    ("lightgbm.LGBMRegressor", "value", {"n_estimators": 20}),
    ("lightgbm.LGBMRegressor", "value", {"n_estimators": 9, "objective": "poisson"}),
    ("lightgbm.LGBMRegressor", "value", {"n_estimators": 9, "objective": "regression_l1"}),
    ("lightgbm.LGBMRegressor", "value", {"n_estimators": 9, "objective": "quantile"}),
    ("sklearn.ensemble.RandomForestClassifier", "two", {"n_estimators": 10}),
    ("sklearn.ensemble.RandomForestClassifier", "three", {"n_estimators": 10}),
    ("sklearn.ensemble.RandomForestRegressor", "value", {"n_estimators": 10}),
    ("sklearn.ensemble.ExtraTreesClassifier", "three", {"n_estimators": 10}),
    ("sklearn.ensemble.ExtraTreesRegressor", "value", {"n_estimators": 10}),
    ("sklearn.ensemble.GradientBoostingClassifier", "two", {"n_estimators": 10}),
    ("sklearn.ensemble.GradientBoostingClassifier", "three", {"n_estimators": 10}),
    (
        "sklearn.ensemble.GradientBoostingClassifier",
        "two",
        {"n_estimators": 10, "loss": "exponential"},
    ),
    ("sklearn.ensemble.GradientBoostingRegressor", "value", {"n_estimators": 10}),
    ("sklearn.tree.DecisionTreeClassifier", "three", {}),
    ("sklearn.tree.DecisionTreeRegressor", "value", {"max_depth": 1}),
]
LINEAR = [
    ("sklearn.linear_model.LogisticRegression", "two", {}),
    ("sklearn.linear_model.LogisticRegression", "three", {"max_iter": 300}),
    ("sklearn.linear_model.SGDClassifier", "two", {"loss": "log_loss"}),
    ("sklearn.linear_model.SGDClassifier", "three", {"loss": "log_loss"}),
    ("sklearn.linear_model.LinearRegression", "value", {}),
    ("sklearn.linear_model.Ridge", "value", {}),
    ("sklearn.linear_model.Lasso", "value", {"alpha": 0.1}),
    ("sklearn.linear_model.ElasticNet", "value", {"alpha": 0.1}),
    ("sklearn.linear_model.HuberRegressor", "value", {"max_iter": 1000}),
    ("sklearn.linear_model.PoissonRegressor", "value", {}),
    ("sklearn.linear_model.TweedieRegressor", "value", {"power": 0}),
]


def named(case: tuple[str, str, dict[str, Any]]) -> str:
    path, task, params = case
    return "-".join([path.rpartition(".")[2], task, *map(str, params.values())])


@pytest.mark.parametrize(
    ("path", "task", "params"), ENSEMBLES + LINEAR, ids=map(named, ENSEMBLES + LINEAR)
)
def test_a_compiled_model_answers_as_the_pipeline(
    case: Any, new_records: list[dict[str, Any]], path: str, task: str, params: dict[str, Any]
) -> None:
    made = case(path, task, **params)
    records = made.records + new_records
    wanted = of_pipeline(made.pipeline, made.signature, from_rows(records, made.signature))
    read = Compiled.read(made.compiled.files(), made.signature)
    matrix = read.encode(records).matrix
    for engine in read.engines or (None,):
        found = read.scores(matrix, engine)
        assert found.shape == wanted.shape
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=2e-7)


@pytest.mark.parametrize(
    ("path", "task", "params"), ENSEMBLES + LINEAR, ids=map(named, ENSEMBLES + LINEAR)
)
def test_a_row_is_answered_to_the_last_bit_as_in_a_batch(
    case: Any, path: str, task: str, params: dict[str, Any]
) -> None:
    made = case(path, task, **params)
    matrix = made.compiled.encode(made.records).matrix
    batch = made.compiled.scores(matrix)
    for row in range(0, len(matrix), 50):
        alone = made.compiled.scores(matrix[row : row + 1])
        assert np.array_equal(alone[0], batch[row])


@pytest.mark.parametrize(
    ("path", "task", "params"), [c for c in ENSEMBLES if c[0].startswith("xgb")], ids=str
)
def test_both_engines_give_the_same_bits(
    case: Any, path: str, task: str, params: dict[str, Any]
) -> None:
    made = case(path, task, **params)
    matrix = made.compiled.encode(made.records).matrix
    assert np.array_equal(
        made.compiled.scores(matrix, "onnx"), made.compiled.scores(matrix, "xgboost")
    )


def test_only_the_rounds_up_to_the_best_one_answer(case: Any) -> None:
    made = case("xgboost.XGBClassifier", "two", n_estimators=20, max_depth=4)
    model = made.pipeline["model"]
    model.get_booster().set_attr(best_iteration="4")
    try:
        compiled = compile_pipeline(made.pipeline, made.signature)
        wanted = made.predict(made.columns)
        matrix = compiled.encode(made.records).matrix
        for engine in compiled.engines:
            np.testing.assert_allclose(compiled.scores(matrix, engine), wanted, atol=2e-7)
        assert len(compiled.trees.roots) == 5
    finally:
        model.get_booster().set_attr(best_iteration=None)


@pytest.mark.parametrize(
    ("path", "task", "params", "reason"),
    [
        ("sklearn.neighbors.KNeighborsClassifier", "two", {}, "has no compiled form"),
        ("sklearn.naive_bayes.GaussianNB", "two", {}, "has no compiled form"),
        ("xgboost.XGBRegressor", "value", {"booster": "gblinear"}, "not made of trees"),
        ("xgboost.XGBRegressor", "value", {"missing": -1.0}, "instead of NaN"),
        ("xgboost.XGBClassifier", "two", {"objective": "binary:hinge"}, "binary:hinge"),
        ("lightgbm.LGBMClassifier", "three", {"objective": "multiclassova"}, "multiclassova"),
        ("lightgbm.LGBMRegressor", "value", {"reg_sqrt": True}, "regression sqrt"),
        ("lightgbm.LGBMClassifier", "two", {"zero_as_missing": True}, "zero_as_missing"),
        ("lightgbm.LGBMRegressor", "value", {"linear_tree": True}, "a linear model in each leaf"),
        ("sklearn.linear_model.SGDClassifier", "two", {"loss": "modified_huber"}, "modified_huber"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_has_no_compiled_form_says_why(
    case: Any, path: str, task: str, params: dict[str, Any], reason: str
) -> None:
    with pytest.raises(NotCompilable, match=reason) as caught:
        case(path, task, **params)
    assert caught.value.reason == str(caught.value)


def test_the_same_model_gives_the_same_files(case: Any) -> None:
    first, second = (
        case("xgboost.XGBClassifier", "three", n_estimators=5).compiled.files() for _ in range(2)
    )
    assert first == second
    assert set(first) == {"scorer.json", "trees.onnx", "model.json"}
    linear = case("sklearn.linear_model.LogisticRegression", "two").compiled.files()
    assert set(linear) == {"scorer.json"}


def test_what_was_read_is_what_was_written(case: Any) -> None:
    for path, task in (
        ("xgboost.XGBClassifier", "three"),
        ("sklearn.linear_model.LogisticRegression", "two"),
    ):
        made = case(path, task)
        files = made.compiled.files()
        assert Compiled.read(files, made.signature).files() == files


@pytest.mark.parametrize("lost", ["scorer.json", "trees.onnx", "model.json"])
def test_a_missing_file_is_named(case: Any, lost: str) -> None:
    made = case("xgboost.XGBClassifier", "two", n_estimators=5)
    files = {name: content for name, content in made.compiled.files().items() if name != lost}
    with pytest.raises(ServingError, match=f"{lost} is missing"):
        Compiled.read(files, made.signature)


def test_an_unknown_format_is_refused(case: Any) -> None:
    made = case("sklearn.linear_model.LogisticRegression", "two")
    written = json.loads(made.compiled.files()["scorer.json"]) | {"format": 99}
    with pytest.raises(ServingError, match="format 99"):
        Compiled.read({"scorer.json": json.dumps(written).encode()}, made.signature)


def test_many_rows_are_given_to_xgboost(case: Any) -> None:
    made = case("xgboost.XGBClassifier", "two", n_estimators=5)
    read = Compiled.read(made.compiled.files(), made.signature, switch_rows=10)
    matrix = read.encode(made.records).matrix
    read.scores(matrix[:9])
    assert read._xgboost is None
    read.scores(matrix[:10])
    assert read._xgboost is not None


def test_numbers_beyond_single_precision_go_where_the_largest_ones_go(case: Any) -> None:
    made = case("xgboost.XGBClassifier", "two", n_estimators=5)
    record = made.records[0]
    large, larger = (
        made.compiled.scores(made.compiled.encode([record | {"number": v}]).matrix)
        for v in (3e38, 1e300)
    )
    assert np.array_equal(large, larger)


def test_no_rows_are_answered_by_no_rows(case: Any) -> None:
    for path in ("xgboost.XGBClassifier", "sklearn.linear_model.LogisticRegression"):
        made = case(path, "two")
        assert made.compiled.scores(made.compiled.encode([]).matrix).shape == (0, 2)


def test_trees_with_too_many_splits_to_prove_are_not_compiled(
    case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = case("xgboost.XGBClassifier", "two", n_estimators=5)
    monkeypatch.setattr("holdtrue.models.compiled._compile.MOST_SPLITS", 10)
    with pytest.raises(NotCompilable, match="splits, and more than 10 take too long to prove"):
        compile_pipeline(made.pipeline, made.signature)
