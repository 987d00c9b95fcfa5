from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdtrue.errors import StackError
from holdtrue.running import began_step, training_lock, training_of
from holdtrue.store import Store, alone
from holdtrue.system import System

DECLARED = """
name: small
task: classification
data: {source: {python: slow.load}, target: y, time: at}
model: {candidates: [{estimator: sklearn.linear_model.LogisticRegression}]}
tune: {metric: log_loss}
"""
SLOW = """
import time

def load(start, end):
    time.sleep(600)
"""


def test_a_training_that_runs_or_was_killed_is_seen(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.write_text(DECLARED)
    (small.parent / "slow.py").write_text(SLOW)
    monkeypatch.chdir(small.parent)
    system, before = System(small), datetime.now(UTC).replace(microsecond=0)
    assert system.status().training is None
    command = [sys.executable, "-m", "holdtrue.cli", "apply", "small.yaml", "--until", "check"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=os.environ | {"PREFECT_API_URL": ""}, **quiet) as process:  # noqa: S603
        deadline = time.monotonic() + 60
        while (seen := system.status().training) is None or seen.step is None:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert before <= seen.began <= datetime.now(UTC)
        began = f"{seen.began:%Y-%m-%d %H:%M} UTC"
        assert (seen.runs, str(seen)) == (True, f"running since {began}, at extract")
        with pytest.raises(StackError, match="runs already"):
            system.apply()
        assert system.status().training == seen  # the one that was refused has not touched it
        process.kill()
    gone = system.status().training
    assert gone == seen.model_copy(update={"runs": False})
    assert str(gone) == (
        f"began {began}, did not end (at extract): its process is gone; "
        "the next one goes on from there"
    )


def test_a_step_of_an_earlier_training_is_not_taken_for_that_of_a_new_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lock = training_lock(store, "small")
    began_step(store, "small", "extract")  # of what runs beside no training
    assert not lock.exists()
    lock.parent.mkdir()
    lock.touch()
    assert training_of(store, "small") is None
    lock.write_text("2024-01-01T00:00:00+00:00\nextract\nserve\n")
    left = training_of(store, "small")
    assert left is not None
    assert (left.began, left.step, left.runs) == (datetime(2024, 1, 1, tzinfo=UTC), "serve", False)
    with alone(lock, "a training of small"):
        seen = training_of(store, "small")
        assert seen is not None
        assert (seen.step, str(seen)) == (None, f"running since {seen.began:%Y-%m-%d %H:%M} UTC")
        began_step(store, "small", "extract")
        assert training_of(store, "small") == seen.model_copy(update={"step": "extract"})
    assert training_of(store, "small") is None
