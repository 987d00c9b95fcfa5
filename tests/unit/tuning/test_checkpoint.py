"""A trial that is cut off goes on from where it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdtrue.declaration import Pruner
from holdtrue.tuning import _checkpoint
from holdtrue.tuning._boost import Boosting
from holdtrue.tuning._checkpoint import Checkpoint, Progress, checkpoints, remove_checkpoints
from holdtrue.tuning._folds import Fold
from holdtrue.tuning._trial import Contender, FoldsObjective
from holdtrue.tuning._types import Outcome, Setting
from tests.unit.tuning.listener import Listener

CLASSES = ("no", "yes")
ROUNDS = 24
XGB = Contender("xgboost.XGBClassifier", {"n_estimators": ROUNDS}, "plain", ())
FOREST = Contender("sklearn.ensemble.RandomForestClassifier", {"n_estimators": 5}, "plain", ())
SETTING = Setting("a", {"max_depth": 3})


@pytest.fixture
def objective(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FoldsObjective:
    """Writes after each round."""
    monkeypatch.setattr(_checkpoint, "EVERY_S", 0.0)
    monkeypatch.setattr(_checkpoint, "_SHARE", 0)
    chance = np.random.default_rng(0)
    x = chance.normal(size=(120, 3)).astype("float32")
    y = (x[:, 0] + chance.normal(size=120) > 0).astype("int64")
    parts = np.array_split(np.arange(120), 3)
    folds = [Fold(np.delete(x, p, 0), np.delete(y, p), x[p], y[p]) for p in parts]
    return FoldsObjective(
        {"a": replace(XGB, folds=folds), "forest": replace(FOREST, folds=folds)},
        "log_loss",
        CLASSES,
        seed=0,
        rule=Pruner(rule="median"),
        costs=("model_kb",),
        checkpoints=str(tmp_path / "checkpoints"),
    )


def run(objective: FoldsObjective, wanted: bool, setting: Setting = SETTING) -> Outcome:
    return objective(setting, Listener(wanted=wanted))


def files(objective: FoldsObjective) -> list[Path]:
    return sorted(Path(str(objective.checkpoints)).glob("*"))


@pytest.mark.parametrize("wanted", [True, False], ids=["side by side", "fold by fold"])
@pytest.mark.parametrize("after", [1, 20, 30, 50, 71])
def test_rounds_go_on(
    objective: FoldsObjective, monkeypatch: pytest.MonkeyPatch, wanted: bool, after: int
) -> None:
    whole = run(replace(objective, checkpoints=None), wanted)
    real, rounds = Boosting.advance, []

    def advance(self: Boosting, n_rounds: int) -> None:
        if len(rounds) == after:
            raise KeyboardInterrupt  # as if the process were killed: nothing is tidied up
        rounds.append(n_rounds)
        real(self, n_rounds)

    monkeypatch.setattr(Boosting, "advance", advance)
    with pytest.raises(KeyboardInterrupt):
        run(objective, wanted)
    rounds.append(0)  # from here on it is not cut off
    listener = Listener(wanted=wanted)
    found = objective(SETTING, listener)
    trained = rounds[after + 1 :]
    # Of folds side by side the last round was not whole yet.
    kept = after - after % 3 if wanted else after
    assert len(trained) == 3 * ROUNDS - kept
    assert found.state == "complete"
    assert found.share == 1.0
    assert found.fold_values == pytest.approx(whole.fold_values, rel=1e-4)
    assert [report.step for report in found.reports] == [report.step for report in whole.reports]
    assert [report.value for report in found.reports] == pytest.approx(
        [report.value for report in whole.reports], rel=1e-4
    )
    assert [report.step for report in listener.heard] == [report.step for report in whole.reports]
    assert found.costs == pytest.approx(whole.costs, rel=0.01)
    assert files(objective) == []


def test_folds_that_are_done_are_not_fitted_again(
    objective: FoldsObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.ensemble import RandomForestClassifier

    setting = Setting("forest", {})
    whole = run(replace(objective, checkpoints=None), True, setting)
    real, fits = RandomForestClassifier.fit, []

    def fit(self: Any, *arguments: Any, **named: Any) -> Any:
        fits.append(len(fits))
        if len(fits) == 3:
            raise KeyboardInterrupt
        return real(self, *arguments, **named)

    monkeypatch.setattr(RandomForestClassifier, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        run(objective, True, setting)
    found = run(objective, True, setting)
    assert len(fits) == 4
    assert found.fold_values == whole.fold_values
    assert (found.state, found.share) == ("complete", 1.0)
    assert files(objective) == []


def test_what_was_done_in_another_way_or_cannot_be_read_is_done_anew(
    objective: FoldsObjective,
) -> None:
    whole = run(replace(objective, checkpoints=None), False)
    checkpoint = Checkpoint(objective.checkpoints, SETTING)
    checkpoint.write(lambda: Progress("side by side", (0.1,), boosters=("{}",) * 3))
    (path,) = files(objective)
    written = path.read_bytes()
    contents = (b"", b"[]", b'{"way": "folds in rounds"}', b"\xff")
    digests = (hashlib.sha256(content).hexdigest().encode() for content in contents)
    for content in (written, b"", b"\n", *map(b"\n".join, zip(digests, contents, strict=True))):
        path.write_bytes(content)
        found = run(objective, False)
        assert found.fold_values == whole.fold_values
        assert files(objective) == []


@pytest.mark.parametrize("wanted", [True, False], ids=["side by side", "fold by fold"])
def test_a_file_that_is_not_as_it_was_written_is_not_read(
    objective: FoldsObjective, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    whole = run(replace(objective, checkpoints=None), wanted)
    real = Boosting.advance

    def advance(self: Boosting, n_rounds: int) -> None:
        if n_rounds > ROUNDS // 2:
            raise KeyboardInterrupt
        real(self, n_rounds)

    with monkeypatch.context() as patched:
        patched.setattr(Boosting, "advance", advance)
        with pytest.raises(KeyboardInterrupt):
            run(objective, wanted)
    (path,) = files(objective)
    written = path.read_bytes()
    assert Checkpoint(objective.checkpoints, SETTING).read(json.loads(written[65:])["way"]).boosters
    for at in (0, 64, 65, len(written) // 2, len(written) - 1):
        path.write_bytes(written[:at] + b"~" + written[at + 1 :])
        found = run(objective, wanted)
        assert (found.state, found.share) == ("complete", 1.0)
        assert found.fold_values == whole.fold_values
        assert found.reports == whole.reports


def test_another_setting_has_another_file(objective: FoldsObjective) -> None:
    for params in ({"max_depth": 3}, {"max_depth": 4}, {}):
        Checkpoint(objective.checkpoints, Setting("a", params)).write(lambda: Progress("folds"))
    Checkpoint(objective.checkpoints, Setting("b", {})).write(lambda: Progress("folds"))
    assert len(files(objective)) == 4


def test_a_folder_that_cannot_be_written_to_ends_no_trial(
    objective: FoldsObjective, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    found = run(replace(objective, checkpoints=str(tmp_path / "file" / "folder")), True)
    assert found.state == "complete"
    assert len(caplog.records) == 1
    assert "its trial goes on" in caplog.text


def test_a_trial_that_is_short_writes_nothing(
    objective: FoldsObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_checkpoint, "EVERY_S", 30.0)
    monkeypatch.setattr(Checkpoint, "write", None)
    assert run(objective, True).state == "complete"


def test_nothing_is_left_of_a_search_that_is_over(tmp_path: Path) -> None:
    log = tmp_path / "study.log"
    Checkpoint(str(checkpoints(log)), SETTING).write(lambda: Progress("folds"))
    assert len([*tmp_path.rglob("*.json")]) == 1
    remove_checkpoints(log)
    remove_checkpoints(log)
    assert [*tmp_path.iterdir()] == []
