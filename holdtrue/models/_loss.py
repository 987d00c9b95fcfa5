"""The declared loss in each family's own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

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
    "LGBMRegressor": {
        "squared": {"objective": "regression"},
        "absolute": {"objective": "regression_l1"},
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
# Huber's loss is squared up to some error and absolute beyond; these estimators take that error in
# the unit of the target, 1 or 0.1 where nothing is said. By the name of the class: its argument,
# and that for where training begins (none: at 0). XGBoost would look for the beginning with one
# Newton step from 0, which overshoots the more the further off the target is.
_HUBER: dict[str, tuple[str, str | None]] = {
    "XGBRegressor": ("huber_slope", "base_score"),
    "SGDRegressor": ("epsilon", None),
}
# Share of the errors, at the beginning, that count squared; scikit-learn's boosting does the same.
_SQUARED_SHARE = 0.9


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

    known, key = _losses_of(import_object(estimator, "estimator")), ("model", "loss")
    if known is None:
        message = f"which losses {estimator} has is not known"
        hint = "leave out model.loss and set it in the candidate's params"
        raise ConfigError(message, hint=hint, key=key)
    if loss not in known:
        message = f"{estimator} has no {loss} loss"
        raise ConfigError(message, hint=f"it has: {', '.join(known)}", key=key)
    return known[loss]


def _losses_of(estimator: Any) -> _Words | None:
    family = _family(estimator)
    return None if family is None else _LOSSES.get(family, {"squared": {}})


def _family(estimator: Any) -> str | None:
    """Name of the class whose losses are known: the estimator's own, or of one it comes from."""
    for kind in estimator.__mro__:
        if kind.__module__.partition(".")[0] in ("lightgbm", "sklearn", "xgboost") and (
            kind.__name__ in _LOSSES or kind.__name__ in _ONLY_SQUARED
        ):
            return str(kind.__name__)
    return None


def constant_params(
    candidate: Candidate, model: Model, target: np.ndarray | None = None
) -> dict[str, Any]:
    """A candidate's arguments that are not searched: those of the loss, then its own.

    Args:
        candidate: As declared.
        model: Declares the loss.
        target: shape (n_rows,): of the training rows; a Huber loss suits its scale. Left out where
            nothing is trained.

    Raises:
        ConfigError: The estimator has no such loss.
    """
    chosen = loss_params(candidate.estimator, model.loss)
    params = chosen | candidate.params
    own_loss = any(params[name] != value for name, value in chosen.items())
    if model.loss != "huber" or target is None or own_loss:
        return params
    return _huber_params(candidate.estimator, target) | params


def _huber_params(estimator: str, target: np.ndarray) -> dict[str, Any]:
    """The arguments of a Huber loss that depend on the target, shape (n_rows,).

    References:
        Friedman (2001), Greedy function approximation: a gradient boosting machine, Annals of
        Statistics 29, 1189-1232, section 4.4: begin at the median, and take a quantile of the
        errors as the one from which on they count absolute.
    """
    from holdtrue.models._estimator import import_object

    names = _HUBER.get(_family(import_object(estimator, "estimator")) or "")
    if names is None:
        return {}
    width, beginning = names
    middle = float(np.median(target)) if beginning else 0.0
    errors = np.abs(target - middle)
    # Of a target that is mostly one value most errors are 0.
    size = float(np.quantile(errors, _SQUARED_SHARE) or errors.mean() or 1.0)
    return {width: size} | ({beginning: middle} if beginning else {})
