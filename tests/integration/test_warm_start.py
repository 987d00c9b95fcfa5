"""What a second training of the same system begins with, on real Ray."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import yaml

from holdtrue.references import Study
from holdtrue.stack import Stack, ray_session
from holdtrue.store import HOME_VARIABLE, Store
from holdtrue.system import System

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

LINEAR = "sklearn.linear_model.LogisticRegression"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project's folder with rows of two months, and a Ray of this file's own."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "pyproject.toml").touch()
    chance = np.random.default_rng(0)
    size = chance.normal(size=600)
    frame = pd.DataFrame(
        {
            "at": pd.date_range("2024-01-01", periods=600, freq="2h"),
            "size": size,
            "dear": np.where(size + chance.normal(size=600) > 0, "yes", "no"),
        }
    )
    frame.to_parquet(folder / "rows.parquet", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(HOME_VARIABLE, raising=False)
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        patch.setattr(sys, "path", list(sys.path))
        patch.chdir(folder)
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
            patch.delenv(name, raising=False)
        with ray_session(Stack(Store(folder / "store")), None):
            yield folder


def system(project: Path, name: str, as_of: str, high: float = 10.0, **tune: Any) -> System:
    path = project / f"{name}.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": name,
                "task": "classification",
                "data": {
                    "source": {"files": "rows.parquet"},
                    "target": "dear",
                    "time": "at",
                    "as_of": as_of,
                },
                "model": {
                    "candidates": [
                        {
                            "estimator": LINEAR,
                            "space": {"C": {"float": [0.01, high], "log": True}},
                        }
                    ]
                },
                "tune": {"metric": "log_loss", "trials": 4, "folds": 3, **tune},
            }
        )
    )
    return System(path)


def test_the_second_search_begins_with_the_first_ones_best_and_then_the_live_model(
    project: Path,
) -> None:
    first = system(project, "warm", "2024-02-01").tune()
    assert [trial.origin for trial in first.trials] == ["default"] + ["sampler"] * 3
    assert first.notes == ()

    # Nothing is live yet.
    second = system(project, "warm", "2024-02-10").tune()
    assert second.log != first.log
    assert second.trials[0].origin == "earlier"
    assert second.trials[0].params == pytest.approx(first.best_trial.params)

    # Trained through to the registry: this version is the live model.
    made = system(project, "warm", "2024-02-10").apply(until="register")
    assert made.champion == 1
    live = next(done.output for done in made.steps if done.step == "fit").params["C"]
    assert live == pytest.approx(second.best_trial.params["C"])
    third = system(project, "warm", "2024-02-19").tune()
    assert third.trials[0].origin == "champion"
    assert third.trials[0].params["C"] == pytest.approx(live)
    assert third.notes == ()

    # A space that the live model is not in any more.
    narrow = system(project, "warm", "2024-02-19", high=live / 2).tune()
    assert narrow.trials[0].origin == "champion"
    assert narrow.trials[0].params["C"] == pytest.approx(live / 2)
    assert f"live model: C {live:.6g} clipped to {live / 2:.6g}" in narrow.notes

    afresh = system(project, "warm", "2024-02-19", warm_start=False).tune()
    assert {trial.origin for trial in afresh.trials} == {"default", "sampler"}


def test_a_search_is_of_one_system(project: Path) -> None:
    ours, theirs = (system(project, name, "2024-02-01").tune() for name in ("ours", "theirs"))
    assert ours.log.startswith("studies/ours/")
    assert theirs.log.startswith("studies/theirs/")


def test_an_earlier_study_that_cannot_be_read_is_only_noted(project: Path) -> None:
    first = system(project, "unreadable", "2024-02-01").tune()
    log = project / ".holdtrue" / first.log
    broken = log.with_name("broken.log")
    broken.write_text(json.dumps({"op_code": 99, "worker_id": "later"}) + "\n")
    second = system(project, "unreadable", "2024-02-10").tune()
    assert second.trials[0].origin == "earlier"
    (note,) = second.notes
    assert note.startswith("earlier studies: broken.log cannot be read: ")


def test_more_trials_are_those_of_the_study_that_goes_on(project: Path) -> None:
    first = system(project, "further", "2024-02-01").tune()
    more = system(project, "further", "2024-02-01").tune(trials="+2")
    assert more.log == first.log
    assert len(more.trials) == 6
    assert more.trials[:4] == first.trials
    # Other data: a study of its own, of which there is nothing yet.
    other = system(project, "further", "2024-02-10").tune(trials="+2")
    assert other.log != first.log
    assert len(other.trials) == 6
    # One that any trial reaches.
    stop = {"goal": 10.0}
    ended = system(project, "further", "2024-02-10", stop=stop).tune(trials="+2")
    assert ended.log == other.log
    assert len(ended.trials) == 6
    assert f"--trials +2 tried no more: {ended.stopped}" in ended.notes


def test_a_small_space_is_tried_whole_and_once(project: Path) -> None:
    declared = system(project, "small-space", "2024-02-01", high=0.01)
    study = declared.tune()
    assert [trial.params for trial in study.trials] == [{"C": 0.01}]
    assert study.stopped == "every combination was tried"
    assert Study.model_validate(study.model_dump()) == study
    more = declared.tune(trials="+5")
    assert "--trials +5 tried no more: every combination was tried" in more.notes
