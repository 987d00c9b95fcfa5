"""The audit of the registry: what other hands than holdtrue's have done shows."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from holdtrue.errors import ConfigError
from holdtrue.origin import Origin
from holdtrue.references import Decision, DriftReport, Estimate, ScoredInterval
from holdtrue.registry import Audit, Registry, move_registry
from holdtrue.rollout import Plan, stop
from holdtrue.store import REGISTRY_VARIABLE, Store

RunSql = Callable[..., list[str]]
NOW = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
PLAN = Plan(shares=(0.05, 0.25), every_s=60, requests=100)
FIRST = "0" * 64


@pytest.fixture
def registry(store: Store) -> Iterator[Registry]:
    made = Registry(store)
    yield made
    made.close()


def fill(registry: Registry, system: str = "s") -> None:
    """Two versions, a champion, a look, an interval, and a rollout that was stopped."""
    for number in (1, 2):
        registry.register(
            system,
            digest=f"{number:032x}",
            bundle=f"bundles/{number}",
            as_of=NOW,
            passed=True,
            reason="all gates held",
            incumbent=None,
            metrics={"log_loss": Estimate(value=float("nan"), low=0.4, high=0.6)},
            profile="profiles/1",
            lineage={},
            origin=Origin(commit="a" * 40),
        )
    registry.promote(system, 1, generation=0, reason="the first")
    decision = Decision(at=NOW, action="none", reason="all is well")
    registry.record_report(
        DriftReport(system=system, version=1, at=NOW, windows=(), performance=(), decision=decision)
    )
    rollout = registry.begin_rollout(system, 2, generation=1, plan=PLAN, now=NOW)
    registry.save_rollout(stop(rollout, "enough", NOW))
    registry.record_interval(interval(system))


def interval(system: str, rows: int = 3) -> ScoredInterval:
    return ScoredInterval(
        system=system,
        start=NOW,
        end=NOW + dt.timedelta(days=1),
        version=1,
        digest=f"{1:032x}",
        rows=rows,
        rejected=0,
        at=NOW,
        output="scored",
        rejects=None,
    )


def test_each_writing_is_an_entry(registry: Registry) -> None:
    assert registry.audit("s") == Audit(entries=0, head=None, faults=())
    fill(registry)
    found = registry.audit("s")
    # Two versions with their commits; champion and change; look; rollout, twice, and its verdict;
    # interval.
    assert (found.entries, found.faults) == (11, ())
    assert (found.head or "").startswith("11:")
    registry.record_interval(interval("s", rows=4))
    assert registry.audit("s", head=found.head).faults == ()
    fill(registry, "other")
    assert registry.audit("s").entries == 12
    assert registry.audit("other").entries == 11


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE holdtrue_versions SET passed = NOT passed WHERE number = 2", "version 2 was c"),
        ("UPDATE holdtrue_versions SET metrics = '{}' WHERE number = 1", "version 1 was changed"),
        ("DELETE FROM holdtrue_versions WHERE number = 2", "version 2 was removed by other hands"),
        ("DELETE FROM holdtrue_origins WHERE number = 2", "the commit of version 2 was removed"),
        ("UPDATE holdtrue_history SET reason = 'x'", "change 1 of the champion was changed"),
        (
            "INSERT INTO holdtrue_history SELECT system, 2, 2, 1, at, action, reason "
            "FROM holdtrue_history",
            "change 2 of the champion was added by other hands",
        ),
        ("UPDATE holdtrue_champions SET number = 2", "the champion of s was changed"),
        ("DELETE FROM holdtrue_reports", "look 1 of the monitor was removed"),
        ("UPDATE holdtrue_rollouts SET state = 'done'", "rollout 1 was changed"),
        ("DELETE FROM holdtrue_intervals", "the scored interval from 2024-01-01T00:00:00+00:00"),
        ("UPDATE holdtrue_audit SET content = 'x' WHERE number = 3", "entry 3 of the audit was ch"),
        (
            "UPDATE holdtrue_audit SET at = '2020-01-01' WHERE number = 3",
            "entry 3 of the audit was changed",
        ),
        ("UPDATE holdtrue_audit SET hash = 'x' WHERE number = 3", "entry 3 of the audit was ch"),
        ("DELETE FROM holdtrue_audit WHERE number = 1", "entry 1 of the audit was removed"),
        (
            "DELETE FROM holdtrue_audit WHERE number IN (4, 5)",
            "entries 4 to 5 of the audit were removed",
        ),
        ("DELETE FROM holdtrue_audit WHERE number = 11", "the scored interval from"),
    ],
)
def test_what_other_hands_did_is_told(
    registry: Registry, run_sql: RunSql, statement: str, said: str
) -> None:
    fill(registry)
    run_sql(statement)
    faults = registry.audit("s").faults
    assert any(fault.startswith(said) for fault in faults), faults


def test_what_is_cut_off_with_its_rows_is_told_by_who_kept_the_head(
    registry: Registry, run_sql: RunSql
) -> None:
    fill(registry)
    head = registry.audit("s").head
    run_sql("DELETE FROM holdtrue_audit WHERE number = 11", "DELETE FROM holdtrue_intervals")
    assert registry.audit("s").faults == ()
    (fault,) = registry.audit("s", head=head).faults
    assert fault == f"entry 11 of the audit is not the one that was told as {head}"
    registry.record_interval(interval("s"))
    assert len(registry.audit("s", head=head).faults) == 1


@pytest.mark.parametrize("head", ["", "10", "x:y", f"0:{FIRST}", f"10:{FIRST}x"])
def test_a_head_that_is_none_is_refused(registry: Registry, head: str) -> None:
    fill(registry)
    with pytest.raises(ConfigError, match="expected NUMBER:HASH"):
        registry.audit("s", head=head)


def test_what_was_there_before_is_taken_as_it_is(
    registry: Registry, store: Store, run_sql: RunSql
) -> None:
    fill(registry)
    registry.close()
    run_sql("DROP TABLE holdtrue_audit", "UPDATE holdtrue_schema SET version = 5")
    again = Registry(store)
    assert again.audit("s") == Audit(entries=0, head=None, faults=())
    again.record_interval(interval("s", rows=9))
    # All rows once: those of before, and the one that was written now.
    assert (again.audit("s").entries, again.audit("s").faults) == (10, ())
    run_sql("UPDATE holdtrue_versions SET reason = 'x' WHERE number = 1")
    assert again.audit("s").faults == ("version 1 was changed by other hands",)
    again.close()


def test_who_writes_at_the_same_time_makes_one_chain(registry: Registry, store: Store) -> None:
    fill(registry)

    def write(number: int) -> None:
        own = Registry(store)
        for _ in range(5):
            own.record_interval(interval("s", rows=number))
        own.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    found = registry.audit("s")
    assert (found.entries, found.faults) == (31, ())


def test_a_writing_that_fails_leaves_no_entry(registry: Registry) -> None:
    fill(registry)
    before = registry.audit("s")
    with pytest.raises(Exception, match="the champion of s changed"):
        registry.promote("s", 2, generation=7, reason="late")
    assert registry.audit("s") == before


def test_a_move_takes_it_along(
    home: Store, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(home)
    fill(registry)
    before = registry.audit("s")
    registry.close()
    server = request.getfixturevalue("postgres")
    monkeypatch.setenv(REGISTRY_VARIABLE, server.url(name=server.database()))
    move_registry(home, "postgresql")
    there = Registry(home)
    assert there.audit("s") == before
    there.record_interval(interval("s", rows=4))
    after = there.audit("s")
    assert after.faults == ()
    there.close()
    move_registry(home, "sqlite")
    monkeypatch.delenv(REGISTRY_VARIABLE)
    back = Registry(home)
    assert back.audit("s", head=before.head) == after
    back.close()
    assert json.loads(after.model_dump_json())["entries"] == 12
