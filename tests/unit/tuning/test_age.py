"""Rows that count by their age, in the trials of a search."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, root_mean_squared_error
from sklearn.model_selection import TimeSeriesSplit
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from xgboost import XGBClassifier, XGBRegressor

from holdtrue.declaration import parse
from holdtrue.models import Signature, target_of
from holdtrue.tuning._space import Space
from holdtrue.tuning._tune import _objective, _parts
from holdtrue.tuning._types import Setting
from tests.unit.tuning.listener import Listener

N = 600
TREES = {"n_estimators": 12, "max_depth": 3}
SEEDED: dict[str, Any] = {"random_state": 0}
MADE: dict[str, Any] = {
    "sklearn.linear_model.LogisticRegression": lambda: LogisticRegression(**SEEDED),
    "sklearn.linear_model.Ridge": lambda: Ridge(**SEEDED),
    "xgboost.XGBClassifier": lambda: XGBClassifier(**TREES, **SEEDED, n_jobs=1),
    "xgboost.XGBRegressor": lambda: XGBRegressor(**TREES, **SEEDED, n_jobs=1),
}


def flipping() -> pd.DataFrame:
    """What speaks for the target speaks against it in every other stretch of 188 rows."""
    chance = np.random.default_rng(0)
    frame = pd.DataFrame({"a": chance.normal(size=N), "b": chance.normal(size=N)})
    sign = np.sign(np.sin(np.arange(N) / 60))
    value = 2 * sign * frame["a"] + 0.5 * frame["b"] + chance.normal(scale=0.5, size=N)
    at = pd.date_range("2024-01-01", periods=N, freq="2h", tz="UTC").as_unit("us")
    return frame.assign(at=at, value=value, name=np.where(value > 0.3, "yes", "no"))


def by_hand(
    rows: pd.DataFrame, make: Any, half_life: timedelta | None, weights: Any
) -> list[float]:
    """Score an estimator on the folds with scikit-learn alone; what is judged counts the same."""
    model = make()
    classifies = hasattr(model, "predict_proba")
    x = rows[["a", "b"]].to_numpy()
    y = (rows["name"] == "yes").to_numpy().astype(int) if classifies else rows["value"].to_numpy()
    by_class = np.ones(N) if weights is None else compute_sample_weight(weights, y)
    scores = []
    for fit, judge in TimeSeriesSplit(3).split(x):
        age = np.zeros(len(fit))
        if half_life is not None:
            age = ((rows["at"].iloc[fit[-1]] - rows["at"].iloc[fit]) / half_life).to_numpy()
        weight = 0.5**age / np.mean(0.5**age) * by_class[fit]
        scaler = StandardScaler().fit(x[fit])
        scaled = type(model).__module__.startswith("sklearn")
        seen = [scaler.transform(x[part]) if scaled else x[part] for part in (fit, judge)]
        model = make().fit(seen[0], y[fit], sample_weight=weight)
        if classifies:
            scores.append(log_loss(y[judge], model.predict_proba(seen[1])))
        else:
            scores.append(root_mean_squared_error(y[judge], model.predict(seen[1])))
    return scores


@pytest.mark.parametrize(
    ("path", "weights"),
    [
        *[(path, None) for path in MADE],
        ("sklearn.linear_model.LogisticRegression", "balanced"),
        ("xgboost.XGBClassifier", "balanced"),
    ],
)
@pytest.mark.parametrize("pruner", ["none", "median"])
def test_trials_score_what_is_scored_by_hand(
    monkeypatch: pytest.MonkeyPatch, path: str, weights: str | None, pruner: str
) -> None:
    classifies = path.endswith(("LogisticRegression", "Classifier"))
    monkeypatch.setattr("ray.put", lambda folds: folds)
    target = "name" if classifies else "value"
    signature = Signature(
        target=target,
        task="classification" if classifies else "regression",
        classes=("no", "yes") if classifies else None,
        columns={"a": "number", "b": "number"},
        categorical=(),
    )
    rows, scores = flipping(), {}
    for half_life in (None, timedelta(days=2)):
        aged = "" if half_life is None else ", half_life: 2d"
        weighted = "" if weights is None else f", class_weight: {weights}"
        declared = parse(
            f"name: x\ntask: {signature.task}\n"
            f"data: {{source: {{files: a.csv}}, target: {target}, time: at{aged}}}\n"
            f"model: {{candidates: [{{estimator: {path}}}]{weighted}}}\n"
            f"tune: {{metric: {'log_loss' if classifies else 'rmse'}, pruner: {pruner}}}\n"
        )
        space = Space(declared.model.candidates)
        truth = target_of(rows, signature)
        parts = _parts(declared, truth, signature.classes)
        objective = _objective(declared, space, rows, truth, signature, parts, "")
        params = TREES if path.startswith("xgboost") else {}
        watch = Listener(wanted=pruner == "median")
        outcome = objective(Setting(space.labels[0], params), watch)
        assert (outcome.state, bool(watch.heard)) == ("complete", watch.wanted)
        wanted = by_hand(rows, MADE[path], half_life, weights)
        np.testing.assert_allclose(outcome.fold_values, wanted, rtol=2e-4)
        scores[half_life] = outcome.fold_values
    assert np.abs(np.subtract(*scores.values())).max() > 0.1
