from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.main import get_command

from holdtrue import __version__
from holdtrue.cli import app
from holdtrue.declaration import load
from holdtrue.plan import steps_until
from holdtrue.serving._deploy import ReplicaCounts
from holdtrue.store import HOME_VARIABLE

Run = Callable[..., tuple[int, str]]
GUESS = """
from sklearn.base import BaseEstimator


class Guess(BaseEstimator):
    def fit(self, x, y):
        return self

    def predict(self, x):
        return [0] * len(x)
"""
COMMANDS = (
    *("init", "check", "plan", "apply", "tune", "study", "status", "monitor", "predict"),
    *("serve", "promote", "rollback", "rollout", "versions", "trace", "logs", "up", "down"),
    *("data", "verify", "batch"),
)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    chance = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "visit_id": range(300),
            "arrived_at": pd.date_range("2024-01-01", periods=300, freq="h"),
            "age": chance.integers(18, 90, 300),
            "ward": chance.choice(["a", "b"], 300),
            "stays": chance.integers(0, 2, 300),
        }
    )
    frame.to_csv(tmp_path / "visits.csv", index=False)
    return tmp_path / "visits.csv"


def test_from_a_file_to_a_plan(run: Run, rows: Path) -> None:
    code, printed = run("init", rows.name, "--target", "stays")
    assert (code, "wrote visits.yaml" in printed) == (0, True)
    code, printed = run("check", "visits.yaml")
    assert (code, "visits is in order (classification; xgboost.XGB" in printed) == (0, True)
    code, printed = run("plan", "visits.yaml")
    count = len(steps_until(None, load(Path("visits.yaml"))))
    assert (code, printed.splitlines()[-1]) == (0, f"{count} of {count} steps would run.")
    code, _ = run("apply", "visits.yaml", "--until", "split")
    assert code == 0
    code, printed = run("plan", "visits.yaml", "--until", "split")
    assert (code, printed.splitlines()[-1]) == (0, "Nothing to do.")
    code, printed = run("apply", "visits.yaml", "--until", "split")
    assert (code, "Nothing to do: every step is done already." in printed) == (0, True)


def test_nothing_is_overwritten(run: Run, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "visits.yaml").write_text("mine")
    code, printed = run("init", rows.name, "--target", "stays")
    assert (code, printed.startswith("error: visits.yaml exists already")) == (2, True)
    assert (tmp_path / "visits.yaml").read_text() == "mine"
    assert run("init", rows.name, "--target", "stays", "--output", "other.yaml")[0] == 0


def test_what_a_file_says_otherwise_is_shown(run: Run, rows: Path, tmp_path: Path) -> None:
    run("init", rows.name, "--target", "stays")
    facts = json.loads(run("check", "visits.yaml", "--json")[1])
    assert (facts["extends"], facts["changes"]) == ([], [])
    over = tmp_path / "staging.yaml"
    over.write_text("extends: visits.yaml\nname: visits-staging\ntune: {trials: 3, cpus: 2}\n")
    code, printed = run("check", over.name)
    trials = load(tmp_path / "visits.yaml").tune.trials
    assert code == 0
    assert printed.splitlines()[1:] == [
        "it extends visits.yaml, and says otherwise:",
        '  name         "visits" -> "visits-staging"',
        "  tune.cpus    null -> 2",
        f"  tune.trials  {trials} -> 3",
    ]
    facts = json.loads(run("check", over.name, "--json")[1])
    assert facts["extends"] == ["visits.yaml"]
    assert facts["changes"][2] == {"key": "tune.trials", "before": trials, "after": 3}
    over.write_text("extends: visit.yaml\nname: visits-staging\n")
    code, printed = run("plan", over.name)
    assert (code, printed.startswith("error: staging.yaml:1:10: extends: visit.yaml: no")) == (
        2,
        True,
    )


@pytest.mark.parametrize(
    ("file", "target", "said"),
    [
        ("visits.csv", "stay", "did you mean `stays`"),
        ("none.csv", "stays", "no such file"),
    ],
)
def test_a_first_declaration_that_cannot_be_written(
    run: Run, rows: Path, file: str, target: str, said: str
) -> None:
    code, printed = run("init", file, "--target", target)
    assert (code, said in printed, "Traceback" in printed) == (2, True, False)


