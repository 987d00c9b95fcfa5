"""From a declaration to a fitted bundle on real Ray: `model: auto`, own estimators, a limit."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import yaml

from holdtrue.declaration import Model
from holdtrue.errors import ConfigError, TrainingError
from holdtrue.models import Bundle, Signature
from holdtrue.models._fit_on_ray import fit_on_ray
from holdtrue.models._served import ServedModel
from holdtrue.plan import Applied
from holdtrue.references import ModelRef, Study
from holdtrue.rehearsal import rehearse
from holdtrue.stack import Stack, ray_session
from holdtrue.store import HOME_VARIABLE, Store
from holdtrue.system import System

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

LOGISTIC = "sklearn.linear_model.LogisticRegression"
OWN = """
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin


class Median(RegressorMixin, BaseEstimator):
    def __init__(self, shift=0.0):
        self.shift = shift

    def fit(self, x, y):
        self.middle_ = float(np.median(y))
        return self

    def predict(self, x):
        return np.full(len(x), self.middle_ + self.shift)


class Gpus(Median):
    def fit(self, x, y):
        import ray

        self.middle_ = float(len(ray.get_gpu_ids()))
        return self


class Locked(Median):
    def __init__(self, shift=0.0):
        import threading

        self.shift, self.lock = shift, threading.Lock()
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project's folder, which is the working folder, and a Ray of this file's own."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "pyproject.toml").touch()
    (folder / "own_medians.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(HOME_VARIABLE, raising=False)
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        patch.setattr(sys, "path", list(sys.path))
        patch.chdir(folder)
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
            patch.delenv(name, raising=False)
        # Ray hands out a GPU as it would if there were one, and a second CPU.
        cpus = max(os.cpu_count() or 1, 2)
        patch.setenv("RAY_OVERRIDE_RESOURCES", json.dumps({"CPU": cpus, "GPU": 1}))
        with ray_session(Stack(Store(folder / "store")), None):
            yield folder


def rows(count: int) -> pd.DataFrame:
    chance = np.random.default_rng(0)
    frame = pd.DataFrame({"size": chance.normal(size=count), "age": chance.normal(size=count)})
    noise = chance.normal(scale=0.5, size=count)
    return frame.assign(price=3 * frame["size"] - frame["age"] + noise)


def apply(project: Path, name: str, frame: pd.DataFrame, **sections: Any) -> Applied:
    """Run the steps up to the fit."""
    frame.to_parquet(project / f"{name}.parquet", index=False)
    (project / f"{name}.yaml").write_text(
        yaml.safe_dump(
            {
                "name": name,
                "data": {
                    "source": {"files": f"{name}.parquet"},
                    "target": "price",
                    "as_of": "2024-01-31",
                },
                **sections,
            }
        )
    )
    return System(project / f"{name}.yaml").apply(until="fit")


def outputs(applied: Applied) -> tuple[Study, ModelRef]:
    found = {done.step: done.output for done in applied.steps}
    return Study.model_validate(found["tune"]), ModelRef.model_validate(found["fit"])


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_auto_lets_every_kind_of_model_compete_and_fits_the_best(project: Path, task: str) -> None:
    frame = rows(400)
    if task == "classification":
        frame["price"] = np.where(frame["price"] > 0, "dear", "cheap")
    name = f"auto-{task}"
    applied = apply(
        *(project, name, frame), task=task, model="auto", tune={"trials": 5, "folds": 2}
    )
    study, model = outputs(applied)
    tried = Counter(trial.candidate for trial in study.trials)
    assert len(study.trials) == 5
    assert len(tried) == 4
    assert all(trial.state == "complete" for trial in study.trials)
    best = study.best_trial
    assert best.value == min(trial.value for trial in study.trials if trial.value is not None)
    assert model.estimator == best.candidate
    assert model.params | best.params == model.params
    assert model.shards == 1
    bundle = Bundle.load(System(project / f"{name}.yaml").store.path(model.bundle), model.digest)
    answered = bundle.predict(bundle.frame([{"size": 2.0, "age": 0.0}, {"size": -2.0, "age": 0.0}]))
    if task == "classification":
        assert bundle.signature.classes == ("cheap", "dear")
        assert answered[0, 1] > 0.8 > 0.2 > answered[1, 1]
    else:
        assert answered[0] > 3 > -3 > answered[1]


def test_a_model_that_costs_too_much_is_not_chosen(project: Path) -> None:
    space = {"n_estimators": {"int": [2, 300], "log": True}, "max_depth": {"int": [1, 6]}}
    study, model = outputs(
        apply(
            *(project, "costly", rows(400)),
            task="regression",
            model={"candidates": [{"estimator": "xgboost.XGBRegressor", "space": space}]},
            tune={
                **{"trials": 16, "folds": 2, "limits": {"model_kb": 25}},
                "choose": {"least": "predict_ms", "within": "10%"},
            },
        )
    )
    assert {trial.state for trial in study.trials} == {"complete"}
    for trial in study.trials:
        assert trial.costs.keys() == {"model_kb", "predict_ms"}
        assert trial.within_limits == (trial.costs["model_kb"] <= 25)
    fitting = [trial for trial in study.trials if trial.within_limits]
    assert 0 < len(fitting) < 16
    least = min(trial.value or 0.0 for trial in fitting)
    near = [trial for trial in fitting if (trial.value or 0.0) <= 1.1 * least]
    fastest = min(near, key=lambda trial: trial.costs["predict_ms"])
    assert study.best_trial.costs["predict_ms"] == fastest.costs["predict_ms"]
    assert model.params | study.best_trial.params == model.params


def test_an_estimator_of_the_project_is_searched_written_and_loaded(project: Path) -> None:
    candidate = {
        "estimator": "own_medians.Median",
        "space": {"shift": {"float": [-1.0, 1.0]}},
    }
    frame = rows(200)
    applied = apply(
        *(project, "own", frame),
        task="regression",
        model={"candidates": [candidate]},
        tune={"metric": "rmse", "trials": 3, "folds": 2},
    )
    study, model = outputs(applied)
    assert [trial.reason for trial in study.trials] == [None] * 3
    path = System(project / "own.yaml").store.path(model.bundle)
    served = ServedModel.load(path, model.digest)
    served.verify()
    assert (served.estimator, served.compiled) == ("own_medians.Median", False)


def test_an_estimator_that_cannot_be_written_is_refused_before_the_data_are_read(
    project: Path,
) -> None:
    with pytest.raises(ConfigError, match=r"own_medians\.Locked cannot be written without pickle"):
        apply(
            *(project, "locked", rows(200)),
            task="regression",
            model={"candidates": [{"estimator": "own_medians.Locked"}]},
            tune={"metric": "rmse", "trials": 3},
        )
    assert not System(project / "locked.yaml").store.path("data", "locked").exists()


def test_the_huber_loss_suits_a_target_far_from_0(project: Path) -> None:
    frame = rows(600)
    frame["price"] = 200 + 16 * frame["price"]
    study, model = outputs(
        apply(
            *(project, "huber", frame),
            task="regression",
            model={"candidates": "auto", "loss": "huber"},
            tune={"metric": "mae", "trials": 3, "folds": 2},
        )
    )
    assert model.estimator == "xgboost.XGBRegressor"
    assert model.params["base_score"] == pytest.approx(200, abs=10)
    assert study.best_trial.value is not None
    assert study.best_trial.value < 0.5 * (frame["price"] - frame["price"].median()).abs().mean()
    path = System(project / "huber.yaml").store.path(model.bundle)
    bundle = Bundle.load(path, model.digest)
    assert bundle.compilation.compiled
    answered = bundle.predict(bundle.frame([{"size": 1.0, "age": 0.0}, {"size": -1.0, "age": 0.0}]))
    assert answered == pytest.approx([248, 152], abs=20)


@pytest.mark.parametrize(("gpus", "seen"), [(0.0, 0), (0.5, 1), (1.0, 1)])
def test_the_fit_has_the_gpus_of_a_trial(project: Path, gpus: float, seen: int) -> None:
    path = project / "gpus.parquet"
    rows(60).to_parquet(path, index=False)
    signature = Signature(
        target="price",
        task="regression",
        classes=None,
        columns={"size": "number", "age": "number"},
        categorical=(),
    )
    fitted = fit_on_ray(
        *(path, project / f"gpus-{gpus}", signature, "own_medians.Gpus", {}),
        seed=0,
        model=Model.model_validate({"candidates": [{"estimator": "own_medians.Gpus"}]}),
        folds=2,
        ordered=False,
        gpus=gpus,
    )
    bundle = Bundle.load(project / f"gpus-{gpus}", fitted.digest)
    assert bundle.expected[0] == seen


@pytest.fixture(scope="module")
def many() -> pd.DataFrame:
    """A hundred thousand rows: at 12 MB one process cannot be fitted on what is trained on."""
    return rows(100_000)


def limited(project: Path, name: str, many: pd.DataFrame, memory: str) -> Applied:
    candidate = {"estimator": "xgboost.XGBRegressor", "params": {"n_estimators": 20}}
    return apply(
        *(project, name, many),
        task="regression",
        model={"candidates": [candidate]},
        tune={"metric": "rmse", "trials": 1, "folds": 2, "sample": "2%"},
        ray={"memory": memory},
    )


def test_rows_beyond_the_declared_memory_are_trained_on_by_two_processes(
    project: Path, many: pd.DataFrame
) -> None:
    _, model = outputs(limited(project, "limited", many, "12MB"))
    assert model.shards == 2
    assert 71_428 < model.rows < 100_000  # all training rows, more than one process can take
    path = System(project / "limited.yaml").store.path(model.bundle)
    bundle = Bundle.load(path, model.digest)
    answered = bundle.predict(bundle.frame([{"size": 1.0, "age": 0.0}, {"size": -1.0, "age": 0.0}]))
    assert answered[0] > 1.5 > -1.5 > answered[1]


def test_what_the_declared_memory_cannot_hold_is_refused_before_the_search(
    project: Path, many: pd.DataFrame
) -> None:
    with pytest.raises(TrainingError) as caught:
        limited(project, "tight", many, "6.5MB")
    assert "tight.yaml:" in caught.value.message
    assert ": ray.memory: to train on 80,000 rows within" in caught.value.message
    assert "candidate xgboost.XGBRegressor could not be fitted" in caught.value.message
    assert not System(project / "tight.yaml").store.path("studies", "tight").exists()


def test_a_rehearsal_goes_from_rows_to_a_proven_model_and_leaves_nothing(project: Path) -> None:
    frame = rows(2_000)
    frame["price"] = np.where(frame["price"] > 0, "dear", "cheap")
    frame.to_parquet(project / "rehearsed.parquet", index=False)
    declared: dict[str, Any] = {
        "name": "rehearsed",
        "task": "classification",
        "data": {"source": {"files": "rehearsed.parquet"}, "target": "price"},
        "model": {"candidates": [{"estimator": LOGISTIC, "space": {"C": {"float": [0.1, 10]}}}]},
        "tune": {"trials": 50},
        "promote": [
            {"metric": "roc_auc", "at_least": 0.8},
            {"metric": "roc_auc", "at_least": 0.9999},
            {"metric": "log_loss", "better_than": "champion"},
        ],
    }
    file = project / "rehearsed.yaml"
    file.write_text(yaml.safe_dump(declared))
    before = sorted(project.rglob("*"))
    reports = project.parent / f"{project.name}-reports"
    seen = rehearse(System(file), rows=500, keep=reports)
    assert (seen.rows, seen.set_aside, seen.sampled, seen.trials) == (2_000, 0, 500, 2)
    assert seen.metrics["roc_auc"].value > 0.8
    assert [gate.state for gate in seen.gates] == ["holds", "missed", "not judged"]
    assert seen.missed == (seen.gates[1],)
    assert "1 gate missed" in seen.title
    assert seen.compilation is not None
    assert seen.compilation.compiled
    assert {page.stem for page in reports.rglob("*.html")} == {
        *("data", "tuning", "evaluation", "index", "run")
    }
    assert sorted(project.rglob("*")) == before
    assert not seen.markdown().count("\n\n\n")


def complaints() -> pd.DataFrame:
    """Rows of 40 days; from the 32nd on one in eight goes to court, most of them by a new way."""
    chance, count = np.random.default_rng(0), 2_000
    at = pd.date_range("2024-01-01", periods=count, freq="28min48s", tz="UTC")
    reason = np.array(["price", "service"])[chance.integers(0, 2, count)].astype(object)
    new = (np.arange(count) >= 1_600) & (chance.random(count) < 1 / 8)
    reason[new] = "litigation"
    tone = np.where(reason == "price", 0.0, 1.5) + chance.normal(size=count)
    way = np.where(
        new & (chance.random(count) < 0.9), "court", chance.choice(["web", "phone"], count)
    )
    return pd.DataFrame({"at": at, "tone": tone, "way": way, "reason": reason})


@pytest.mark.parametrize(
    ("estimator", "calibrate"),
    [("xgboost.XGBClassifier", None), (LOGISTIC, "isotonic")],
)
def test_a_class_that_appears_late_is_learnt_and_wins_over_a_champion_of_fewer(
    project: Path, estimator: str, calibrate: str | None
) -> None:
    name = f"late-{calibrate or 'plain'}"
    complaints().to_parquet(project / f"{name}.parquet", index=False)
    declared: dict[str, Any] = {
        "name": name,
        "task": "classification",
        "data": {"source": {"files": f"{name}.parquet"}, "target": "reason", "time": "at"},
        "model": {"candidates": [{"estimator": estimator}], "calibrate": calibrate},
        "tune": {"metric": "log_loss", "trials": 1, "folds": 2},
        "evaluate": {"test": "4d", "metrics": ["log_loss", "roc_auc"]},
        "promote": [
            {"metric": "log_loss", "better_than": "champion"},
            {"metric": "roc_auc", "at_least": 0.6},
        ],
    }
    (project / f"{name}.yaml").write_text(yaml.safe_dump(declared))
    system = System(project / f"{name}.yaml")

    def train(day: str) -> dict[str, Any]:
        done = system.apply(as_of=datetime.fromisoformat(day).replace(tzinfo=UTC), until="register")
        return {step.step: step.output for step in done.steps}

    # All rows of the new class are test rows: it is none of the model's.
    first = train("2024-02-05T18:00")
    (counts,) = first["split"].untaught.values()
    assert first["evaluate"].classes == ("price", "service")
    assert first["evaluate"].rows == first["split"].test_rows - counts[1]
    said = f"{counts[1]} test rows are of class litigation, of which no training row is"
    assert said in first["gate"].reason
    assert first["register"].promoted
    # The last days that are trained on have some, the folds have none to fit on.
    second = train("2024-02-10")
    assert second["split"].untaught == {}
    assert "have no rows of class litigation" in " ".join(second["tune"].notes)
    assert second["evaluate"].classes == ("litigation", "price", "service")
    assert second["evaluate"].rows == second["split"].test_rows
    assert "of version 1, which does not know class litigation" in second["gate"].reason
    assert second["register"].promoted
    champion = system.registry.champion(name)
    assert champion is not None
    assert champion.version.number == 2
    model = ServedModel.load(system.store.path(champion.version.bundle), champion.version.digest)
    model.verify()
    answered = model.predict(model.encode([{"tone": 1.5, "way": "court"}]))
    assert model.signature.classes is not None
    assert model.signature.classes[int(answered[0].argmax())] == "litigation"


def test_a_refit_serves_what_only_the_test_rows_have(project: Path) -> None:
    complaints().to_parquet(project / "refitted.parquet", index=False)
    candidate = {"estimator": "xgboost.XGBClassifier", "params": {"n_estimators": 40}}
    declared: dict[str, Any] = {
        "name": "refitted",
        "task": "classification",
        "data": {
            "source": {"files": "refitted.parquet"},
            "target": "reason",
            "time": "at",
            "half_life": "60d",
        },
        "model": {"candidates": [candidate], "calibrate": "sigmoid"},
        "tune": {"metric": "log_loss", "trials": 1, "folds": 2},
        "evaluate": {"test": "4d", "metrics": ["log_loss"], "refit": True, "rolling": 3},
        "promote": [{"metric": "log_loss", "better_than": "champion"}],
    }
    file = project / "refitted.yaml"
    file.write_text(yaml.safe_dump(declared))

    def train(day: str, trigger: str) -> dict[str, Any]:
        moment = datetime.fromisoformat(day).replace(tzinfo=UTC)
        done = System(file).apply(as_of=moment, until="register", trigger=trigger)
        return {step.step: step.output for step in done.steps}

    first = train("2024-02-05T18:00", "apply")
    system = System(file)
    version = system.version()
    split, again, parts = first["split"], first["refit"], first["rolling"].fits
    assert again.learnt == ("litigation",)
    assert again.model.rows == split.train_rows + split.test_rows
    assert again.model.effective_rows > first["fit"].effective_rows
    assert again.model.params == first["fit"].params
    assert (version.bundle, version.measured_bundle) == (again.model.bundle, first["fit"].bundle)
    assert first["evaluate"].model == first["fit"].digest == version.measured_digest
    # Labels are a day late: a part is answered by a fit that lacks the day before it.
    assert len(parts) == 3
    assert parts[0].digest == version.measured_digest
    assert all(part.since - part.until == timedelta(days=1) for part in parts[1:])
    known = [part.rows for part in parts]
    assert known == sorted(set(known))
    assert split.train_rows == known[0] < known[-1] < again.model.rows
    assert [part.learnt for part in first["evaluate"].parts] == known
    assert sum(part.rows for part in first["evaluate"].parts) == first["evaluate"].rows
    for part in parts:
        measured = Bundle.load(system.store.path(part.bundle), part.digest)
        assert measured.signature.classes == ("price", "service")
    left = {path.name for path in system.store.path(split.train).parent.iterdir()}
    assert left == {"train.parquet", "test.parquet"}
    served = ServedModel.load(system.store.path(version.bundle), version.digest)
    served.verify()
    assert served.compiled
    assert served.signature.classes == ("litigation", "price", "service")
    answered = served.predict(served.encode([{"tone": 1.5, "way": "court"}]))
    assert served.signature.classes[int(answered[0].argmax())] == "litigation"
    assert system.predict(complaints().tail(50))["prediction"].eq("litigation").any()
    # A limit that cannot be met: the next training is refused, and nothing is fitted once more.
    declared["promote"] = [{"metric": "log_loss", "at_most": 0.001}]
    file.write_text(yaml.safe_dump(declared))
    refused = train("2024-02-10", "drift")
    assert refused["refit"].model is None
    assert not refused["gate"].passed
    assert refused["evaluate"].champion_refitted
    assert refused["evaluate"].champion_lacks == ("litigation",)
    newest = System(file).registry.versions("refitted")[-1]
    assert (newest.bundle, newest.refitted) == (refused["fit"].bundle, False)
    assert System(file).version().number == version.number
    assert System(file).verify().mismatches == ()
    # Once it may be promoted, it is fitted.
    declared["promote"] = []
    file.write_text(yaml.safe_dump(declared))
    passed = train("2024-02-10", "apply")
    assert passed["fit"] == refused["fit"]
    assert System(file).version().bundle == passed["refit"].model.bundle
