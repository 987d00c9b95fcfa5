"""A deterministic search gives the same trials and the same model with any number of workers."""

from __future__ import annotations

import json

import pytest

from holdtrue.plan import Journal
from holdtrue.system import System

pytestmark = pytest.mark.e2e

TIMES = {"seconds", "cpu_seconds"}


FOREST = """\
features: {numeric: [distance, departure_minute, weekday], categorical: [carrier, origin, dest]}

model:
  candidates:
    - estimator: sklearn.ensemble.RandomForestClassifier
      params: {n_estimators: 20}
      space: {min_samples_leaf: {int: [5, 50]}}

"""


def made(new_project, monkeypatch, workers, *, tune, sections=None):
    """Search and fit with so many workers; the trials, the best of them, and the model's digest."""
    project = new_project()
    text = project.file.read_text()
    start, end = text.index("tune: {"), text.index("}", text.index("tune: {")) + 1
    text = (
        f"{text[:start]}tune: {{metric: log_loss, {tune}, folds: 2, sample: 10%, "
        f"deterministic: true, parallel: {workers}}}{text[end:]}"
    )
    if sections is not None:
        text = text[: text.index("features:")] + sections + text[text.index("tune:") :]
    project.file.write_text(text)
    for name, value in project.environment.items():
        monkeypatch.setenv(name, value)
    # As many as are asked for, whatever this machine has.
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", json.dumps({"CPU": workers}))
    project.ask("apply", project.file, "--until", "fit")
    system = System(project.file)
    study, fit = system.study(), Journal(system.store, system.declaration.name).last("fit")
    assert study.workers == workers
    found = [trial.model_dump(mode="json", exclude=TIMES) for trial in study.trials]
    return found, study.best, fit.output["digest"]


def test_one_two_and_four_workers_make_the_same_model(new_project, monkeypatch):
    tune = "trials: 14, pruner: {rule: median, startup: 1}"
    found = [made(new_project, monkeypatch, workers, tune=tune) for workers in (1, 2, 4)]
    assert found[0] == found[1]
    assert found[0] == found[2]
    assert len(found[0][0]) == 14
    assert any(trial["state"] == "pruned" for trial in found[0][0])


def test_a_model_that_is_fitted_by_several_threads_is_the_same_too(new_project, monkeypatch):
    one, two = (
        made(new_project, monkeypatch, workers, tune="trials: 3", sections=FOREST)
        for workers in (1, 2)
    )
    assert one == two
