"""Training in two processes on real Ray: as good as in one, and processes may die."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from sklearn.metrics import r2_score, roc_auc_score

from configs.flights import WEATHER, load
from holdtrue.declaration import Model
from holdtrue.errors import TrainingError
from holdtrue.models import Bundle, HalfLife, Signature, pipeline, scores, target_of, typed
from holdtrue.models import _sharded as sharded
from holdtrue.models._fit_on_ray import fit_on_ray
from holdtrue.models._fit_plan import rows_within
from holdtrue.models._sharded import fit_sharded
from holdtrue.stack import Stack, ray_session
from holdtrue.store import Store

pytestmark = pytest.mark.integration

NUMERIC = (
    *("distance", "departure_minute", "arrival_minute", "weekday", "plane_age", "seats"),
    *WEATHER,
)
CATEGORICAL = ("carrier", "origin", "dest")
PARAMS = {"n_estimators": 40, "max_depth": 6, "learning_rate": 0.2, "subsample": 0.8}
# For what takes few trees to be seen.
FEW = PARAMS | {"n_estimators": 12}
LIMIT_BYTES = 90_000_000
CLASSES = {"binary": ("no", "yes"), "multiclass": ("early", "late", "on time"), "regression": None}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Ray of this test's own, with as many CPUs as there are."""
    root = tmp_path_factory.mktemp("sharded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(root / "state"))
        patch.setenv("PYTHONPATH", str(Path.cwd()))
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
            patch.delenv(name, raising=False)
        with ray_session(Stack(Store(root / "store")), None):
            yield


@pytest.fixture(scope="module")
def flights(tmp_path_factory):
    """Six months of flights as Parquet files of training rows, and their test rows, by task."""
    frame = load(datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 7, 1, tzinfo=UTC))
    frame = frame.dropna(subset=["late"]).reset_index(drop=True)
    chance = np.random.default_rng(0)
    noise = chance.normal(scale=0.3, size=len(frame))
    value = frame["distance"] / 1_000 + frame["late"] + noise
    targets = {
        "binary": frame["late"].map({0.0: "no", 1.0: "yes"}).astype("str"),
        "multiclass": pd.cut(
            value, [-np.inf, 0.7, 1.5, np.inf], labels=["early", "on time", "late"]
        ).astype("str"),
        "regression": value,
    }
    test = chance.random(len(frame)) < 0.25
    found = {}
    for task, target in targets.items():
        rows = frame[[*NUMERIC, *CATEGORICAL]].assign(y=target)
        path = tmp_path_factory.mktemp(task) / "train.parquet"
        rows[~test].to_parquet(path, index=False)
        found[task] = path, rows[test].reset_index(drop=True)
    return found


def signature_of(task):
    return Signature(
        target="y",
        task="regression" if CLASSES[task] is None else "classification",
        classes=CLASSES[task],
        columns=dict.fromkeys(NUMERIC, "number") | dict.fromkeys(CATEGORICAL, "string"),
        categorical=CATEGORICAL,
    )


def estimator_of(task):
    return "xgboost.XGBRegressor" if CLASSES[task] is None else "xgboost.XGBClassifier"


def quality(task, answered, target):
    if task == "regression":
        return r2_score(target, answered)
    if task == "binary":
        return roc_auc_score(target, answered[:, 1])
    return roc_auc_score(target, answered, multi_class="ovr")


def model_of(task, **more):
    return Model.model_validate({"candidates": [{"estimator": estimator_of(task)}], **more})


def fit(
    task,
    flights,
    folder,
    *,
    rows=None,
    estimator=None,
    params=PARAMS,
    limit=LIMIT_BYTES,
    half_life=None,
    **more,
):
    return fit_on_ray(
        *(
            rows or flights[task][0],
            folder,
            signature_of(task),
            estimator or estimator_of(task),
            params,
        ),
        seed=0,
        model=model_of(task, **more),
        folds=3,
        ordered=True,
        limit_bytes=limit,
        half_life=half_life,
    )


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_two_processes_learn_what_one_learns(task, cluster, flights, tmp_path):
    path, test = flights[task]
    signature = signature_of(task)
    train = pd.read_parquet(path)
    assert len(train) > rows_within(len(signature.columns), LIMIT_BYTES)
    one = pipeline(estimator_of(task), PARAMS, signature, seed=0, threads=1)
    one.fit(typed(train, signature), target_of(train, signature))
    fitted = fit(task, flights, tmp_path / "bundle")
    assert (fitted.rows, fitted.shards) == (len(train), 2)
    bundle = Bundle.load(tmp_path / "bundle", fitted.digest)
    frame, target = typed(test, signature), target_of(test, signature)
    expected = quality(task, scores(one, signature, frame), target)
    found = quality(task, bundle.predict(frame), target)
    assert found == pytest.approx(expected, abs=0.005)
    assert found > (0.5 if task == "regression" else 0.7)


