"""Projects in temporary folders, and one whole loop that several tests look at."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import holdtrue
from configs.flights import load as load_flights
from flows._replay import Replay
from holdtrue.progress import Silent
from holdtrue.serving import Endpoint
from tests.e2e._project import Project

ROOT = Path(__file__).parents[2]
FIRST, SECOND, END = (datetime(2013, 7, day, tzinfo=UTC) for day in (1, 15, 22))
BETTER = "  - {metric: log_loss, better_than: champion, confidence: 95%}\n"
# What a request does not have, and the model sees.
DERIVED = "features:\n  derive: {route: origin + '-' + dest, night: departure_minute >= 1260}\n"


@pytest.fixture(scope="session")
def new_project(tmp_path_factory):
    """Makes projects with the flows of this one and the small flights; ends what they leave up."""
    made = []

    def make() -> Project:
        project = Project(tmp_path_factory.mktemp("project"))
        for name in ("flows", "tasks", "configs"):
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, project.folder / name, ignore=ignore)
        declared = (ROOT / "configs" / "flights-small.yaml").read_text()
        assert "port: 8710" in declared
        assert BETTER in declared
        declared = declared.replace("port: 8710", f"port: {project.port}")
        declared = declared.replace("features:\n", DERIVED, 1)
        assert DERIVED in declared
        project.champions_judge.write_text(declared)
        # So that a second model is promoted for certain, and there is something to go back to.
        project.file.write_text(declared.replace(BETTER, ""))
        made.append(project)
        return project

    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "PREFECT_API_URL"):
            patch.delenv(name, raising=False)
        yield make
        for project in made:
            project.run("down")


@dataclass
class Loop:
    """What was seen on the way through one loop."""

    project: Project
    seen: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="session")
def applied(new_project) -> Loop:
    """Checked, planned and applied twice, in processes of their own, without Prefect."""
    project = new_project()
    loop = Loop(project)
    loop.seen["check"] = project.run("check", project.file)
    loop.seen["plan"] = project.plan(project.file)
    loop.seen["apply"] = project.run("apply", project.file)
    loop.seen["status"] = project.ask("status", project.file)
    loop.seen["again"] = project.run("apply", project.file)
    return loop


@pytest.fixture(scope="session")
def changed(applied) -> Loop:
    """One line of the search space is another, and applied."""
    project = applied.project
    for file in (project.file, project.champions_judge):
        before = file.read_text()
        # No setting fits both, so that it is another model for certain.
        after = before.replace("n_estimators: {int: [40, 120]}", "n_estimators: {int: [130, 160]}")
        assert after != before
        file.write_text(after)
    applied.seen["changed plan"] = project.plan(project.file)
    applied.seen["changed apply"] = project.ask("apply", project.file)
    applied.seen["changed status"] = project.ask("status", project.file)
    return applied


@pytest.fixture(scope="session")
def retrained(changed) -> Loop:
    """Two weeks are replayed; the monitor retrains while the third is answered."""
    project, seen = changed.project, changed.seen
    with pytest.MonkeyPatch.context() as patch:
        for name, value in project.environment.items():
            patch.setenv(name, value)
        replay = Replay(holdtrue.load(project.champions_judge))
    replay.send(FIRST, SECOND, Silent())
    seen["replayed"] = replay.requests
    with replay.in_background(SECOND, END):
        at = SECOND.isoformat()[:19]
        seen["monitor"] = project.ask(
            *("monitor", project.champions_judge, "--as-of", at, "--exit-code"), code=4
        )
        seen["asked meanwhile"] = replay.requests - seen["replayed"]
    replay.close()
    seen["replay"] = replay
    seen["retrained status"] = project.ask("status", project.champions_judge)
    return changed


@pytest.fixture(scope="session")
def scored(retrained) -> Loop:
    """A file of flights is scored by the command and by the endpoint."""
    project, seen = retrained.project, retrained.seen
    rows = load_flights(SECOND, END).sample(200, random_state=0).drop(columns="late")
    rows.to_csv(project.folder / "rows.csv", index=False)
    project.run("predict", project.file, "rows.csv", "--output", "scored.csv")
    seen["scored"] = pd.read_csv(project.folder / "scored.csv")
    key = project.run("key", "show").strip()
    with Endpoint(seen["status"]["endpoint"], key=key) as endpoint:
        records = json.loads(rows.to_json(orient="records", date_format="iso"))
        seen["answered"] = endpoint.predict(records)
    return retrained


@pytest.fixture(scope="session")
def rolled_back(scored) -> Loop:
    """The champion before the last is the champion again."""
    project, seen = scored.project, scored.seen
    seen["rollback"] = project.run("rollback", project.file)
    with Endpoint(seen["status"]["endpoint"]) as endpoint:
        seen["after rollback"] = endpoint.ready()
    seen["rolled back status"] = project.ask("status", project.file)
    seen["rolled back plan"] = project.plan(project.champions_judge)
    return scored


@pytest.fixture(scope="session")
def served_again(rolled_back) -> Loop:
    """Everything was ended, and the champion is served from its files alone."""
    project, seen = rolled_back.project, rolled_back.seen
    project.run("down")
    seen["serve"] = project.ask("serve", project.file)
    with Endpoint(seen["serve"]["endpoint"]) as endpoint:
        seen["after serve"] = endpoint.ready()
    return rolled_back


@pytest.fixture(scope="session")
def whole_loop(served_again) -> Loop:
    """The loop is over and everything is ended."""
    project, seen = served_again.project, served_again.seen
    seen["state"], seen["family"] = project.stack.state(), project.family()
    seen["down"] = project.run("down")
    seen["last status"] = project.ask("status", project.file)
    return served_again
