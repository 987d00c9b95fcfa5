"""Rollouts in the registry: one at a time, changed only by who knows how it stands."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import IntegrityError

from holdtrue.errors import RegistryError
from holdtrue.references import Estimate
from holdtrue.registry import Registry
from holdtrue.registry import _schema as tables
from holdtrue.rollout import Arms, Counts, Plan, Rollout, decide, follow, observe, stop
from holdtrue.store import Store

NOW = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
PLAN = Plan(shares=(0.05, 0.25), every_s=60, requests=100)


@pytest.fixture
def registry(store: Store) -> Iterator[Registry]:
    made = Registry(store)
    for number in (1, 2, 3):
        made.register(
            "s",
            digest=f"{number:032x}",
            bundle=f"bundles/{number}",
            as_of=NOW,
            passed=True,
            reason="all gates held",
            incumbent=None,
            metrics={"log_loss": Estimate(value=0.5, low=0.4, high=0.6)},
            profile="profiles/1",
            lineage={},
        )
    made.promote("s", 1, generation=0, reason="the first")
    yield made
    made.close()


def begin(registry: Registry, number: int = 2, generation: int = 1) -> Rollout:
    return registry.begin_rollout("s", number, generation=generation, plan=PLAN, now=NOW)


def test_a_rollout_begins_with_its_first_step(registry: Registry) -> None:
    assert registry.running_rollout("s") is None
    begun = begin(registry)
    assert (begun.champion, begun.challenger, begun.step, begun.share) == (1, 2, 0, 0.05)
    assert registry.running_rollout("s") == begun
    assert registry.rollouts("s") == [begun]
    assert registry.running_rollout("other") is None
    assert registry.verdicts(begun.id) == []


def test_a_rollout_needs_the_present_champion_and_another_version(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="the champion of s changed"):
        begin(registry, generation=0)
    with pytest.raises(RegistryError, match="version 1 of s is the champion already"):
        begin(registry, 1)
    with pytest.raises(RegistryError, match="s has no version 9"):
        begin(registry, 9)
    assert registry.rollouts("s") == []


def test_a_newer_rollout_stops_the_one_that_runs(registry: Registry) -> None:
    begin(registry, 2)
    second = begin(registry, 3)
    assert registry.running_rollout("s") == second
    first = registry.rollouts("s")[0]
    assert (first.state, first.reason) == ("stopped", "version 3 is rolled out instead")
    assert [verdict.action for verdict in registry.verdicts(first.id)] == ["stop"]


def test_another_process_goes_on_where_it_was(registry: Registry, store: Store) -> None:
    begun = begin(registry)
    counts = Arms(champion=Counts(requests=900), challenger=Counts(requests=150))
    looked = observe(begun, counts, None, NOW + dt.timedelta(seconds=90))
    verdict = decide(looked, NOW + dt.timedelta(seconds=90))
    saved = registry.save_rollout(follow(looked, verdict))
    other = Registry(store)
    assert other.running_rollout("s") == saved
    assert (saved.step, saved.revision) == (1, 1)
    assert other.verdicts(saved.id) == [verdict]
    other.close()


def test_a_look_that_calls_for_waiting_is_not_a_verdict(registry: Registry) -> None:
    looked = observe(begin(registry), Arms(), None, NOW)
    saved = registry.save_rollout(follow(looked, decide(looked, NOW)))
    assert saved.reason == "0 of 100 requests seen, 0 s of 1 min passed"
    assert registry.verdicts(saved.id) == []


def test_a_rollout_is_changed_only_by_who_knows_how_it_stands(registry: Registry) -> None:
    begun = begin(registry)
    saved = registry.save_rollout(begun)
    with pytest.raises(RegistryError, match="the rollout of s changed"):
        registry.save_rollout(stop(begun, "late", NOW, "back"))
    ended = registry.save_rollout(stop(saved, "enough", NOW))
    assert registry.running_rollout("s") is None
    with pytest.raises(RegistryError, match="the rollout of s changed"):
        registry.save_rollout(ended)
    assert registry.rollouts("s") == [ended]


def race(store: Store, start: threading.Barrier) -> bool:
    registry = Registry(store)
    running = registry.running_rollout("s")
    assert running is not None
    start.wait()
    try:
        registry.save_rollout(stop(running, "race", NOW))
    except RegistryError:
        return False
    finally:
        registry.close()
    return True


def test_of_several_who_end_a_rollout_one_wins(registry: Registry, store: Store) -> None:
    begun = begin(registry)
    start = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(race, store, start) for _ in range(4)]
        assert sorted(run.result(30) for run in runs) == [False, False, False, True]
    assert len(registry.verdicts(begun.id)) == 1


def test_a_registry_of_an_earlier_time_is_brought_up_to_date(
    registry: Registry, store: Store, run_sql: Callable[..., list[str]]
) -> None:
    registry.close()
    run_sql(
        *(f"DROP TABLE {one.name}" for one in (tables.rollouts, tables.verdicts, tables.origins)),
        "UPDATE holdtrue_schema SET version = 1",
    )
    again = Registry(store)
    champion = again.champion("s")
    assert champion is not None
    assert champion.version.number == 1
    assert len(again.versions("s")) == 3
    assert again.origins("s") == {}
    assert begin(again).challenger == 2
    again.close()
    assert {one.name for one in tables.metadata.sorted_tables} <= {*run_sql()}
    with pytest.raises(IntegrityError):
        run_sql(
            "INSERT INTO holdtrue_rollouts (system, state, revision, content) "
            "VALUES ('s', 'running', 0, '{}')"
        )
