"""The declared loss in each family's own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from holdtrue.errors import ConfigError

if TYPE_CHECKING:
    from holdtrue.declaration import Candidate, Model

Loss = Literal["squared", "absolute", "huber"]

_Words = dict[str, dict[str, Any]]

_TREES: _Words = {
    "squared": {"criterion": "squared_error"},
    "absolute": {"criterion": "absolute_error"},
}
# By the name of the class, or of one that it comes from: arguments that choose each loss.
_LOSSES: dict[str, _Words] = {
    "XGBRegressor": {
        "squared": {"objective": "reg:squarederror"},
        "absolute": {"objective": "reg:absoluteerror"},
        "huber": {"objective": "reg:pseudohubererror"},
    },
    "HistGradientBoostingRegressor": {
        "squared": {"loss": "squared_error"},
        "absolute": {"loss": "absolute_error"},
    },
    "GradientBoostingRegressor": {
        "squared": {"loss": "squared_error"},
        "absolute": {"loss": "absolute_error"},
        "huber": {"loss": "huber"},
    },
    "RandomForestRegressor": _TREES,
    "ExtraTreesRegressor": _TREES,
    "DecisionTreeRegressor": _TREES,
    "SGDRegressor": {"squared": {"loss": "squared_error"}, "huber": {"loss": "huber"}},
    "HuberRegressor": {"huber": {}},
    "QuantileRegressor": {"absolute": {"quantile": 0.5}},
    "MLPRegressor": {"squared": {"loss": "squared_error"}},
}
_ONLY_SQUARED = {
    *("LinearRegression", "Ridge", "RidgeCV", "ElasticNet", "ElasticNetCV", "Lasso", "LassoCV"),
    *("Lars", "LassoLars", "BayesianRidge", "ARDRegression", "KernelRidge"),
    *("KNeighborsRegressor", "GaussianProcessRegressor", "PLSRegression"),
}


def loss_params(estimator: str, loss: Loss | None) -> dict[str, Any]:
    """The arguments by which an estimator minimises a loss.

    Args:
        estimator: Import path of its class.
        loss: ``model.loss``; none: the estimator's own default.

    Raises:
        ConfigError: The estimator has no such loss, or its losses are not known.
    """
    if loss is None:
        return {}
    from holdtrue.models._estimator import import_object

    known = _losses_of(import_object(estimator, "estimator"))
    if known is None:
        message = f"model.loss: which losses {estimator} has is not known"
        raise ConfigError(message, hint="leave out model.loss and set it in the candidate's params")
    if loss not in known:
        message = f"model.loss: {estimator} has no {loss} loss"
        raise ConfigError(message, hint=f"it has: {', '.join(known)}")
    return known[loss]


def _losses_of(estimator: Any) -> _Words | None:
    for kind in estimator.__mro__:
        if kind.__module__.partition(".")[0] in ("sklearn", "xgboost"):
            if kind.__name__ in _LOSSES:
                return _LOSSES[kind.__name__]
            if kind.__name__ in _ONLY_SQUARED:
                return {"squared": {}}
    return None


def constant_params(candidate: Candidate, model: Model) -> dict[str, Any]:
    """A candidate's arguments that are not searched: those of the loss, then its own.

    Raises:
        ConfigError: The estimator has no such loss.
    """
    return loss_params(candidate.estimator, model.loss) | candidate.params
