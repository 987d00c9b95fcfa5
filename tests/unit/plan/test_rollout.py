"""A version that passed the gates: the champion at once, or by steps where that is declared."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from holdtrue.approval import approval_of
from holdtrue.declaration import Declaration
from holdtrue.errors import ConfigError
from holdtrue.models import Bundle, Signature, pipeline, typed, write_bundle
from holdtrue.plan import BY_NAME, Context, Journal, begin_rollout, note_served
from holdtrue.plan._digest import digest
from holdtrue.plan._journal import Record
from holdtrue.plan._rollout import arms_of, as_declared, expected_shift
from holdtrue.plan._step import Work
from holdtrue.progress import Silent
from holdtrue.references import (
    Estimate,
    Evaluation,
    ModelRef,
    ProfileRef,
    Release,
    Split,
    Verdict,
    Version,
)
from holdtrue.release import check_passed
from holdtrue.rollout import stop
from holdtrue.serving._slates import slate_of
from holdtrue.store import Store

ESTIMATOR = "sklearn.linear_model.LogisticRegression"
SIGNATURE = Signature(
    target="y", task="classification", classes=("0", "1"), columns={"x": "number"}, categorical=()
)
ROWS = pd.DataFrame({"x": np.arange(60.0), "y": np.arange(60) // 30})
NOW = datetime(2024, 1, 31, tzinfo=UTC)
STEPS = {"canary": ["10%", "100%"], "every": "1m", "requests": 50, "shadow": True}


def declare(**serve: Any) -> Declaration:
    return Declaration.model_validate(
        {
            "name": "small",
            "task": "classification",
            "data": {"source": {"files": "rows.csv"}, "target": "y", "key": ["id"], "time": "at"},
            "model": {"candidates": [{"estimator": ESTIMATOR}]},
            "tune": {"metric": "log_loss"},
            "serve": serve,
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def context_of(store: Store, **serve: Any) -> Context:
    return Context(declaration=declare(**serve), project=store.root.parent, store=store, as_of=NOW)


def fit(store: Store, number: int) -> ModelRef:
    frame = typed(ROWS, SIGNATURE)
    model = pipeline(ESTIMATOR, {"C": 10.0**-number}, SIGNATURE, seed=0, threads=1)
    model.fit(frame, ROWS["y"])
    folder = store.path("bundles", "small", str(number))
    digest = write_bundle(
        folder, model, SIGNATURE, estimator=ESTIMATOR, params={}, sample=[{"x": 1.0}]
    )
    bundle = store.relative(folder)
    return ModelRef(
        bundle=bundle, digest=digest, estimator=ESTIMATOR, params={}, rows=60, seconds=1
    )


def write_split(store: Store) -> None:
    file = store.path("splits", "test.parquet")
    file.parent.mkdir(parents=True, exist_ok=True)
    ROWS.to_parquet(file)
    path = store.relative(file)
    split = Split(
        train=path, test=path, train_rows=60, test_rows=60, boundary=None, target_share={}
    )
    record = Record(
        step="split",
        digest="a" * 32,
        components={},
        output=split.model_dump(mode="json"),
        finished=NOW,
        seconds=1,
    )
    journal = Journal(store, "small")
    journal.write(record)
    journal.used("split", record.digest, NOW, None)


def register(context: Context, number: int, *, passed: bool = True) -> Version:
    write_split(context.store)
    model = fit(context.store, number)
    champion = context.registry.champion("small")
    estimate = Estimate(value=0.5, low=0.4, high=0.6)
    inputs = {
        "profile": ProfileRef(path="profiles/1", digest="b" * 32, rows=60, blocks=1, columns={}),
        "fit": model,
        "evaluate": Evaluation(
            model=model.digest,
            rows=60,
            classes=SIGNATURE.classes,
            confidence=0.95,
            metrics={"log_loss": estimate},
            baseline={},
            slices={},
            champion=None if champion is None else champion.version.number,
        ),
        "gate": Verdict(passed=passed, judgements=(), reason="as it is"),
    }
    with Silent().step("register") as progress:
        made = BY_NAME["register"].run(Work(context, inputs, {}, progress))
    assert isinstance(made, Version)
    return made


def champion(context: Context) -> int:
    found = context.registry.champion("small")
    assert found is not None
    return found.version.number


def test_without_steps_a_version_is_the_champion_at_once(store: Store) -> None:
    for serve in ({}, {"rollout": {"canary": ["100%"]}}):
        context = context_of(store, **serve)
        number = len(context.registry.versions("small")) + 1
        assert register(context, number).promoted
        assert champion(context) == number
        assert context.registry.rollouts("small") == []


def test_what_was_served_by_hand_is_found_by_the_next_plan(store: Store) -> None:
    context, step = context_of(store), BY_NAME["serve"]
    for number in (1, 2):
        register(context, number)
    components = {
        "step": "serve",
        "declared": step.reads(context.declaration),
        "inputs": {"register": "c" * 32},
        "outside": {"champion": 2},
        "code": "d" * 32,
    }

    def served(number: int) -> Release:
        version = context.registry.version("small", number)
        return Release(
            system="small", version=number, digest=version.digest, endpoint="http://127.0.0.1"
        )

    journal = Journal(store, "small")
    note_served(context, served(2))
    assert list(journal.every("serve")) == []  # no run has served yet: there is nothing to keep
    by_run = Record(
        step="serve",
        digest=digest(components),
        components=components,
        output=served(2).model_dump(mode="json"),
        finished=NOW,
        seconds=1,
    )
    journal.write(by_run)
    journal.used("serve", by_run.digest, NOW, None)
    state = journal.state()

    by_hand(context, 1, "rollback")
    other = context_of(store, port=8_798)
    note_served(other, served(1))
    now = components | {"outside": {"champion": 1}, "declared": step.reads(other.declaration)}
    found = journal.find("serve", digest(now))
    assert found is not None
    assert step.output.model_validate(found.output) == served(1)
    assert journal.find("serve", by_run.digest) == by_run
    assert journal.state() == state  # a training may be writing it


def undone(context: Context, version: Version) -> str | None:
    holds = BY_NAME["register"].holds
    assert holds is not None
    return holds(context, version)


def by_hand(context: Context, number: int, action: str) -> None:
    found = context.registry.champion("small")
    assert found is not None
    context.registry.promote(
        "small", number, generation=found.generation, reason="asked", action=action
    )


def test_a_model_whose_declaration_is_back_is_the_champion_again(store: Store) -> None:
    context = context_of(store)
    first, second = register(context, 1), register(context, 2)
    assert undone(context, second) is None
    assert undone(context, first) == "version 1 is declared again"
    assert register(context, 1).promoted
    assert champion(context) == 1
    assert context.registry.history("small")[-1].action == "restore"
    assert undone(context, first) is None
    assert register(context, 2).promoted  # and back
    assert champion(context) == 2
    assert context.registry.previous_champion("small") == 1


@pytest.mark.parametrize("passed", [True, False])
def test_a_declaration_that_is_back_does_not_go_by_steps_nor_past_its_gates(
    store: Store, passed: bool
) -> None:
    register(context_of(store), 1)
    register(context_of(store), 2)
    context = context_of(store, rollout=STEPS)
    assert register(context, 1, passed=passed).promoted is passed
    assert champion(context) == (1 if passed else 2)
    assert context.registry.rollouts("small") == []


def test_what_a_person_made_the_champion_stays_whatever_is_declared(store: Store) -> None:
    context = context_of(store)
    first, second = register(context, 1), register(context, 2)
    by_hand(context, 1, "rollback")
    assert undone(context, second) is None
    register(context, 3)
    by_hand(context, 2, "promote")
    assert undone(context, first) is None
    assert not register(context, 1).promoted
    assert champion(context) == 2


def test_a_model_of_older_data_does_not_come_back(store: Store) -> None:
    context = context_of(store)
    first = register(context, 1)
    register(replace(context, as_of=NOW + timedelta(days=1)), 2)
    assert undone(context, first) is None
    assert not register(context, 1).promoted


def test_a_lost_registry_is_noticed(store: Store) -> None:
    context = context_of(store)
    version = register(context, 1)
    store.path("registry.db").unlink()
    context = context_of(store)
    assert undone(context, version) == "the registry does not know version 1"
    assert register(context, 1).promoted


def test_a_version_waits_for_a_person_where_that_is_declared(store: Store) -> None:
    context = context_of(store, approve="3d", rollout=STEPS)
    assert register(context, 1).promoted  # nothing answered that could stay
    assert approval_of(context.registry, context.declaration) is None
    assert not register(context, 2, passed=False).promoted
    assert approval_of(context.registry, context.declaration) is None
    version = register(context, 3)
    assert not version.promoted
    assert champion(context) == 1
    assert context.registry.rollouts("small") == []
    asked = approval_of(context.registry, context.declaration)
    assert asked is not None
    assert (asked.version, asked.over, asked.reason) == (3, False, "as it is (trigger: apply)")
    assert asked.until == context.registry.version("small", 3).created + timedelta(days=3)
    assert "promote --to 3" in str(asked)
    check_passed(context, 3, force=False)
    assert undone(context, version) is None
    # Where nobody is asked any more, nobody waits.
    freed = context_of(store)
    assert approval_of(freed.registry, freed.declaration) is None
    assert undone(freed, version) == "version 3 passed, and no approval is declared any more"
    by_hand(context, 3, "promote")
    assert approval_of(context.registry, context.declaration) is None
    assert undone(freed, version) is None


def test_what_waited_is_the_champion_once_nobody_is_asked_any_more(store: Store) -> None:
    register(context_of(store), 1)
    context = context_of(store, approve="3d")
    version = register(context, 2)
    assert not version.promoted
    freed = context_of(store)
    assert register(freed, 2).promoted
    assert champion(freed) == 2
    assert undone(freed, version) is None


def test_what_nobody_approved_in_time_is_promoted_only_by_force(store: Store) -> None:
    context = context_of(store, approve="1s")
    register(context, 1)
    register(context, 2)
    time.sleep(1.1)
    asked = approval_of(context.registry, context.declaration)
    assert asked is not None
    assert asked.over
    with pytest.raises(ConfigError, match=r"Nobody approved version 2 until .* UTC"):
        check_passed(context, 2, force=False)
    check_passed(context, 2, force=True)
    check_passed(context, 1, force=False)
    register(context, 3)  # a newer one is asked for instead
    asked = approval_of(context.registry, context.declaration)
    assert asked is not None
    assert (asked.version, asked.over) == (3, False)


def test_the_first_version_has_nobody_to_be_compared_with(store: Store) -> None:
    context = context_of(store, rollout=STEPS)
    assert register(context, 1).promoted
    assert context.registry.rollouts("small") == []


def test_with_steps_a_version_challenges_the_champion(store: Store) -> None:
    context = context_of(store, rollout=STEPS)
    register(context, 1)
    assert not register(context, 2).promoted
    assert champion(context) == 1
    begun = context.registry.running_rollout("small")
    assert begun is not None
    assert (begun.champion, begun.challenger) == (1, 2)
    assert begun.plan.shares == (0.0, 0.1)
    assert (begun.plan.every_s, begun.plan.requests) == (60, 50)
    assert begun.plan.compare_scores


def test_a_rollout_that_runs_goes_by_the_steps_that_are_declared_now(store: Store) -> None:
    context = context_of(store, rollout=STEPS)
    register(context, 1)
    register(context, 2)
    begun = context.registry.running_rollout("small")
    assert begun is not None
    assert as_declared(context, begun) == begun
    late = begun.model_copy(update={"step": 1})
    steps = {"canary": ["40%", "80%", "100%"], "every": "2m", "requests": 70, "shadow": True}
    found = as_declared(context_of(store, rollout=steps), late)
    assert (found.step, found.share, found.plan.shares) == (1, 0.4, (0.0, 0.4, 0.8))
    assert (found.plan.every_s, found.plan.requests) == (120, 70)
    assert found.evidence == late.evidence
    assert found.plan.expected_shift == begun.plan.expected_shift
    fewer = as_declared(context_of(store, rollout={"canary": ["30%", "100%"]}), late)
    assert (fewer.step, fewer.share) == (0, 0.3)
    assert as_declared(context_of(store), late) == late
    assert as_declared(context_of(store, rollout={"canary": ["100%"]}), late) == late


def test_a_version_that_did_not_pass_is_not_rolled_out(store: Store) -> None:
    context = context_of(store, rollout=STEPS)
    register(context, 1)
    register(context, 2, passed=False)
    assert context.registry.rollouts("small") == []


def test_a_version_that_was_sent_back_stays_back(store: Store) -> None:
    context = context_of(store, rollout=STEPS)
    register(context, 1)
    register(context, 2)
    begun = context.registry.running_rollout("small")
    assert begun is not None
    context.registry.save_rollout(stop(begun, "it fails more often", NOW, "back"))
    register(context, 2)
    assert context.registry.running_rollout("small") is None
    assert champion(context) == 1


def rolled_out(context: Context) -> int | None:
    running = context.registry.running_rollout("small")
    return None if running is None else running.challenger


def test_a_declaration_that_is_back_ends_the_rollout_of_what_was_declared_meanwhile(
    store: Store,
) -> None:
    context = context_of(store, rollout=STEPS)
    first, second = register(context, 1), register(context, 2)
    assert (champion(context), rolled_out(context)) == (1, 2)
    assert undone(context, second) is None
    assert undone(context, first) == "version 2 is rolled out, and version 1 declared again"
    register(context, 1)
    assert (champion(context), rolled_out(context)) == (1, None)
    ended = context.registry.rollouts("small")[-1]
    assert (ended.state, ended.reason) == ("stopped", "version 1 is declared again")
    assert undone(context, first) is None
    # And back: nothing has spoken against it.
    assert undone(context, second) == "version 2 is declared again"
    register(context, 2)
    assert (champion(context), rolled_out(context)) == (1, 2)
    assert undone(context, second) is None
    # What has spoken against it holds.
    begun = context.registry.running_rollout("small")
    assert begun is not None
    context.registry.save_rollout(stop(begun, "it fails more often", NOW, "back"))
    register(context, 1)
    register(context, 2)
    assert rolled_out(context) is None


def test_a_rollout_that_was_withdrawn_waits_for_a_person_where_that_is_declared(
    store: Store,
) -> None:
    context = context_of(store, rollout=STEPS)
    register(context, 1)
    register(context, 2)
    register(context, 1)
    asking = context_of(store, rollout=STEPS, approve="3d")
    register(asking, 2)
    asked = approval_of(asking.registry, asking.declaration)
    assert asked is not None
    assert (asked.version, rolled_out(asking)) == (2, None)


def test_what_a_person_rolls_out_goes_on_whatever_is_declared(store: Store) -> None:
    context = context_of(store, rollout=STEPS)
    first = register(context, 1)
    register(context_of(store), 2, passed=False)
    begin_rollout(context, 2)
    assert undone(context, first) is None
    register(context, 1)
    assert rolled_out(context) == 2


def test_a_rollout_of_later_data_goes_on(store: Store) -> None:
    context = context_of(store, rollout=STEPS)
    first = register(context, 1)
    register(replace(context, as_of=NOW + timedelta(days=1)), 2)
    assert undone(context, first) is None
    register(context, 1)
    assert rolled_out(context) == 2


def test_a_rollout_that_begins_or_ends_is_no_reason_to_serve_again(store: Store) -> None:
    """Whoever begins or ends it deploys that, and the endpoint is asked whether it knows."""
    context, serve = context_of(store, rollout=STEPS), BY_NAME["serve"].outside
    assert serve is not None
    register(context, 1)
    before = serve(context, {})
    register(context, 2)
    assert serve(context, {}) == before == {"champion": 1}


def test_the_expected_shift_is_that_on_the_test_rows(store: Store) -> None:
    context = context_of(store, rollout=STEPS)
    register(context, 1)
    register(context, 2)
    versions = context.registry.versions("small")
    means = [
        Bundle.load(store.path(v.bundle), v.digest).predict(typed(ROWS, SIGNATURE)).mean(axis=0)
        for v in versions
    ]
    found = expected_shift(context, versions[0], versions[1])
    assert found == pytest.approx(tuple(means[1] - means[0]))
    begun = context.registry.running_rollout("small")
    assert begun is not None
    assert begun.plan.expected_shift == found
    store.path("splits", "test.parquet").unlink()
    assert expected_shift(context, versions[0], versions[1]) is None


def test_replicas_hold_what_the_step_says(store: Store) -> None:
    context = context_of(store, rollout=STEPS)
    register(context, 1)
    register(context, 2)
    now = context.registry.champion("small")
    begun = context.registry.running_rollout("small")
    assert now is not None
    assert begun is not None

    def held(rollout: Any) -> list[tuple[str, int, float]]:
        arms = arms_of(context, now, rollout)
        slate = slate_of(context.declaration, store, arms, "1")
        assert slate.sticky == "id"
        return [(arm.role, arm.version, arm.weight) for arm in slate.arms]

    assert held(None) == [("champion", 1, 1.0)]
    assert held(begun) == [("champion", 1, 1.0), ("shadow", 2, 0.0)]
    second = begun.model_copy(update={"step": 1})
    assert held(second) == [("champion", 1, 0.9), ("challenger", 2, 0.1)]
    assert held(stop(second, "enough", NOW)) == [("champion", 1, 1.0)]


@pytest.mark.parametrize(
    ("serve", "sticky"),
    [({}, "id"), ({"rollout": {"sticky": "x-user"}}, "x-user")],
    ids=["key", "declared"],
)
def test_the_slate_says_what_is_declared(store: Store, serve: dict[str, Any], sticky: str) -> None:
    limits = {"wait": "2s", "batch_wait_ms": 5, "load": "5m"}
    declared = {"capture": "0%", "limits": limits, **serve}
    context = context_of(store, **declared, access="open")
    register(context, 1)
    now = context.registry.champion("small")
    assert now is not None
    slate = slate_of(context.declaration, store, arms_of(context, now, None))
    assert (slate.sticky, slate.capture, slate.keys, slate.rollout) == (sticky, None, None, None)
    assert (slate.limits.wait_s, slate.limits.batch_wait_s) == (2.0, 0.005)
    assert slate.limits.load_s == 300
    assert Path(slate.statistics).is_relative_to(store.root.resolve())


def test_what_is_served_stands_where_it_cannot_be_written_down(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    context = context_of(store)
    register(context, 1)
    found = context.registry.version("small", 1)
    release = Release(system="small", version=1, digest=found.digest, endpoint="http://127.0.0.1")
    components = {
        "step": "serve",
        "declared": BY_NAME["serve"].reads(context.declaration),
        "inputs": {"register": "c" * 32},
        "outside": {"champion": 2},
        "code": "d" * 32,
    }
    by_run = Record(
        step="serve",
        digest=digest(components),
        components=components,
        output=release.model_dump(mode="json"),
        finished=NOW,
        seconds=1,
    )
    journal = Journal(store, "small")
    journal.write(by_run)
    journal.used("serve", by_run.digest, NOW, None)
    key = digest(components | {"outside": {"champion": 1}})
    journal.place("serve", key).mkdir()  # in the way of the record
    note_served(context, release)
    assert "Warning: it is not written down that this is served: " in capsys.readouterr().err
    assert champion(context) == 1
    journal.place("serve", key).rmdir()
    assert list(journal.every("serve")) == [by_run]