def test_scripts_are_given_json(run: Run, rows: Path) -> None:
    run("init", rows.name, "--target", "stays")
    planned = json.loads(run("plan", "visits.yaml", "--json")[1])
    assert planned[0] == {"step": "extract", "runs": True, "reason": "never run"}
    applied = json.loads(run("apply", "visits.yaml", "--until", "check", "--json")[1])
    assert [(s["step"], s["cached"]) for s in applied["steps"]] == [
        ("extract", False),
        ("check", False),
    ]
    assert (applied["champion"], applied["endpoint"], applied["refused"]) == (None, None, None)
    status = json.loads(run("status", "visits.yaml", "--json")[1])
    assert {"name", "endpoint", "champion", "last_decision"} <= set(status)
    assert (status["name"], status["champion"], status["endpoint"]) == ("visits", None, None)


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    """Every command with its options."""
    for name, child in getattr(command, "commands", {}).items():
        yield from leaves(child, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path), {option for param in command.params for option in param.opts}


def test_what_a_command_says_can_be_read_by_scripts_and_what_it_does_be_tried_out() -> None:
    options = dict(leaves(get_command(app)))
    assert len(options) > 20
    assert [name for name, found in options.items() if "--json" not in found] == []
    assert {name for name, found in options.items() if "--dry-run" in found} == {
        *("new", "apply", "batch", "serve", "promote", "rollback", "key create", "key revoke"),
        *("rollout start", "rollout advance", "rollout stop", "data export", "prune"),
        *("registry move", "backup", "restore"),
    }


def test_facts_are_given_as_json(run: Run, rows: Path, tmp_path: Path) -> None:
    code, printed = run("init", rows.name, "--target", "stays", "--json")
    assert (code, json.loads(printed)) == (0, {"file": "visits.yaml", "name": "visits"})
    checked = json.loads(run("check", "visits.yaml", "--json")[1])
    assert (checked["name"], checked["task"]) == ("visits", "classification")
    assert checked["candidates"][0].startswith("xgboost.XGB")
    assert json.loads(run("down", "--json")[1]) == {"ended": []}


def test_a_dry_run_of_apply_is_the_plan(run: Run, rows: Path, tmp_path: Path) -> None:
    run("init", rows.name, "--target", "stays")
    for more in ([], ["--json"], ["--until", "split"]):
        planned = run("plan", "visits.yaml", *more)
        assert run("apply", "visits.yaml", "--dry-run", *more) == planned
        assert planned[0] == 0
    assert not (tmp_path / ".holdtrue" / "snapshots").exists()
    assert run("plan", "visits.yaml")[1].splitlines()[0].startswith("  run   extract")


QUERY = "SELECT * FROM visits"


@pytest.mark.parametrize(
    ("source", "gone"),
    [
        ({"files": "visits.csv"}, "no file matches visits.csv"),
        ({"database": {"url": "sqlite:///visits.db", "query": QUERY}}, "visits.db does not exist"),
    ],
)
def test_a_plan_says_what_is_done_also_while_the_source_is_away(
    run: Run, rows: Path, tmp_path: Path, source: dict[str, Any], gone: str
) -> None:
    run("init", rows.name, "--target", "stays")
    path = tmp_path / "visits.yaml"
    document = yaml.safe_load(path.read_text())
    document["data"]["source"] = source
    path.write_text(yaml.safe_dump(document))
    with closing(sqlite3.connect(tmp_path / "visits.db")) as database:
        pd.read_csv(rows).to_sql("visits", database, index=False)
    elsewhere = tmp_path / "elsewhere"

    def move(there: Path, back: Path) -> None:
        there.mkdir(exist_ok=True)
        back.mkdir(exist_ok=True)
        for name in ("visits.csv", "visits.db"):
            (back / name).rename(there / name)

    move(elsewhere, tmp_path)
    code, printed = run("plan", "visits.yaml")  # it was never read: there is nothing to say
    assert (code, gone in printed, "extract" in printed) == (2, True, False)
    move(tmp_path, elsewhere)
    assert run("apply", "visits.yaml", "--until", "split")[0] == 0
    before = run("plan", "visits.yaml")
    move(elsewhere, tmp_path)
    code, printed = run("plan", "visits.yaml")
    said, lines = printed.splitlines()[-1], printed.splitlines()[:-1]
    assert (code, lines) == (0, before[1].splitlines())
    assert said.startswith("The source could not be asked whether it has changed: visits.yaml:")
    assert gone in said
    assert run("plan", "visits.yaml", "--json")[0] == 0
    assert run("apply", "visits.yaml", "--until", "split")[0] == 2
    document["data"]["source"] = {"files": "other.csv"}  # what was never read may be misspelt
    path.write_text(yaml.safe_dump(document))
    code, printed = run("plan", "visits.yaml")
    assert (code, "no file matches other.csv" in printed) == (2, True)


