from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from holdtrue.tuning import _trial
from holdtrue.tuning._folds import Fold
from holdtrue.tuning._trial import run_trial

CLASSES = ("no", "yes")


@pytest.fixture
def folds() -> list[Fold]:
    chance = np.random.default_rng(0)
    x = chance.normal(size=(120, 3)).astype("float32")
    y = (x[:, 0] + chance.normal(size=120) > 0).astype("int64")
    return [Fold(x[:60], y[:60], x[60:90], y[60:90]), Fold(x[:90], y[:90], x[90:], y[90:])]


class Odd(ClassifierMixin, BaseEstimator):
    """Fails in the way that it is told to, on the second fold."""

    def __init__(self, way: str = "", calls: Any = None) -> None:
        self.way = way
        self.calls = calls

    def fit(self, x: Any, y: Any) -> Odd:
        if self.way == "raises" and len(x) > 60:
            message = "no such luck"
            raise RuntimeError(message)
        return self

    def predict_proba(self, x: Any) -> np.ndarray:
        answers = np.full((len(x), 2), 0.5)
        if self.way == "NaN":
            answers[:] = np.nan
        return answers


def test_a_setting_is_judged_on_every_fold(folds: list[Fold]) -> None:
    path = "sklearn.linear_model.LogisticRegression"
    outcome = run_trial(folds, path, {"C": 1.0}, "log_loss", CLASSES, seed=0)
    assert outcome.reason is None
    assert len(outcome.values) == 2
    assert all(0.2 < value < 0.69 for value in outcome.values)
    assert outcome.seconds > 0
    assert run_trial(folds, path, {"C": 1.0}, "log_loss", CLASSES, seed=0).values == outcome.values


def test_the_seed_reaches_the_estimator(folds: list[Fold]) -> None:
    def values(seed: int) -> tuple[float, ...]:
        params = {"n_estimators": 5, "subsample": 0.5}
        return run_trial(folds, "xgboost.XGBClassifier", params, "log_loss", CLASSES, seed).values

    assert values(0) == values(0)
    assert values(0) != values(1)


def test_regression_is_judged_by_values(folds: list[Fold]) -> None:
    numbers = [Fold(f.fit_x, f.fit_x[:, 0], f.judge_x, f.judge_x[:, 0]) for f in folds]
    outcome = run_trial(numbers, "sklearn.linear_model.Ridge", {}, "rmse", None, seed=0)
    assert max(outcome.values) < 0.1


@pytest.mark.parametrize(
    ("estimator", "params", "finished", "said"),
    [
        ("Odd", {"way": "raises"}, 1, "RuntimeError: no such luck"),
        ("Odd", {"way": "NaN"}, 0, "scores must be finite"),
        ("sklearn.linear_model.LogisticRegression", {"C": -1.0}, 0, "InvalidParameterError"),
        ("sklearn.linear_model.LogisticRegression", {"nonsense": 1}, 0, "TypeError"),
        ("no_such_package.Model", {}, 0, "ConfigError"),
    ],
)
def test_a_failure_ends_in_a_reason(
    folds: list[Fold],
    monkeypatch: pytest.MonkeyPatch,
    estimator: str,
    params: dict[str, Any],
    finished: int,
    said: str,
) -> None:
    if estimator == "Odd":
        monkeypatch.setattr(_trial, "construct", lambda path, params, **_: Odd(**params))
    outcome = run_trial(folds, estimator, params, "log_loss", CLASSES, seed=0)
    assert outcome.reason is not None
    assert said in outcome.reason
    assert len(outcome.reason) <= 500
    assert len(outcome.values) == finished


def test_a_score_that_is_no_number_is_a_failure(
    folds: list[Fold], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_trial, "measure", lambda *_: float("nan"))
    outcome = run_trial(folds, "sklearn.linear_model.Ridge", {}, "r2", None, seed=0)
    assert (outcome.values, outcome.reason) == ((), "r2 is nan on fold 1")


def test_nothing_is_fitted_after_a_failure(
    folds: list[Fold], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def construct(path: str, params: dict[str, Any], **_: Any) -> Odd:
        calls["made"] += 1
        return Odd("NaN")

    monkeypatch.setattr(_trial, "construct", construct)
    run_trial(folds, "Odd", {}, "log_loss", CLASSES, seed=0)
    assert calls["made"] == 1
