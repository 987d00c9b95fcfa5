"""A deterministic search gives the same trials and the same model with any number of workers."""

from __future__ import annotations

import json

import pytest

from holdtrue.plan import Journal
from holdtrue.system import System

pytestmark = pytest.mark.e2e

TIMES = {"seconds", "cpu_seconds"}


def test_one_two_and_four_workers_make_the_same_model(new_project, monkeypatch):
    found = []
    for workers in (1, 2, 4):
        project = new_project()
        text = project.file.read_text()
        start, end = text.index("tune: {"), text.index("}", text.index("tune: {")) + 1
        project.file.write_text(
            f"{text[:start]}tune: {{metric: log_loss, trials: 24, folds: 2, sample: 10%, "
            f"deterministic: true, pruner: median, parallel: {workers}}}{text[end:]}"
        )
        for name, value in project.environment.items():
            monkeypatch.setenv(name, value)
        # As many as are asked for, whatever this machine has; the fit takes all of them, too.
        monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", json.dumps({"CPU": workers}))
        project.ask("apply", project.file, "--until", "fit")
        system = System(project.file)
        study, fit = system.study(), Journal(system.store, system.declaration.name).last("fit")
        trials = [trial.model_dump(mode="json", exclude=TIMES) for trial in study.trials]
        assert study.workers == workers
        found.append((trials, study.best, fit.output["digest"]))
    assert found[0] == found[1]
    assert found[0] == found[2]
    assert len(found[0][0]) == 24
    assert any(trial["state"] == "pruned" for trial in found[0][0])
