"""The commands about which version answers, where nothing is up: what they say, and a dry run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from holdtrue.cli import main
from holdtrue.references import Estimate
from holdtrue.registry import Registry
from holdtrue.rollout import Plan
from holdtrue.serving._statistics import LATENCY_BOUNDS_S
from holdtrue.stack import Stack
from holdtrue.stack._state import StackState
from holdtrue.store import HOME_VARIABLE, Store

DECLARED = """
name: small
task: classification
data: {source: {files: rows.csv}, target: y}
model: {candidates: [{estimator: sklearn.linear_model.LogisticRegression}]}
tune: {metric: log_loss}
"""
ROLLED_OUT = "serve: {rollout: {canary: [10%, 100%], every: 1m, requests: 50, shadow: true}}\n"
NOW = datetime(2024, 1, 31, tzinfo=UTC)
FILE = "small.yaml"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Three versions, the second of them the champion; the third did not pass."""
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").touch()
    Path(FILE).write_text(DECLARED + ROLLED_OUT)
    made = Registry(Store(tmp_path / ".holdtrue"))
    for number in (1, 2, 3):
        made.register(
            "small",
            digest=f"{number:032x}",
            bundle=f"bundles/{number}",
            as_of=NOW,
            passed=number != 3,
            reason="drift: roc_auc 0.55 is below 0.7" if number == 3 else "all gates held",
            incumbent=None,
            metrics={"log_loss": Estimate(value=0.5, low=0.4, high=0.6)},
            profile="profiles/1",
            lineage={},
        )
    made.promote("small", 1, generation=0, reason="the first")
    made.promote("small", 2, generation=1, reason="the second")
    return made


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["holdtrue", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return call


def begin(registry: Registry, number: int) -> None:
    plan = Plan(shares=(0.1,), every_s=60, requests=50, bounds_s=LATENCY_BOUNDS_S)
    registry.begin_rollout("small", number, generation=2, plan=plan, now=NOW)


def stands(registry: Registry) -> tuple[Any, ...]:
    found = registry.champion("small")
    assert found is not None
    rollouts = [(rollout.id, rollout.state) for rollout in registry.rollouts("small")]
    return found.version.number, registry.history("small"), rollouts


@pytest.mark.parametrize(
    ("command", "said", "facts"),
    [
        (
            ["promote", FILE, "--to", "3", "--force"],
            "make version 3 of small the champion in place of version 2",
            {"system": "small", "champion": 3, "previous": 2},
        ),
        (
            ["serve", FILE],
            "serve version 2 of small at http://127.0.0.1:8700/small/predict",
            {
                "system": "small",
                "champion": 2,
                "endpoint": "http://127.0.0.1:8700/small/predict",
            },
        ),
        (
            ["rollback", FILE],
            "make version 1 of small the champion again in place of version 2",
            {"system": "small", "champion": 1, "previous": 2},
        ),
        (
            ["rollback", FILE, "--to", "1"],
            "make version 1 of small the champion again in place of version 2",
            {"system": "small", "champion": 1, "previous": 2},
        ),
        (
            ["rollout", "start", FILE, "--to", "1"],
            "roll version 1 of small out in place of version 2: as a shadow, then 10%, 100%",
            {"system": "small", "version": 1, "champion": 2, "shadow": True, "canary": [0.1, 1.0]},
        ),
    ],
)
def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    registry: Registry, run: Run, command: list[str], said: str, facts: dict[str, Any]
) -> None:
    before = stands(registry)
    code, printed, _ = run(*command, "--dry-run")
    assert (code, printed) == (0, f"would {said}; nothing was done\n")
    code, printed, _ = run(*command, "--dry-run", "--json")
    assert (code, json.loads(printed)) == (0, {"dry_run": True, **facts})
    assert stands(registry) == before


def test_what_was_done_is_said_in_the_same_facts(registry: Registry, run: Run) -> None:
    code, printed, _ = run("promote", FILE, "--to", 3, "--force", "--json")
    facts = {"dry_run": False, "system": "small", "champion": 3, "previous": 2}
    assert (code, json.loads(printed)) == (0, facts)
    code, printed, _ = run("rollback", FILE, "--json")
    assert (code, json.loads(printed)) == (0, facts | {"champion": 2, "previous": 3})
    assert run("promote", FILE, "--to", 1)[1] == "version 1 of small is the champion\n"
    assert run("rollback", FILE)[1] == "version 2 of small is the champion again\n"


