"""Spaces that suit most tables, by estimator: what ``auto`` stands for."""

from __future__ import annotations

from typing import Any, Literal

Task = Literal["classification", "regression"]
DeclaredSpace = dict[str, dict[str, Any]]

# Depth, step length and their interplay with the number of rounds decide most; the penalties and
# the shares of rows and columns less (Probst, Boulesteix, Bischl, Tunability, JMLR 20, 2019;
# ranges like those of Grinsztajn, Oyallon, Varoquaux, Why do tree-based models still outperform
# deep learning on tabular data, NeurIPS 2022, with fewer rounds, as trials should be short).
_XGBOOST: DeclaredSpace = {
    "max_depth": {"int": [3, 10]},
    "learning_rate": {"float": [0.01, 0.3], "log": True},
    "n_estimators": {"int": [50, 600], "log": True},
    "min_child_weight": {"float": [1.0, 100.0], "log": True},
    "subsample": {"float": [0.5, 1.0]},
    "colsample_bytree": {"float": [0.5, 1.0]},
    "reg_lambda": {"float": [0.01, 100.0], "log": True},
}
_LIGHTGBM: DeclaredSpace = {
    "num_leaves": {"int": [7, 127], "log": True},
    "learning_rate": {"float": [0.01, 0.3], "log": True},
    "n_estimators": {"int": [50, 600], "log": True},
    "min_child_samples": {"int": [5, 200], "log": True},
    "colsample_bytree": {"float": [0.5, 1.0]},
    "reg_lambda": {"float": [0.01, 100.0], "log": True},
}
_HIST_GRADIENT_BOOSTING: DeclaredSpace = {
    "learning_rate": {"float": [0.01, 0.3], "log": True},
    "max_iter": {"int": [50, 500], "log": True},
    "max_leaf_nodes": {"int": [7, 127], "log": True},
    "min_samples_leaf": {"int": [5, 200], "log": True},
    "l2_regularization": {"float": [1.0e-4, 10.0], "log": True},
    "max_features": {"float": [0.3, 1.0]},
}
# Columns for a split first, then rows for a tree and rows in a leaf; more trees are never worse
# (Probst, Wright, Boulesteix, Hyperparameters and tuning strategies for random forest, WIREs 2019).
_FOREST: DeclaredSpace = {
    "max_features": {"float": [0.1, 1.0]},
    "max_samples": {"float": [0.3, 1.0]},
    "min_samples_leaf": {"int": [1, 50], "log": True},
}
# Features are standardised, so that one range of penalties fits all (Friedman, Hastie, Tibshirani,
# Regularization paths for generalized linear models, JSS 33, 2010). ElasticNet's is in units of
# the target: hence the long range.
_LOGISTIC: DeclaredSpace = {"C": {"float": [1.0e-3, 100.0], "log": True}}
_ELASTIC_NET: DeclaredSpace = {
    "alpha": {"float": [1.0e-4, 100.0], "log": True},
    "l1_ratio": {"float": [0.05, 1.0]},
}

SPACES: dict[str, DeclaredSpace] = {
    "xgboost.XGBClassifier": _XGBOOST,
    "xgboost.XGBRegressor": _XGBOOST,
    "lightgbm.LGBMClassifier": _LIGHTGBM,
    "lightgbm.LGBMRegressor": _LIGHTGBM,
    "sklearn.ensemble.HistGradientBoostingClassifier": _HIST_GRADIENT_BOOSTING,
    "sklearn.ensemble.HistGradientBoostingRegressor": _HIST_GRADIENT_BOOSTING,
    "sklearn.ensemble.RandomForestClassifier": _FOREST,
    "sklearn.ensemble.RandomForestRegressor": _FOREST,
    "sklearn.linear_model.LogisticRegression": _LOGISTIC,
    "sklearn.linear_model.ElasticNet": _ELASTIC_NET,
}
_BOOSTED: dict[str, Any] = {"early_stopping": False}  # the number of rounds is searched
CANDIDATES: dict[Task, tuple[tuple[str, dict[str, Any]], ...]] = {
    "classification": (
        ("xgboost.XGBClassifier", {}),
        ("sklearn.ensemble.HistGradientBoostingClassifier", _BOOSTED),
        ("sklearn.ensemble.RandomForestClassifier", {"n_estimators": 200}),
        ("sklearn.linear_model.LogisticRegression", {"max_iter": 1000}),
    ),
    "regression": (
        ("xgboost.XGBRegressor", {}),
        ("sklearn.ensemble.HistGradientBoostingRegressor", _BOOSTED),
        ("sklearn.ensemble.RandomForestRegressor", {"n_estimators": 200}),
        ("sklearn.linear_model.ElasticNet", {"max_iter": 5000}),
    ),
}
"""By task: estimators with their constant arguments, that ``model: auto`` lets compete."""
METRIC: dict[Task, str] = {"classification": "log_loss", "regression": "rmse"}
"""By task: what is optimised where nothing is said. Both judge more than the order."""
# Losses that a built-in candidate does not have, or is far too slow with: ``auto`` leaves it out.
UNFIT_LOSSES: dict[str, tuple[str, ...]] = {
    "sklearn.ensemble.HistGradientBoostingRegressor": ("huber",),
    "sklearn.ensemble.RandomForestRegressor": ("absolute", "huber"),
    "sklearn.linear_model.ElasticNet": ("absolute", "huber"),
}
