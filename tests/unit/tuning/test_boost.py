from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier

from holdtrue.models import construct
from holdtrue.tuning import _boost
from holdtrue.tuning._boost import Boosting, binned, boosts_in_rounds
from holdtrue.tuning._folds import Fold

CLASSIFIER, REGRESSOR = "xgboost.XGBClassifier", "xgboost.XGBRegressor"
STUDIES = count()


def make_fold(n_classes: int | None, *, weighted: bool = False, n: int = 240) -> Fold:
    chance = np.random.default_rng(0)
    x = chance.normal(size=(n, 6)).astype("float32")
    x[chance.random(x.shape) < 0.05] = np.nan
    score = np.nan_to_num(x[:, 0]) + np.nan_to_num(x[:, 1]) ** 2 + 0.3 * chance.normal(size=n)
    target = score
    if n_classes is not None:
        target = np.digitize(score, np.quantile(score, np.arange(1, n_classes) / n_classes))
    cut = 3 * n // 4
    weight = chance.uniform(0.5, 3, cut).astype("float32") if weighted else None
    return Fold(x[:cut], target[:cut], x[cut:], target[cut:], weight)


def fitted_answer(model: Any, fold: Fold) -> np.ndarray:
    model.fit(fold.fit_x, fold.fit_y, sample_weight=fold.fit_weight)
    if isinstance(model, xgboost.XGBClassifier):
        return np.asarray(model.predict_proba(fold.judge_x))
    return np.asarray(model.predict(fold.judge_x))


def boosted_answer(
    path: str, params: dict[str, Any], fold: Fold, n_classes: int | None, stops: list[int]
) -> np.ndarray:
    model = construct(path, params, seed=3, threads=1)
    assert boosts_in_rounds(model)
    boosting = Boosting(model, binned(fold, model, study="", key=()), n_classes)
    for stop in stops:
        boosting.advance(stop)
        boosting.answer()
    boosting.advance(model.get_num_boosting_rounds())
    return boosting.answer()


PARAMS: list[dict[str, Any]] = [
    {},
    {"n_estimators": 1},
    {"subsample": 0.6, "colsample_bytree": 0.5, "colsample_bylevel": 0.7, "colsample_bynode": 0.9},
    {"max_bin": 16, "gamma": 0.5, "min_child_weight": 3, "max_depth": 3},
    {"learning_rate": 0.05, "reg_alpha": 1.0, "reg_lambda": 5.0, "tree_method": "hist"},
    {"grow_policy": "lossguide", "max_leaves": 7, "num_parallel_tree": 2, "subsample": 0.5},
    {"base_score": 0.3, "max_delta_step": 1},
    {"monotone_constraints": (1, 0, 0, 0, 0, 0), "interaction_constraints": "[[0, 1], [2, 3]]"},
    {"missing": 0.0, "booster": "gbtree", "device": "cpu"},
    {"eval_metric": "logloss", "verbosity": 0},
    {"sampling_method": "uniform", "subsample": 0.4, "max_cat_to_onehot": 3},
]
TASKS = [
    (CLASSIFIER, 2, {"scale_pos_weight": 2.0}),
    (CLASSIFIER, 3, {}),
    (REGRESSOR, None, {}),
    (REGRESSOR, None, {"objective": "reg:absoluteerror"}),
    (REGRESSOR, None, {"objective": "reg:pseudohubererror", "huber_slope": 3.0}),
]


@pytest.mark.parametrize(("path", "n_classes", "more"), TASKS)
@pytest.mark.parametrize("params", PARAMS, ids=lambda params: "-".join(params) or "defaults")
def test_rounds_in_stretches_answer_as_the_fitted_estimator(
    path: str, n_classes: int | None, more: dict[str, Any], params: dict[str, Any]
) -> None:
    # Weights change the bins too; every other setting has them.
    fold = make_fold(n_classes, weighted=PARAMS.index(params) % 2 == 0)
    params = {"n_estimators": 8} | params | more
    wanted = fitted_answer(construct(path, params, seed=3, threads=1), fold)
    for stops in ([], [3, 5], list(range(1, 8))):
        before = [stop for stop in stops if stop < params["n_estimators"]]
        got = boosted_answer(path, params, fold, n_classes, before)
        np.testing.assert_array_equal(got, wanted, strict=True)


def test_what_is_said_on_the_way_is_what_a_shorter_training_would_answer() -> None:
    fold = make_fold(2)
    model = construct(CLASSIFIER, {"subsample": 0.7}, seed=3, threads=1)
    boosting = Boosting(model, binned(fold, model, study="", key=()), 2)
    for n_rounds in (2, 3, 10):
        boosting.advance(n_rounds)
        params = {"subsample": 0.7, "n_estimators": n_rounds}
        wanted = fitted_answer(construct(CLASSIFIER, params, seed=3, threads=1), fold)
        np.testing.assert_array_equal(boosting.answer(), wanted)


