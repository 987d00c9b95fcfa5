"""The Huber loss at any scale of the target: in trials, in the fit, and in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from holdtrue.declaration import Candidate, Model
from holdtrue.models import Bundle, Signature, constant_params, fit_bundle, typed
from holdtrue.tuning._folds import Fold
from holdtrue.tuning._trial import Contender, FoldsObjective
from holdtrue.tuning._types import Report, Setting

XGB, SGD = "xgboost.XGBRegressor", "sklearn.linear_model.SGDRegressor"
# Middle and spread of a target.
SCALES = [(200.0, 50.0), (0.0, 1e-3), (5.0, 1e-3), (1e6, 10.0), (0.0, 1e6), (0.0, 1.0)]
NAMES = ("a", "b", "c")
SIGNATURE = Signature(
    target="y",
    task="regression",
    classes=None,
    columns=dict.fromkeys(NAMES, "number"),
    categorical=(),
)
TRAIN, TEST = slice(0, 900), slice(900, None)


def make(middle: float, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Features, and a target that follows them; one training row in fifty is far off."""
    chance = np.random.default_rng(0)
    x = chance.normal(size=(1_200, len(NAMES))).astype("float32")
    far = 40 * chance.normal(size=len(x)) * (chance.random(len(x)) < 0.02)
    far[TEST] = 0
    y = 1.5 * x[:, 0] + np.sin(2 * x[:, 1]) + chance.normal(scale=0.3, size=len(x)) + far
    return x, middle + spread * y / 1.7


def params_of(estimator: str, target: np.ndarray | None, **own: Any) -> dict[str, Any]:
    candidate = Candidate(estimator=estimator, params=own)
    return constant_params(candidate, Model(candidates=(candidate,), loss="huber"), target)


def error(truth: np.ndarray, answers: Any) -> float:
    return float(np.abs(truth - answers).mean())


def of_the_median(y: np.ndarray) -> float:
    return error(y[TEST], np.median(y[TRAIN]))


class Unwatched:
    wanted = False

    def report(self, report: Report) -> bool:
        raise AssertionError

    def ended(self, wait_s: float = 0.0) -> bool:
        raise AssertionError


@pytest.mark.parametrize(("middle", "spread"), SCALES)
@pytest.mark.parametrize("estimator", [XGB, SGD])
def test_a_trial_is_better_than_the_median(estimator: str, middle: float, spread: float) -> None:
    x, y = make(middle, spread)
    folds = [Fold(x[TRAIN], y[TRAIN], x[TEST], y[TEST])]
    contender = Contender(estimator, params_of(estimator, y), "plain", folds)
    objective = FoldsObjective({"one": contender}, "mae", classes=None, seed=0)
    outcome = objective(Setting("one", {}), Unwatched())
    assert outcome.reason is None
    assert outcome.value is not None
    assert outcome.value < 0.7 * of_the_median(y)


@pytest.mark.parametrize(("middle", "spread"), SCALES[:3])
def test_the_fitted_model_is_better_than_the_median_and_compiled(
    tmp_path: Path, middle: float, spread: float
) -> None:
    x, y = make(middle, spread)
    rows = pd.DataFrame(x, columns=list(NAMES)).astype("float64").assign(y=y)
    candidate = Candidate(estimator=XGB)
    params = params_of(XGB, y[TRAIN], n_estimators=60)
    digest = fit_bundle(
        *(rows[TRAIN], tmp_path / "one", SIGNATURE, XGB, params),
        seed=0,
        threads=1,
        model=Model(candidates=(candidate,), loss="huber"),
        folds=2,
        ordered=False,
    )
    bundle = Bundle.load(tmp_path / "one", digest)
    assert error(y[TEST], bundle.predict(typed(rows[TEST], SIGNATURE))) < 0.7 * of_the_median(y)
    assert bundle.compilation.compiled


def test_a_process_of_several_learns_it_too(tmp_path: Path) -> None:
    import xgboost

    from holdtrue.models._shard import Job, Shard, fit_encoders

    x, y = make(200, 50)
    path = tmp_path / "train.parquet"
    pd.DataFrame(x[TRAIN], columns=list(NAMES)).astype("float64").assign(y=y[TRAIN]).to_parquet(
        path
    )
    job = Job(
        rows=path,
        n_rows=len(y[TRAIN]),
        signature=SIGNATURE,
        estimator=XGB,
        params=params_of(XGB, y[TRAIN], n_estimators=60),
        seed=0,
        shards=1,
        threads=1,
        batch_rows=300,
        sample_rows=300,
        patience_s=60,
    )
    booster = Shard(job, 0)._boost(fit_encoders(job))
    assert error(y[TEST], booster.predict(xgboost.DMatrix(x[TEST]))) < 0.7 * of_the_median(y)


def test_it_begins_at_the_median_and_is_absolute_for_the_largest_tenth_of_errors() -> None:
    y = np.array([*range(100), 1e9])
    assert params_of(XGB, y) == {
        "objective": "reg:pseudohubererror",
        "base_score": 50.0,
        "huber_slope": 45.0,
    }
    # It begins at 0 whatever the target.
    assert params_of(SGD, y) == {"loss": "huber", "epsilon": 90.0}
    assert params_of("sklearn.linear_model.HuberRegressor", y) == {}
    assert params_of(XGB, None) == {"objective": "reg:pseudohubererror"}


@pytest.mark.parametrize(
    ("target", "width"),
    [([0.0] * 95 + [20.0] * 5, 1.0), ([7.0] * 10, 1.0), ([-3.0] * 19 + [-1.0], 0.1)],
)
def test_a_target_that_is_mostly_one_value_has_a_width_too(
    target: list[float], width: float
) -> None:
    assert params_of(XGB, np.array(target))["huber_slope"] == pytest.approx(width)


def test_what_the_user_says_wins() -> None:
    y = np.array([1.0, 2.0, 3.0])
    own = params_of(XGB, y, base_score=7.0)
    assert (own["base_score"], own["huber_slope"]) == (7.0, 1.0)
    # Of another loss than Huber's nothing is known.
    assert params_of(XGB, y, objective="reg:gamma") == {"objective": "reg:gamma"}
    candidate = Candidate(estimator=XGB)
    absolute = Model(candidates=(candidate,), loss="absolute")
    assert constant_params(candidate, absolute, y) == {"objective": "reg:absoluteerror"}
    assert constant_params(candidate, Model(candidates=(candidate,)), y) == {}