def test_while_a_new_version_is_rolled_out_a_rollback_would_end_that(
    registry: Registry, run: Run
) -> None:
    begin(registry, 1)
    before = stands(registry)
    said = "would end the rollout of version 1 of small: version 2 answers every request"
    for command in (["rollback", FILE], ["rollout", "stop", FILE]):
        assert run(*command, "--dry-run")[:2] == (0, f"{said}; nothing was done\n")
    found = json.loads(run("rollout", "stop", FILE, "--dry-run", "--json")[1])
    assert (found["dry_run"], found["version"], found["state"]) == (True, 1, "running")
    assert stands(registry) == before
    ended = json.loads(run("rollout", "stop", FILE, "--json")[1])
    assert (ended["dry_run"], ended["version"], ended["state"]) == (False, 1, "stopped")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["promote", FILE, "--to", "3"], 2),
        (["promote", FILE, "--to", "2"], 2),
        (["promote", FILE, "--to", "9"], 2),
        (["rollback", FILE, "--to", "2"], 2),
        (["rollback", FILE, "--to", "9"], 2),
        (["rollout", "start", FILE, "--to", "3"], 2),
        (["rollout", "start", FILE, "--to", "9"], 2),
        (["rollout", "stop", FILE], 2),
    ],
)
def test_a_dry_run_refuses_what_would_be_refused(
    registry: Registry, run: Run, command: list[str], code: int
) -> None:
    before = stands(registry)
    dry = run(*command, "--dry-run")
    assert dry[0] == code
    assert dry == run(*command)
    assert stands(registry) == before


def test_the_champion_is_not_rolled_out(registry: Registry, run: Run) -> None:
    code, _, said = run("rollout", "start", FILE, "--to", 2, "--dry-run")
    assert (code, said) == (2, "error: version 2 of small is the champion already\n")


def test_a_dry_run_of_a_rollout_that_is_not_declared(registry: Registry, run: Run) -> None:
    Path(FILE).write_text(DECLARED)
    dry = run("rollout", "start", FILE, "--to", 1, "--dry-run")
    assert dry[0] == 2
    assert dry == run("rollout", "start", FILE, "--to", 1)


def test_a_dry_run_looks_at_a_rollout_and_leaves_it(
    registry: Registry, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("rollout", "advance", FILE, "--dry-run")[:2] == (0, "no rollout of small runs\n")
    assert run("rollout", "advance", FILE, "--json")[1] == "null\n"
    begin(registry, 1)
    before = stands(registry)
    dry = run("rollout", "advance", FILE, "--dry-run")
    assert dry[0] == 1
    assert "nothing is up: the rollout waits" in dry[2]
    assert dry == run("rollout", "advance", FILE)
    monkeypatch.setattr(Stack, "state", lambda _: StackState(ray_address="127.0.0.1:1"))
    code, printed, _ = run("rollout", "advance", FILE, "--dry-run")
    assert code == 0
    assert printed.startswith("would wait: version 1 over version 2: ")
    found = json.loads(run("rollout", "advance", FILE, "--dry-run", "--json")[1])
    assert (found["dry_run"], found["action"], found["step"]) == (True, "wait", 0)
    assert stands(registry) == before


def test_a_dry_run_finds_a_rollout_that_was_overtaken(
    registry: Registry, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(registry, 1)
    registry.promote("small", 3, generation=2, reason="by hand")
    code, printed, _ = run("rollout", "advance", FILE, "--dry-run")
    said = "would end the rollout of version 1 of small: version 3 was made the champion meanwhile"
    assert (code, printed) == (0, f"{said}; nothing was done\n")


def test_versions_are_listed_with_what_became_of_them(run: Run, registry: Registry) -> None:
    code, printed, _ = run("versions", FILE)
    assert code == 0
    lines = printed.splitlines()
    assert [line[:5] for line in lines[::2]] == ["+   1", "*   2", "    3"]
    verdicts = [line.split()[-3] for line in lines[::2]]
    assert verdicts == ["passed", "passed", "refused"]
    assert lines[4].endswith("refused  log_loss 0.5000")
    assert lines[3].strip() == "all gates held"
    assert lines[5].strip() == "roc_auc 0.55 is below 0.7 (trigger: drift)"
    found = json.loads(run("versions", FILE, "--json")[1])
    assert [(v["version"], v["champion"], v["was_champion"], v["passed"]) for v in found] == [
        (1, False, True, True),
        (2, True, True, True),
        (3, False, False, False),
    ]
    assert found[0]["metrics"] == {"log_loss": 0.5}


def test_versions_of_something_new(run: Run, registry: Registry) -> None:
    Path("new.yaml").write_text(DECLARED.replace("small", "new"))
    assert run("versions", "new.yaml")[:2] == (0, "no version of new yet; run `holdtrue apply`\n")
    assert run("versions", "new.yaml", "--json")[:2] == (0, "[]\n")


def test_where_no_rollout_ran_it_is_said_what_is_to_be_done(run: Run, registry: Registry) -> None:
    code, _, said = run("rollout", "status", FILE)
    assert (code, "\n  the next new version that passes goes by it\n" in said) == (2, True)
    Path(FILE).write_text(DECLARED)
    said = run("rollout", "status", FILE)[2]
    assert "\n  declare serve.rollout; the next new version that passes goes by it\n" in said


def test_the_status_says_what_the_gates_said_before_why_it_was_trained(
    run: Run, registry: Registry
) -> None:
    said = "refused: version 3: roc_auc 0.55 is below 0.7 (trigger: drift)\n"
    assert said in run("status", FILE)[1]