def test_weights_and_calibration_are_learnt_in_parts_too(cluster, flights, tmp_path):
    _, test = flights["binary"]
    signature = signature_of("binary")
    frame, truth = typed(test, signature), target_of(test, signature)
    means = {}
    for name, more in {
        "weighted": {"class_weight": "balanced"},
        "calibrated": {"class_weight": "balanced", "calibrate": "isotonic"},
    }.items():
        fitted = fit("binary", flights, tmp_path / name, params=FEW, **more)
        assert fitted.shards == 2
        bundle = Bundle.load(tmp_path / name, fitted.digest)
        means[name] = bundle.predict(frame)[:, 1].mean()
    # Balanced classes shift probabilities towards a half; the calibration brings them back.
    assert means["weighted"] > truth.mean() + 0.1
    assert means["calibrated"] == pytest.approx(truth.mean(), abs=0.05)


def test_recent_rows_count_more_in_parts_too(cluster, flights, tmp_path):
    """Until May the rows say the opposite of what is true."""
    path, test = flights["binary"]
    signature, half_life = signature_of("binary"), HalfLife("at", timedelta(days=5))
    train = pd.read_parquet(path)
    train["at"] = pd.date_range("2013-01-01", "2013-06-30", len(train), tz="UTC").as_unit("us")
    old = train["at"] < pd.Timestamp("2013-05-01", tz="UTC")
    train["y"] = train["y"].where(~old, train["y"].map({"no": "yes", "yes": "no"}))
    train.to_parquet(tmp_path / "train.parquet", index=False)
    frame, truth = typed(test, signature), target_of(test, signature)
    found = {}
    for name, given in {"even": None, "aged": half_life}.items():
        rows = tmp_path / "train.parquet"
        fitted = fit("binary", flights, tmp_path / name, rows=rows, half_life=given, params=FEW)
        assert fitted.shards == 2
        bundle = Bundle.load(tmp_path / name, fitted.digest)
        found[name] = roc_auc_score(truth, bundle.raw(frame)[:, 1])
    assert found["even"] < 0.5
    assert found["aged"] > 0.6


def test_an_estimator_that_cannot_be_sharded_learns_from_what_fits(cluster, flights, tmp_path):
    estimator = "sklearn.ensemble.HistGradientBoostingClassifier"
    fitted = fit(
        "binary", flights, tmp_path / "bundle", estimator=estimator, params={"max_iter": 5}
    )
    assert fitted.shards == 1
    assert fitted.rows == rows_within(len(NUMERIC) + len(CATEGORICAL), LIMIT_BYTES)
    Bundle.load(tmp_path / "bundle", fitted.digest)


def test_without_a_limit_one_process_learns_from_all_rows(cluster, flights, tmp_path):
    fitted = fit("binary", flights, tmp_path / "bundle", limit=None, params=FEW)
    rows = len(pd.read_parquet(flights["binary"][0], columns=["y"]))
    assert (fitted.rows, fitted.shards) == (rows, 1)


def shards_running():
    """The processes that train, of this test's own Ray."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::Shard"):
                found.append(process)
    return found


class Killer:
    """Ends a process in the middle of training, so many times."""

    def __init__(self, times):
        self.left = times
        self.said = []

    def __call__(self, text):
        self.said.append(text)
        if self.left and text.endswith(" rounds done") and not text.endswith(" 0 rounds done"):
            self.left -= 1
            os.kill(max(shards_running(), key=lambda p: p.pid).pid, signal.SIGKILL)


def train(flights, say=lambda _: None, **changes):
    settings = {"n_estimators": 80, "max_depth": 8}
    return fit_sharded(
        flights["binary"][0],
        signature_of("binary"),
        "xgboost.XGBClassifier",
        settings | changes,
        seed=0,
        shards=2,
        limit_bytes=LIMIT_BYTES,
        say=say,
        patience_s=120,
    )


def test_after_a_killed_process_the_same_model_comes_out(cluster, flights):
    killer = Killer(1)
    fitted = train(flights, killer)
    assert killer.left == 0
    assert "a process died: training starts again" in killer.said
    whole = train(flights)
    assert fitted["model"].get_booster().save_raw() == whole["model"].get_booster().save_raw()
    deadline = time.monotonic() + 10
    while shards_running():  # Ray ends them in its own time
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_processes_that_die_again_and_again_end_in_one_sentence(cluster, flights, monkeypatch):
    monkeypatch.setattr(sharded, "_TRIES", 2)
    killer = Killer(2)
    with pytest.raises(TrainingError, match="training in 2 processes failed 2 times") as caught:
        train(flights, killer)
    assert killer.left == 0
    assert "\n" not in caught.value.message
    assert "ray.memory" in caught.value.hint


def test_a_setting_that_xgboost_refuses_is_not_tried_again(cluster, flights):
    said = []
    with pytest.raises(TrainingError, match=r"XGBoost refused the setting: .*max_depth") as caught:
        train(flights, said.append, max_depth=-3)
    assert "\n" not in caught.value.message
    assert "a process died: training starts again" not in said


def test_rows_that_cannot_be_read_are_told_at_once(cluster, flights, tmp_path):
    path = tmp_path / "train.parquet"
    shutil.copy(flights["binary"][0], path)
    rows = pd.read_parquet(path)
    rows.assign(y=rows["y"].where(rows.index != len(rows) - 1)).drop(columns="dest").to_parquet(
        path
    )
    with pytest.raises(TrainingError, match=r"training failed: .*dest"):
        train({"binary": (path, None)})