@pytest.mark.parametrize("command", [["plan"], ["apply", "--dry-run"], ["check"], ["apply"]])
def test_what_cannot_work_is_refused_before_anything_runs(
    run: Run, rows: Path, tmp_path: Path, command: list[str]
) -> None:
    run("init", rows.name, "--target", "stays")
    document = yaml.safe_load(Path("visits.yaml").read_text())
    document["model"] = {"candidates": [{"estimator": "own_guess.Guess"}]}
    Path("visits.yaml").write_text(yaml.safe_dump(document))
    Path("own_guess.py").write_text(GUESS)
    code, printed = run(command[0], "visits.yaml", *command[1:])
    written = Path("visits.yaml").read_text().splitlines()
    line = next(text for text in written if "own_guess" in text)
    said = (
        f"error: visits.yaml:{written.index(line) + 1}:{line.index('own_guess') + 1}: "
        "model.candidates[0].estimator: estimator own_guess.Guess does not fit classification: "
        "it has no predict_proba and does not derive from sklearn.base.ClassifierMixin\n"
    )
    assert (code, printed) == (2, said)


def test_the_status_says_how_many_replicas_there_are(
    run: Run, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("init", rows.name, "--target", "stays")
    counts = ReplicaCounts(wanted=3, up_to_date=1, ready=2)
    monkeypatch.setattr("holdtrue.serving._deploy.replicas_of", lambda *_: counts)
    printed = run("status", "visits.yaml")[1]
    assert "\nreplicas: 3 wanted, 1 up to date, 2 ready\n" in printed
    found = json.loads(run("status", "visits.yaml", "--json")[1])["replicas"]
    assert found | {"wanted": 3, "up_to_date": 1, "ready": 2} == found


def test_the_status_says_why_no_replica_starts(
    run: Run, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("init", rows.name, "--target", "stays")
    counts = ReplicaCounts(wanted=2, up_to_date=0, ready=0, error="ServingError: x is damaged")
    monkeypatch.setattr("holdtrue.serving._deploy.replicas_of", lambda *_: counts)
    printed = run("status", "visits.yaml")[1]
    assert "0 ready\n  they do not start: ServingError: x is damaged\n" in printed


def test_the_status_of_something_new(run: Run, rows: Path) -> None:
    run("init", rows.name, "--target", "stays")
    code, printed = run("status", "visits.yaml")
    assert code == 0
    assert printed.startswith("visits: not serving\nchampion: none yet; run `holdtrue apply`\n")


def test_nothing_is_up(run: Run) -> None:
    assert run("down") == (0, "nothing was up\n")


def test_help_teaches(run: Run) -> None:
    code, printed = run("--help")
    assert code == 0
    for command in COMMANDS:
        assert f" {command} " in printed
        code, said = run(command, "--help")
        assert (code, "Usage: " in said) == (0, True)
    assert "Exit codes" in printed
    assert run("--version") == (0, f"{__version__}\n")


def test_the_status_of_every_system_that_is_deployed(
    run: Run, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = rows.parent
    monkeypatch.chdir(project)
    monkeypatch.delenv("HOLDTRUE_HOME", raising=False)
    (project / "pyproject.toml").touch()
    code, printed = run("status")
    assert code == 2
    assert "no prefect.yaml" in printed
    assert "holdtrue status FILE" in printed
    for name in ("one", "two"):
        assert run("init", rows.name, "--target", "stays", "--name", name)[0] == 0
        assert run("new", f"{name}.yaml", "--project", project)[0] == 0
    code, printed = run("status")
    assert code == 0
    assert printed.startswith("one: not serving\n")
    assert "\n\ntwo: not serving\n" in printed
    (project / "two.yaml").write_text("name: two\n")
    code, printed = run("status", "--json")
    first, second = json.loads(printed)
    assert (code, first["name"], second["declaration"]) == (2, "one", str(project / "two.yaml"))
    assert "missing key" in second["refused"]
