from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier

from holdtrue.declaration import Candidate
from holdtrue.errors import ConfigError
from holdtrue.models import check_candidate, construct, encoder, encoding, import_object, typed
from holdtrue.models._confusion import ConfusionClassifier
from holdtrue.models._estimator import unwrapped


@pytest.mark.parametrize(
    ("path", "said", "hint"),
    [
        ("no_such_package.Model", "cannot be imported: ModuleNotFoundError", "package.module.name"),
        ("xgboost.XGBClasifier", "xgboost has no XGBClasifier", "did you mean xgboost.XGBClassi"),
        ("sklearn.no.Model", "cannot be imported: ModuleNotFoundError", "package.module.name"),
    ],
)
def test_what_cannot_be_imported(path: str, said: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        import_object(path, "estimator")
    assert hint in (caught.value.hint or "")


def candidate(estimator: str, **rest: Any) -> Candidate:
    return Candidate.model_validate({"estimator": estimator, **rest})


@pytest.mark.parametrize(
    ("estimator", "task"),
    [
        ("xgboost.XGBClassifier", "classification"),
        ("xgboost.XGBRegressor", "regression"),
        ("sklearn.linear_model.LogisticRegression", "classification"),
        ("sklearn.svm.LinearSVC", "classification"),
        ("sklearn.svm.SVC", "classification"),
        ("sklearn.linear_model.Ridge", "regression"),
        ("sklearn.ensemble.HistGradientBoostingClassifier", "classification"),
    ],
)
def test_estimators_that_fit(estimator: str, task: str) -> None:
    check_candidate(candidate(estimator), task)


def test_a_class_that_only_looks_like_an_estimator(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("fit", "predict", "get_params", "set_params")
    bare = type("Bare", (), dict.fromkeys(names, lambda self, *_: self))
    monkeypatch.setitem(sys.modules, "own_models", SimpleNamespace(Bare=bare))
    with pytest.raises(ConfigError, match="is not a scikit-learn compatible") as caught:
        check_candidate(candidate("own_models.Bare"), "regression")
    assert "BaseEstimator" in (caught.value.hint or "")


def own_class(monkeypatch: pytest.MonkeyPatch, bases: tuple[type, ...], *names: str) -> Candidate:
    """A class of the user's own with these methods."""
    made = type("Own", bases, dict.fromkeys(names, lambda self, *_: self))
    made.__module__ = "own_models"
    monkeypatch.setitem(sys.modules, "own_models", SimpleNamespace(Own=made))
    return candidate("own_models.Own")


@pytest.mark.parametrize("name", ["predict", "decision_function", "predict_proba"])
def test_one_kind_of_answer_is_enough_for_a_classifier(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    own = own_class(monkeypatch, (ClassifierMixin, BaseEstimator), "fit", name)
    check_candidate(own, "classification")


@pytest.mark.parametrize(
    ("bases", "names", "said"),
    [
        ((ClassifierMixin, BaseEstimator), ("fit",), "it has no predict$"),
        ((BaseEstimator,), ("fit", "predict"), r"and does not derive from sklearn\.base\.Classif"),
        ((RegressorMixin, BaseEstimator), ("fit", "predict"), "it has no predict_proba and does"),
    ],
)
def test_what_is_no_classifier_needs_probabilities(
    monkeypatch: pytest.MonkeyPatch, bases: tuple[type, ...], names: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=f"own_models.Own does not fit classification: .*{said}"):
        check_candidate(own_class(monkeypatch, bases, *names), "classification")


@pytest.mark.parametrize(
    ("estimator", "params", "wanted"),
    [
        ("sklearn.linear_model.Perceptron", {}, CalibratedClassifierCV),
        ("sklearn.linear_model.SGDClassifier", {}, CalibratedClassifierCV),
        ("sklearn.linear_model.SGDClassifier", {"loss": "log_loss"}, SGDClassifier),
        ("sklearn.svm.SVC", {"C": 2.0}, CalibratedClassifierCV),
        ("sklearn.linear_model.Ridge", {}, Ridge),
    ],
)
def test_what_learns_probabilities_depends_on_the_arguments(
    estimator: str, params: dict[str, Any], wanted: type
) -> None:
    made = construct(estimator, params, seed=0, threads=1)
    assert type(made) is wanted
    assert f"{type(unwrapped(made)).__module__}.".startswith(estimator.rpartition(".")[0])


def test_what_only_predicts_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    own = own_class(monkeypatch, (ClassifierMixin, BaseEstimator), "fit", "predict")
    made = construct(own.estimator, {}, seed=0, threads=1)
    assert isinstance(made, ConfusionClassifier)
    assert type(unwrapped(made)).__name__ == "Own"
    other = own_class(monkeypatch, (BaseEstimator,), "fit", "predict")
    assert type(construct(other.estimator, {}, seed=0, threads=1)).__name__ == "Own"


@pytest.mark.parametrize(
    ("estimator", "task", "said"),
    [
        ("sklearn.linear_model.Ridge", "classification", "it has no predict_proba"),
        ("sklearn.cluster.KMeans", "classification", "it has no predict_proba"),
        ("sklearn.svm.LinearSVC", "regression", "it is a classifier"),
        ("xgboost.XGBClassifier", "regression", "it is a classifier"),
        ("sklearn.linear_model.LogisticRegression", "regression", "it is a classifier"),
        ("sklearn.preprocessing.StandardScaler", "regression", "it has no predict"),
        ("sklearn.pipeline.make_pipeline", "regression", "is not a scikit-learn compatible"),
        ("pathlib.Path", "regression", "is not a scikit-learn compatible"),
        ("os.path", "regression", "is not a scikit-learn compatible"),
    ],
)
def test_estimators_that_do_not_fit(estimator: str, task: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_candidate(candidate(estimator), task)


@pytest.mark.parametrize(
    "rest", [{"params": {"max_dept": 3}}, {"space": {"max_dept": {"int": [1, 3]}}}]
)
def test_an_unknown_parameter_names_the_nearest(rest: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="XGBClassifier has no parameter max_dept") as caught:
        check_candidate(candidate("xgboost.XGBClassifier", **rest), "classification")
    assert caught.value.hint == "did you mean max_depth?"


class Forgetful(LogisticRegression):
    """Says of its parameters only those that were set, as CatBoost's do."""

    def __init__(self, C: float = 1.0, *, strength: float = 1.0) -> None:  # noqa: N803
        super().__init__(C=C)
        self.strength = strength

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {}


def test_what_an_estimator_does_not_say_of_its_parameters_is_in_its_constructor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "own_models", SimpleNamespace(Forgetful=Forgetful))
    path = "own_models.Forgetful"
    assert construct(path, {"strength": 2.0}, seed=0, threads=1).strength == 2.0
    check_candidate(candidate(path, params={"strength": 2.0}), "classification")
    with pytest.raises(ConfigError, match="has no parameter strenght") as caught:
        check_candidate(candidate(path, params={"strenght": 2.0}), "classification")
    assert caught.value.hint == "did you mean strength?"


def test_lightgbm_takes_the_names_of_its_library_too() -> None:
    known = {"num_leaves": 7, "max_bin": 63, "bagging_fraction": 0.5, "extra_trees": True}
    check_candidate(candidate("lightgbm.LGBMClassifier", params=known), "classification")
    with pytest.raises(ConfigError, match="LGBMClassifier has no parameter num_leafs") as caught:
        check_candidate(
            candidate("lightgbm.LGBMClassifier", params={"num_leafs": 7}), "classification"
        )
    assert caught.value.hint in ("did you mean num_leaf?", "did you mean num_leaves?")


def test_lightgbm_is_quiet_and_sums_up_in_one_way_unless_it_is_told_otherwise() -> None:
    made = construct("lightgbm.LGBMClassifier", {}, seed=7, threads=2)
    assert (made.random_state, made.n_jobs) == (7, 2)
    params = made.get_params()
    assert params["deterministic"] is True
    assert params["force_col_wise"] is True
    assert params["verbosity"] == -1
    told = construct("lightgbm.LGBMClassifier", {"force_row_wise": True}, seed=7, threads=2)
    assert "force_col_wise" not in told.get_params()


def test_a_parameter_in_the_wrong_case_is_known() -> None:
    space = {"c": {"float": [0.1, 1]}}
    with pytest.raises(ConfigError, match="has no parameter c") as caught:
        check_candidate(
            candidate("sklearn.linear_model.LogisticRegression", space=space), "classification"
        )
    assert caught.value.hint == "did you mean C?"


def test_seed_and_threads_are_filled_in_where_there_are_such_parameters() -> None:
    boosted = construct("xgboost.XGBClassifier", {"max_depth": 3}, seed=7, threads=2)
    assert (boosted.random_state, boosted.n_jobs, boosted.max_depth) == (7, 2, 3)
    assert construct("xgboost.XGBClassifier", {"n_jobs": 1}, seed=7, threads=2).n_jobs == 1
    assert (
        construct("sklearn.linear_model.LogisticRegression", {}, seed=7, threads=2).n_jobs is None
    )
    assert "alpha" in construct("sklearn.linear_model.Lasso", {}, seed=7, threads=2).get_params()


@pytest.mark.parametrize(
    ("estimator", "wanted"),
    [
        ("xgboost.XGBClassifier", "plain"),
        ("sklearn.ensemble.HistGradientBoostingRegressor", "plain"),
        ("sklearn.linear_model.LogisticRegression", "scaled"),
        ("sklearn.linear_model.Ridge", "scaled"),
    ],
)
def test_features_suit_the_estimator(estimator: str, wanted: str) -> None:
    assert encoding(construct(estimator, {}, seed=0, threads=1)) == wanted


@pytest.mark.parametrize("classes", [None, ("no", "yes"), ("a", "b", "c")])
def test_plain_keeps_numbers_and_encodes_categories_by_the_target(
    rows: pd.DataFrame, make_signature: Any, target: Any, classes: tuple[str, ...] | None
) -> None:
    signature, frame = make_signature(classes), typed(rows, make_signature(classes))
    features = encoder("plain", signature, seed=0).fit(frame, target(classes))
    matrix = np.asarray(features.transform(frame), dtype="float64")
    columns_per_category = 3 if classes is not None and len(classes) > 2 else 1
    assert matrix.shape == (len(rows), 3 + 3 * columns_per_category)
    numbers = frame[["whole", "number", "flag"]].to_numpy()
    np.testing.assert_array_equal(matrix[:, :3], numbers)
    unseen = frame.head(1).assign(text="never seen")
    assert np.isfinite(np.asarray(features.transform(unseen))[0, 3:]).all()


def test_plain_is_cross_fitted_with_the_seed(
    rows: pd.DataFrame, make_signature: Any, target: Any
) -> None:
    classes = ("no", "yes")
    frame, y = typed(rows, make_signature(classes)), target(classes)

    def fitted(seed: int) -> np.ndarray:
        made = encoder("plain", make_signature(classes), seed=seed).fit_transform(frame, y)
        return np.asarray(made, dtype="float64")

    np.testing.assert_array_equal(fitted(0), fitted(0))
    assert not np.array_equal(fitted(0), fitted(1), equal_nan=True)
    whole = encoder("plain", make_signature(classes), seed=0).fit(frame, y).transform(frame)
    assert not np.array_equal(fitted(0), np.asarray(whole, dtype="float64"), equal_nan=True)


def test_scaled_fills_gaps_and_scales(rows: pd.DataFrame, make_signature: Any, target: Any) -> None:
    signature = make_signature(("no", "yes"))
    frame = typed(rows, signature).assign(number=np.nan)  # nothing to fill it with
    features = encoder("scaled", signature, seed=0)
    matrix = features.fit_transform(frame, target(("no", "yes")))
    assert np.isfinite(matrix).all()
    assert np.abs(matrix[:, 0].mean()) < 1e-9
    assert matrix[:, 0].std() == pytest.approx(1)
    assert set(np.unique(matrix[:, 3:])) == {0.0, 1.0}
    unseen = features.transform(frame.head(1).assign(text="never seen"))
    assert np.isfinite(unseen).all()
