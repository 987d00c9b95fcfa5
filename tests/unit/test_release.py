"""Promotion, rollback and rollouts where nothing is up: what the registry then says."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from holdtrue.declaration import parse
from holdtrue.errors import ConfigError, RegistryAwayError, RegistryError, StackError
from holdtrue.plan import Context, Done
from holdtrue.plan._applied import applied
from holdtrue.references import Estimate, Version
from holdtrue.release import advance, counts_of, drive, halt, looks, promote, rollback, start
from holdtrue.rollout import Plan, Rollout
from holdtrue.serving._scoring import ModelError
from holdtrue.serving._slate import Arm
from holdtrue.serving._statistics import (
    LATENCY_BOUNDS_S,
    ReplicaStatistics,
    Statistics,
    Tally,
    write_replica,
)
from holdtrue.store import REGISTRY_VARIABLE, Store
from tests.postgres import Server

DECLARED = """
name: small
task: classification
data: {source: {files: rows.csv}, target: y}
model: {candidates: [{estimator: sklearn.linear_model.LogisticRegression}]}
tune: {metric: log_loss}
serve: {rollout: {canary: [10%, 100%], every: 1m, requests: 50}}
"""
NOW = datetime(2024, 1, 31, tzinfo=UTC)
PLAN = Plan(shares=(0.1,), every_s=60, requests=50, bounds_s=LATENCY_BOUNDS_S)


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """Three versions, the first of them the champion; the third did not pass."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return registered(tmp_path, Store(tmp_path / "store"))


def registered(folder: Path, store: Store) -> Context:
    made = Context(declaration=parse(DECLARED), project=folder, store=store, as_of=NOW)
    for number in (1, 2, 3):
        made.registry.register(
            "small",
            digest=f"{number:032x}",
            bundle=f"bundles/{number}",
            as_of=NOW,
            passed=number != 3,
            reason="apply: roc_auc 0.55 is below 0.7" if number == 3 else "apply: all gates held",
            incumbent=None,
            metrics={"log_loss": Estimate(value=0.5, low=0.4, high=0.6)},
            profile="profiles/1",
            lineage={},
        )
    made.registry.promote("small", 1, generation=0, reason="the first")
    return made


def begin(context: Context, number: int = 2) -> Rollout:
    champion = context.registry.champion("small")
    assert champion is not None
    return context.registry.begin_rollout(
        "small", number, generation=champion.generation, plan=PLAN, now=datetime.now(UTC)
    )


def champion(context: Context) -> int:
    found = context.registry.champion("small")
    assert found is not None
    return found.version.number


def test_any_registered_version_can_be_promoted(context: Context) -> None:
    promote(context, 2, reason="looks better")
    assert champion(context) == 2
    last = context.registry.history("small")[-1]
    assert (last.action, last.reason, last.previous) == ("promote", "looks better", 1)


def test_a_version_that_the_gates_refused_needs_force(context: Context) -> None:
    with pytest.raises(ConfigError, match=r"refused version 3 of small: .* 0\.55 is below") as said:
        promote(context, 3, reason="?")
    assert "--force" in (said.value.hint or "")
    assert champion(context) == 1
    version = Version(
        system="small", number=3, digest="3" * 32, promoted=False, reason="not all gates held"
    )
    done = [Done("register", cached=True, digest="0" * 32, output=version, seconds=0.0)]
    assert applied(context, done).refused == "roc_auc 0.55 is below 0.7 (trigger: apply)"
    promote(context, 3, reason="we know better", force=True)
    assert champion(context) == 3
    # Its own refusal is no reason why it stays.
    assert (applied(context, done).refused, applied(context, done).champion) == (None, 3)


def test_what_cannot_be_promoted_says_why(context: Context) -> None:
    with pytest.raises(ConfigError, match="version 1 of small is the champion already"):
        promote(context, 1, reason="?")
    with pytest.raises(RegistryError, match="small has no version 9"):
        promote(context, 9, reason="?")


def test_rollback_goes_to_the_champion_before(context: Context) -> None:
    with pytest.raises(ConfigError, match="no earlier champion"):
        rollback(context, to=None, reason="?")
    promote(context, 2, reason="better")
    assert rollback(context, to=None, reason="it was not") == 1
    assert champion(context) == 1


def test_rollback_does_not_go_round_the_gates(context: Context) -> None:
    promote(context, 2, reason="better")
    with pytest.raises(ConfigError, match="version 3 of small was never the champion") as said:
        rollback(context, to=3, reason="?")
    assert said.value.hint == "`holdtrue promote --to 3` makes it the champion"
    with pytest.raises(RegistryError, match="small has no version 9"):
        rollback(context, to=9, reason="?")
    assert champion(context) == 2


def test_a_rollback_can_be_taken_back(context: Context) -> None:
    promote(context, 2, reason="better")
    assert rollback(context, to=None, reason="the wrong button") == 1
    with pytest.raises(ConfigError, match="no earlier champion to go back to") as said:
        rollback(context, to=None, reason="?")
    assert said.value.hint == (
        "all later ones were gone back from; --to takes any that was champion: 2"
    )
    assert rollback(context, to=2, reason="back again") == 2
    assert rollback(context, to=None, reason="once more") == 1