class Own(xgboost.XGBClassifier):
    def fit(self, *arguments: Any, **named: Any) -> Own:
        return self


@pytest.mark.parametrize(
    "model",
    [
        Own(),
        HistGradientBoostingClassifier(),
        xgboost.XGBRFClassifier(),
        xgboost.XGBRFRegressor(),
        xgboost.XGBRanker(),
        xgboost.XGBClassifier(booster="dart"),
        xgboost.XGBClassifier(booster="gblinear"),
        xgboost.XGBClassifier(tree_method="exact"),
        xgboost.XGBClassifier(tree_method="approx"),
        xgboost.XGBClassifier(objective="multi:softmax"),
        xgboost.XGBClassifier(early_stopping_rounds=3),
        xgboost.XGBClassifier(callbacks=[xgboost.callback.EvaluationMonitor()]),
        xgboost.XGBClassifier(feature_types=["q", "c"]),
        xgboost.XGBClassifier(feature_weights=[1, 2]),
        xgboost.XGBClassifier(device="cuda"),
        xgboost.XGBClassifier(updater="grow_colmaker"),
        xgboost.XGBRegressor(objective=lambda truth, guess: (guess - truth, guess * 0 + 1)),
        xgboost.XGBRegressor(eval_metric=lambda truth, guess: 0.0),
    ],
    ids=lambda model: str(type(model).__name__),
)
def test_what_takes_part_in_its_own_fit_is_left_to_it(model: Any) -> None:
    assert not boosts_in_rounds(model)


def test_a_subclass_with_the_same_fit_goes_in_rounds() -> None:
    class Named(xgboost.XGBClassifier):
        pass

    assert boosts_in_rounds(Named())


def kept(fold: Fold, study: str, number: int = 1, **params: Any) -> _boost.Binned:
    model = construct(CLASSIFIER, params, seed=0, threads=1)
    return binned(fold, model, study=study, key=("plain", number))


def test_a_fold_is_binned_once_for_each_number_of_bins() -> None:
    fold, study = make_fold(2), f"study {next(STUDIES)}"
    first = kept(fold, study)
    assert kept(fold, study) is first
    assert kept(fold, study, max_bin=256, max_depth=2) is first
    assert kept(fold, study, max_bin=64) is not first
    assert kept(fold, study, number=2) is not first
    assert kept(fold, study, missing=0.0) is not first
    assert kept(fold, study) is first
    assert kept(fold, "") is not kept(fold, "")
    assert kept(fold, "another study") is not first
    assert kept(fold, study) is not first


def test_trials_on_kept_bins_do_not_disturb_each_other() -> None:
    fold, study = make_fold(3), f"study {next(STUDIES)}"
    wanted = [
        fitted_answer(
            construct(CLASSIFIER, {"max_depth": d, "n_estimators": 40}, seed=0, threads=1), fold
        )
        for d in (2, 4)
    ]
    models = [
        construct(CLASSIFIER, {"max_depth": d, "n_estimators": 40}, seed=0, threads=1)
        for d in (2, 4)
    ]
    running = [
        Boosting(model, binned(fold, model, study=study, key=()), 3) for model in (*models, *models)
    ]
    for n_rounds in (5, 20, 40):
        for boosting in running:
            boosting.advance(n_rounds)
            boosting.answer()
    for boosting, answer in zip(running, wanted * 2, strict=True):
        np.testing.assert_array_equal(boosting.answer(), answer)


@settings(max_examples=20)
@given(
    learning_rate=st.floats(1e-3, 1.0),
    max_depth=st.integers(1, 8),
    subsample=st.floats(0.2, 1.0),
    colsample=st.floats(0.2, 1.0),
    max_bin=st.integers(2, 300),
    n_rounds=st.integers(1, 15),
    n_classes=st.sampled_from([2, 3, None]),
)
def test_any_setting_answers_as_the_fitted_estimator(
    learning_rate: float,
    max_depth: int,
    subsample: float,
    colsample: float,
    max_bin: int,
    n_rounds: int,
    n_classes: int | None,
) -> None:
    fold = make_fold(n_classes, n=120)
    params = {
        "learning_rate": learning_rate,
        "max_depth": max_depth,
        "subsample": subsample,
        "colsample_bytree": colsample,
        "max_bin": max_bin,
        "n_estimators": n_rounds,
    }
    path = REGRESSOR if n_classes is None else CLASSIFIER
    wanted = fitted_answer(construct(path, params, seed=3, threads=1), fold)
    got = boosted_answer(path, params, fold, n_classes, [max(n_rounds // 2, 1)])
    np.testing.assert_array_equal(got, wanted)
