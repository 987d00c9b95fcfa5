"""A history with a planted change of the world, played on real Ray."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import yaml

from holdtrue.errors import StackError
from holdtrue.store import HOME_VARIABLE, alone
from holdtrue.system import System

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
PER_DAY, DAYS, START, CHANGE = 80, 44, 24, 30


def history() -> pd.DataFrame:
    """What speaks for a purchase speaks against it from a day on; the rows look as before."""
    chance = np.random.default_rng(0)
    count = PER_DAY * DAYS
    frame = pd.DataFrame(
        {
            "id": range(count),
            "at": pd.date_range(FIRST, periods=count, freq=pd.Timedelta(days=1) / PER_DAY),
            "age": chance.normal(size=count),
            "visits": chance.normal(size=count),
        }
    )
    slope = np.where(frame["id"] < CHANGE * PER_DAY, 2, -2)
    likely = 1 / (1 + np.exp(-slope * frame["age"] - frame["visits"]))
    return frame.assign(bought=(chance.random(count) < likely).astype(int))


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    history().to_parquet(tmp_path / "rows.parquet", index=False)
    logistic = "sklearn.linear_model.LogisticRegression"
    content = {
        "name": "shop",
        "task": "classification",
        "data": {
            "source": {"files": "rows.parquet"},
            "target": "bought",
            "time": "at",
            "key": ["id"],
            "window": "24d",
        },
        "model": {"candidates": [{"estimator": logistic, "space": {"C": {"float": [0.1, 10]}}}]},
        "tune": {"metric": "log_loss", "trials": 2, "folds": 2},
        "evaluate": {"test": "2d", "metrics": ["log_loss"]},
        "promote": [{"metric": "log_loss", "better_than": "champion"}],
        "serve": {"rollout": {}, "approve": "1d"},
        "monitor": {
            "every": "2d",
            "performance": {"metric": "log_loss", "worse_than": "10%"},
        },
        "retrain": {"on": ["performance"], "cooldown": "2d", "at_most": "3 per 30d"},
        "automation": "manual",
    }
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(content))
    return System(tmp_path / "shop.yaml")


def test_retraining_pays_after_the_world_has_changed_and_not_before(system: System) -> None:
    found = system.backtest(FIRST + START * DAY)

    first, *again = found.declared.trainings
    assert (first.as_of, first.outcome) == (FIRST + START * DAY, "promoted")
    assert 1 <= len(again) <= 3
    assert all(training.trigger == "performance" for training in again)
    assert all(training.as_of > FIRST + CHANGE * DAY for training in again)
    assert "promoted" in [training.outcome for training in again]
    assert all(training.seconds > 0 for training in found.declared.trainings)
    (never,) = found.policies[1].trainings
    assert never == first

    assert found.declared.rows == found.declared.labelled == (DAYS - START) * PER_DAY
    (compared,) = found.compared
    gain = compared.gains["log_loss"]
    assert gain.low > 0
    assert "better by" in next(found.gains())
    answers = [period.value.value for period in found.declared.periods if period.value]
    others = [period.value.value for period in found.policies[1].periods if period.value]
    assert answers[:3] == others[:3]
    assert answers[-1] < others[-1]

    # Nothing of the system itself was touched, and nothing is left running.
    left = sorted(path.name for path in system.store.root.iterdir())
    assert left == ["backtests"]
    assert not sys.modules["ray"].is_initialized()

    bundles = system.store.path("backtests", "shop", "bundles", "shop")
    trained = {path: path.stat().st_mtime_ns for path in bundles.iterdir()}
    second = system.backtest(FIRST + START * DAY)
    assert {path: path.stat().st_mtime_ns for path in bundles.iterdir()} == trained
    assert second.model_copy(update={"seconds": found.seconds}) == found


def test_two_at_a_time_are_refused(system: System) -> None:
    lock = system.store.path("backtests", "shop.lock")
    with alone(lock, "a backtest of shop"), pytest.raises(StackError, match="runs already"):
        system.backtest(FIRST + START * DAY)
    assert not any(lock.parent.iterdir())