def test_rollback_ends_a_rollout_that_runs(context: Context) -> None:
    begin(context)
    assert rollback(context, to=None, reason="no good") == 1
    assert context.registry.running_rollout("small") is None
    (ended,) = context.registry.rollouts("small")
    assert (ended.state, ended.reason) == ("stopped", "no good")
    assert len(context.registry.history("small")) == 1
    page = context.store.path("reports", "small", "rollouts.html").read_text()
    assert "Version 2 over version 1" in page
    assert "no good" in page
    assert "<dd>1 of 2<small>10 %, 100 %</small>" in page


@pytest.mark.parametrize(("number", "state"), [(2, "finished"), (3, "stopped")])
def test_promotion_by_hand_ends_a_rollout(context: Context, number: int, state: str) -> None:
    begin(context)
    promote(context, number, reason="now", force=True)
    assert champion(context) == number
    (ended,) = context.registry.rollouts("small")
    assert ended.state == state
    assert f"version {number} was made the champion by hand: now" in ended.reason
    page = context.store.path("reports", "small", "rollouts.html").read_text()
    # Whoever took over may have been gone back from since: the page does not say "now".
    assert ("✓ took over" in page) == ("<dd>2 of 2<" in page) == (state == "finished")


def test_a_rollout_waits_for_a_registry_that_is_away(
    tmp_path: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    name = postgres.database()
    monkeypatch.setenv(REGISTRY_VARIABLE, postgres.url(name=name))
    context = registered(tmp_path, Store(tmp_path / "store", lone=False))
    begin(context)
    looked = looks(context, look_every_s=0)
    assert next(looked).reason == "nothing is up: the rollout waits"
    postgres.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    assert "does not answer" in next(looked).reason
    with pytest.raises(RegistryAwayError):
        next(looks(context, look_every_s=0))
    postgres.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert next(looked).reason == "nothing is up: the rollout waits"


def test_there_is_nothing_to_stop_or_drive(context: Context) -> None:
    with pytest.raises(ConfigError, match="no rollout of small runs"):
        halt(context, "?")
    assert advance(context) is None
    assert drive(context, lambda rollout: None) is None


def test_a_rollout_waits_while_nothing_is_up(context: Context) -> None:
    begin(context)
    with pytest.raises(StackError, match="nothing is up: the rollout waits"):
        advance(context)
    assert context.registry.running_rollout("small") is not None


def count(context: Context, begun: Rollout) -> None:
    """Have a replica count for a rollout and for the time before it."""
    folder = context.store.path("serving", "small", "stats")
    folder.mkdir(parents=True)
    arms = []
    for role, version, n, failed, name in (
        ("champion", 1, 40, 1, str(begun.id)),
        ("shadow", 2, 7, 2, str(begun.id)),
        ("challenger", 2, 5, 1, str(begun.id)),
        ("champion", 1, 900, 0, None),
    ):
        arm = Arm.model_validate(
            {"role": role, "version": version, "bundle": "b", "digest": "0" * 32, "weight": 0}
        )
        tally = Tally(arm, name, ("no", "yes"))
        for _ in range(n):
            tally.answered(0.003, np.array([[0.3, 0.7]]), {})
        for _ in range(failed):
            tally.failed(ModelError("refused", f"version {version} lacks the column price"))
        arms.append(tally.snapshot())
    write_replica(
        folder, ReplicaStatistics(id="one", pid=1, at=0.0, counts=Statistics(arms=tuple(arms)))
    )


def test_what_replicas_counted_is_told_apart_by_role_and_rollout(context: Context) -> None:
    begun = begin(context)
    count(context, begun)
    found = counts_of(context, begun)
    assert (found.champion.requests, found.champion.failures) == (41, 1)
    assert (found.challenger.requests, found.challenger.failures) == (15, 3)
    assert found.challenger.scores.n == 12
    assert found.challenger.scores.mean == pytest.approx((0.3, 0.7))
    # Nobody waits for a shadow.
    assert (sum(found.champion.durations), sum(found.challenger.durations)) == (40, 5)
    assert found.challenger.why == "version 2 lacks the column price"


@pytest.mark.parametrize("end", ["stop", "rollback", "promote"])
def test_a_rollout_that_is_ended_by_hand_keeps_what_was_counted(context: Context, end: str) -> None:
    begun = begin(context)
    count(context, begun)
    if end == "stop":
        halt(context, "enough")
    elif end == "rollback":
        rollback(context, to=None, reason="enough")
    else:
        promote(context, 2, reason="enough")
    ended = context.registry.rollouts("small")[-1]
    assert (ended.id, ended.state != "running") == (begun.id, True)
    assert ended.evidence.seen.challenger.requests == 15
    assert ended.last is not None
    errors = ended.last.checks[0]
    assert errors.numbers["requests"] == 15
    assert errors.said.startswith("failed 3 of 15 (20.000%), the champion 1 of 41")
    assert "; it said: version 2 lacks the column price" in errors.said


def test_a_version_that_is_being_rolled_out_does_not_begin_anew(context: Context) -> None:
    running = begin(context)
    with pytest.raises(ConfigError, match="version 2 of small is being rolled out already: step 1"):
        start(context, 2)
    assert context.registry.rollouts("small") == [running]
