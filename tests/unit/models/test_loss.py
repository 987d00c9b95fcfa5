from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from holdtrue.declaration import Candidate, Model
from holdtrue.errors import ConfigError
from holdtrue.models import check_candidate, constant_params, construct, loss_params
from holdtrue.models._loss import _LOSSES, _ONLY_SQUARED, _losses_of

WHERE = {
    "XGBRegressor": "xgboost",
    "LGBMRegressor": "lightgbm",
    "HuberRegressor": "sklearn.linear_model",
    "QuantileRegressor": "sklearn.linear_model",
    "SGDRegressor": "sklearn.linear_model",
    "MLPRegressor": "sklearn.neural_network",
    "DecisionTreeRegressor": "sklearn.tree",
}
ALL = [
    (f"{WHERE.get(name, 'sklearn.ensemble')}.{name}", loss)
    for name, losses in _LOSSES.items()
    for loss in losses
]
TREES = [
    "xgboost.XGBRegressor",
    "lightgbm.LGBMRegressor",
    "sklearn.ensemble.HistGradientBoostingRegressor",
    "sklearn.ensemble.RandomForestRegressor",
]


@pytest.mark.parametrize(("estimator", "loss"), ALL)
def test_the_arguments_are_taken(estimator: str, loss: Any) -> None:
    params = loss_params(estimator, loss)
    made = construct(estimator, params, seed=0, threads=1)
    assert {name: made.get_params()[name] for name in params} == params
    if "MLP" not in estimator:  # it warns of not having converged
        chance = np.random.default_rng(0)
        made.fit(chance.normal(size=(60, 2)), chance.normal(size=60))


@pytest.mark.parametrize("estimator", TREES)
def test_the_absolute_loss_answers_the_median_and_the_squared_the_mean(estimator: str) -> None:
    target = np.random.default_rng(0).exponential(size=2_000)
    x = np.zeros((len(target), 1))
    for loss, expected in (("absolute", np.median(target)), ("squared", target.mean())):
        params = loss_params(estimator, loss)  # type: ignore[arg-type]
        small = {"max_iter": 20} if "Hist" in estimator else {"n_estimators": 20}
        made = construct(estimator, params | small, seed=0, threads=1).fit(x, target)
        assert made.predict(x[:1])[0] == pytest.approx(expected, abs=0.05)


def test_nothing_declared_leaves_the_estimator_as_it_is() -> None:
    assert loss_params("no.such.Thing", None) == {}


class OwnRidge(Ridge):
    """A subclass from elsewhere."""


def test_a_subclass_has_the_losses_of_its_family() -> None:
    assert _losses_of(OwnRidge) == {"squared": {}}
    assert "Ridge" in _ONLY_SQUARED


def test_a_candidate_s_own_arguments_win() -> None:
    candidate = Candidate(estimator="xgboost.XGBRegressor", params={"objective": "reg:gamma"})
    model = Model(candidates=(candidate,), loss="absolute")
    assert constant_params(candidate, model) == {"objective": "reg:gamma"}
    plain = Candidate(estimator="xgboost.XGBRegressor", params={"max_depth": 3})
    assert constant_params(plain, model) == {"objective": "reg:absoluteerror", "max_depth": 3}


@pytest.mark.parametrize(
    ("estimator", "given", "said", "hint"),
    [
        (
            "sklearn.ensemble.HistGradientBoostingRegressor",
            {"loss": "huber"},
            "HistGradientBoostingRegressor has no huber loss",
            "it has: squared, absolute",
        ),
        (
            "sklearn.linear_model.ElasticNet",
            {"loss": "absolute"},
            "ElasticNet has no absolute loss",
            "it has: squared",
        ),
        (
            "sklearn.compose.TransformedTargetRegressor",
            {"loss": "squared"},
            "which losses sklearn.compose.TransformedTargetRegressor has is not known",
            "set it in the candidate's params",
        ),
        (
            "sklearn.neighbors.KNeighborsClassifier",
            {"class_weight": "balanced"},
            "KNeighborsClassifier takes no weights of rows",
            "leave out model.class_weight",
        ),
    ],
)
def test_what_an_estimator_cannot_do_is_refused(
    estimator: str, given: dict[str, Any], said: str, hint: str
) -> None:
    candidate = Candidate(estimator=estimator)
    task = "classification" if "class_weight" in given else "regression"
    model = Model.model_validate({"candidates": [{"estimator": estimator}], **given})
    check_candidate(candidate, task)
    with pytest.raises(ConfigError, match=said) as caught:
        check_candidate(candidate, task, model)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("estimator", "given"),
    [
        ("xgboost.XGBClassifier", {"class_weight": "balanced"}),
        ("sklearn.linear_model.LogisticRegression", {"class_weight": {"a": 2}}),
        ("xgboost.XGBRegressor", {"loss": "huber"}),
    ],
)
def test_what_an_estimator_can_do_is_accepted(estimator: str, given: dict[str, Any]) -> None:
    task = "classification" if "class_weight" in given else "regression"
    model = Model.model_validate({"candidates": [{"estimator": estimator}], **given})
    check_candidate(model.candidates[0], task, model)
