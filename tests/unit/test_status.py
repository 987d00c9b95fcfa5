"""What the status says of decisions and processes; of what is served in ``integration``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdtrue.errors import ConfigError
from holdtrue.plan import Applied
from holdtrue.plan_commands import _applied_text
from holdtrue.references import Decision, DriftReport
from holdtrue.registry import Registry
from holdtrue.rollout import Plan
from holdtrue.stack._processes import end, start
from holdtrue.stack._state import Private
from holdtrue.status import Status, status_text
from holdtrue.system import System

DECLARED = """
name: small
task: classification
data: {source: {files: rows.csv}, target: y}
model: {candidates: [{estimator: sklearn.linear_model.LogisticRegression}]}
tune: {metric: log_loss}
"""
AT = datetime(2024, 2, 1, tzinfo=UTC)


@pytest.fixture
def system(small: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """One version, the champion, whose retraining is called for."""
    monkeypatch.setenv("XDG_STATE_HOME", str(small.parent / "state"))
    small.write_text(DECLARED)
    system = System(small)
    register(system.registry, 1, AT - timedelta(days=30))
    system.registry.promote("small", 1, generation=0, reason="first")
    look_of(system, "retrain", "drift")
    return system


def look_of(system: System, action: str, *signals: str) -> None:
    found = {"at": AT, "action": action, "signals": signals, "reason": "Drift. Do it."}
    report = {"system": "small", "version": 1, "at": AT, "windows": (), "performance": ()}
    decision = Decision.model_validate(found)
    system.registry.record_report(DriftReport(**report, decision=decision, folded=0))


def register(registry: Registry, number: int, as_of: datetime, *, passed: bool = True) -> None:
    registry.register(
        "small",
        digest=f"{number:032x}",
        bundle=f"bundles/{number}",
        as_of=as_of,
        passed=passed,
        reason="drift: 1 of 2 gates not met",
        incumbent=None,
        metrics={},
        profile="profiles/1",
        lineage={},
    )


def outcome(system: System) -> str | None:
    decision = system.status().last_decision
    assert decision is not None
    return decision.outcome


def test_what_became_of_a_retraining_is_said(system: System) -> None:
    assert outcome(system) is None
    register(system.registry, 2, AT - timedelta(days=1), passed=False)
    assert outcome(system) is None  # before the decision
    register(system.registry, 3, AT, passed=False)
    said = "since then version 3 was trained: refused"
    assert outcome(system) == said
    assert f"monitor: retrain at 2024-02-01 00:00 UTC: Drift. Do it.\n  {said}" in text(system)
    register(system.registry, 4, AT)
    assert outcome(system) == "since then version 4 was trained: it passed, and stays back"
    plan = Plan(shares=(0.1,), every_s=60, requests=50)
    system.registry.begin_rollout("small", 4, generation=1, plan=plan, now=AT)
    assert outcome(system) == "since then version 4 was trained: it is rolled out by steps"
    system.registry.promote("small", 4, generation=1, reason="better")
    assert outcome(system) == "since then version 4 was trained: it is the champion"
    system.registry.promote("small", 1, generation=2, reason="worse", action="rollback")
    assert outcome(system) == "since then version 4 was trained: it was the champion for a while"


def test_also_where_a_person_had_to_begin_it(system: System) -> None:
    """Such as where labels are of a class that it does not know, and the policy has no say."""
    register(system.registry, 2, AT)
    system.registry.promote("small", 2, generation=1, reason="asked")
    for action, signals in (("warn", ("performance",)), ("fix_data", ("schema",))):
        look_of(system, action, *signals)
        assert outcome(system) == "since then version 2 was trained: it is the champion"
    look_of(system, "none")
    assert outcome(system) is None


def test_what_is_late_is_said_also_where_nobody_is_notified(system: System, small: Path) -> None:
    assert system.status().late == {}
    small.write_text(f"{DECLARED}\nretrain: {{deadline: 2h}}\n")
    said = text(System(small))
    assert (
        "late: the training was due 2024-02-01 02:00 UTC; called for since 2024-02-01 00:00 UTC, "
        "and nothing has begun it\n" in said
    )


def test_where_nothing_answers_it_is_said_what_brings_it_back(system: System) -> None:
    said = "small: not serving; `holdtrue serve FILE` has the champion answer\nchampion: version 1 "
    assert text(system).startswith(said)


def test_where_there_are_no_two_versions_none_are_compared(system: System) -> None:
    with pytest.raises(ConfigError, match="small has one version: two are compared") as caught:
        system.diff()
    assert "--refresh" in (caught.value.hint or "")


def test_after_apply_it_is_said_how_to_ask(system: System) -> None:
    done = Applied((), "http://127.0.0.1:8700/small/predict", 1, refused=None)
    asked = "How to ask it, with the key that `holdtrue key show` prints: "
    assert f"{asked}http://127.0.0.1:8700/small/docs\n" in _applied_text(system, done, ())
    system.path.write_text(f"{DECLARED}serve: {{access: open}}\n")
    told = _applied_text(System(system.path), done, ())
    assert "How to ask it: http://127.0.0.1:8700/small/docs\n" in told


def text(system: System) -> str:
    return status_text(system.status())


def test_processes_that_are_gone_are_said_to_be(system: System, tmp_path: Path) -> None:
    private = Private(system.store.root)
    private.prepare()
    command = ["sleep", "60"]
    infos = [
        start(name, command, env={}, cwd=tmp_path, log=tmp_path / f"{name}.log")
        for name in ("prefect", "worker")
    ]
    known = {"prefect_api": "http://here/api", "prefect_ui": "http://here"}
    private.update(lambda s: s.model_copy(update={"processes": tuple(infos), **known}))
    found = system.status()
    assert (found.gone, found.prefect_ui) == ((), "http://here")
    end(infos[:1])
    found = system.status()
    assert (found.gone, found.prefect_ui) == (("prefect",), None)
    assert gone_lines(found) == [
        "Prefect: not running (its process is gone): nothing scheduled runs; "
        "`holdtrue up` starts it"
    ]
    end(infos[1:])
    assert [line.partition(":")[0] for line in gone_lines(system.status())] == [
        "Prefect",
        "Prefect worker",
    ]
    system.stack.down()
    assert system.status().gone == ()


def gone_lines(found: Status) -> list[str]:
    return [line for line in status_text(found).splitlines() if "its process is gone" in line]
