"""Moving the registry of a store to PostgreSQL and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdtrue.errors import ConfigError, RegistryError
from holdtrue.origin import Origin
from holdtrue.references import Decision, DriftReport, Estimate
from holdtrue.registry import Registry, _move, move_registry
from holdtrue.store import REGISTRY_VARIABLE, Store
from tests.postgres import Server
from tests.unit.registry.test_registry import AS_OF, register
from tests.unit.registry.test_rollouts import NOW, PLAN

Named = Callable[[bool], None]


@pytest.fixture
def named(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> Named:
    """Let the environment name a database, the same each time, or none."""
    url = postgres.url(name=postgres.database())

    def name(there: bool) -> None:
        if there:
            monkeypatch.setenv(REGISTRY_VARIABLE, url)
        else:
            monkeypatch.delenv(REGISTRY_VARIABLE, raising=False)

    name(False)
    return name


def fill(registry: Registry) -> None:
    """Something of everything that a registry keeps, of two systems."""
    odd = {"log_loss": Estimate(value=float("nan"), low=0.1 + 0.2, high=1e-300)}
    origin = Origin(commit="c" * 40, patch="+ä\x00\N{SNOWMAN}")
    register(registry, 1, reason="größer", metrics=odd, origin=origin)
    register(registry, 2, measured=("a" * 32, "bundles/a"), passed=False)
    register(registry, 3, system="other")
    registry.promote("s", 1, generation=0, reason="the first")
    registry.promote("s", 2, generation=1, reason="the second")
    registry.begin_rollout("s", 1, generation=2, plan=PLAN, now=NOW)
    registry.begin_rollout("s", 1, generation=2, plan=PLAN, now=NOW)
    decided = Decision(at=AS_OF, action="none", reason="all quiet")
    for number in range(2):
        report = DriftReport(
            system="s", version=number, at=AS_OF, windows=(), performance=(), decision=decided
        )
        registry.record_report(report)


def seen(registry: Registry) -> list[Any]:
    """All that a registry tells, as text: NaN is not equal to itself."""
    told: list[Any] = [registry.systems()]
    for system in registry.systems():
        told += [registry.versions(system), registry.champion(system), registry.history(system)]
        told += [registry.rollouts(system), registry.drift_reports(system)]
        told += [registry.origin(system, 1), registry.scored_intervals(system)]
        told += [registry.verdicts(one.id) for one in registry.rollouts(system)]
    return [repr(one) for one in told]


def test_there_and_back_everything_is_as_it_was(
    home: Store, named: Named, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_move, "_AT_A_TIME", 2)
    still_open = Registry(home)
    fill(still_open)
    before = seen(still_open)
    named(True)
    planned = move_registry(home, "postgresql", dry_run=True)
    assert not (home.root / "registry.json").exists()
    moved = move_registry(home, "postgresql")
    assert moved == planned
    assert (moved.systems, moved.versions) == (("other", "s"), 3)
    there = Registry(home)
    assert there.on_server
    assert seen(there) == before
    # Who had the file open does not write to it any more.
    with pytest.raises(RegistryError, match=r"was moved from .*registry\.db to postgresql://"):
        register(still_open, 4)
    with pytest.raises(RegistryError, match="was moved"):
        still_open.champion("s")
    still_open.close()
    # What comes next gets the next numbers.
    begun = there.begin_rollout("s", 1, generation=2, plan=PLAN, now=NOW)
    assert begun.id == 3
    assert register(there, 4).number == 3
    there.promote("s", 3, generation=2, reason="there")
    with pytest.raises(ConfigError, match="already"):
        move_registry(home, "postgresql")

    after = seen(there)
    back = move_registry(home, "sqlite")
    assert (back.source, back.target) == (moved.target, moved.source)
    with pytest.raises(RegistryError, match=r"was moved from postgresql://.* to .*registry\.db"):
        there.champion("s")
    with pytest.raises(ConfigError, match="is its file, and HOLDTRUE_REGISTRY names"):
        Registry(home)
    named(False)
    here = Registry(home)
    assert not here.on_server
    assert seen(here) == after
    assert here.begin_rollout("s", 1, generation=3, plan=PLAN, now=NOW).id == 4
    here.close()
    # And there again, over what stayed there.
    named(True)
    move_registry(home, "postgresql")
    assert len(Registry(home).rollouts("s")) == 4


@pytest.mark.parametrize("to", ["postgresql", "sqlite"])
@pytest.mark.parametrize("cut", ["_copy", "set_owner", "remember"])
def test_a_move_that_was_killed_is_finished_by_the_next(
    home: Store, named: Named, to: str, cut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(home)
    fill(registry)
    before = seen(registry)
    registry.close()
    named(True)
    if to == "sqlite":
        move_registry(home, "postgresql")
    whole, calls = getattr(_move, cut), []

    class Killed(BaseException):
        pass

    def fail(*arguments: Any) -> None:
        calls.append(arguments)
        # Of owners, the last: both places have been told, and neither answers.
        if cut != "set_owner" or len(calls) == 3:
            raise Killed
        whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(_move, cut, fail)
        with pytest.raises(Killed):
            move_registry(home, to)
    if cut == "set_owner":
        for there in (True, False):
            named(there)
            with pytest.raises((ConfigError, RegistryError)):
                Registry(home).champion("s")
    named(True)
    assert move_registry(home, to).versions == 3
    named(to == "postgresql")
    found = Registry(home)
    assert seen(found) == before
    found.close()


def test_what_would_be_lost_is_not_overwritten(home: Store, named: Named, tmp_path: Path) -> None:
    registry = Registry(home)
    fill(registry)
    registry.close()
    shutil.copytree(home.root, tmp_path / "backup")
    named(True)
    move_registry(home, "postgresql")
    register(Registry(home), 9)
    # A file of before comes back, with the store that is known there, and without.
    shutil.copy(tmp_path / "backup" / "registry.db", home.root)
    with pytest.raises(RegistryError, match="holds a registry already, with 3 versions"):
        move_registry(home, "sqlite")
    marker = home.root / "registry.json"
    known = marker.read_text()
    marker.write_text(json.dumps({"store": json.loads(known)["store"]}))
    with pytest.raises(RegistryError, match="holds a registry already, with 4 versions"):
        move_registry(home, "postgresql")
    other = Store(tmp_path / "backup", lone=False)
    for dry_run in (True, False):
        with pytest.raises(RegistryError, match="holds the registry of another store"):
            move_registry(other, "postgresql", dry_run=dry_run)
    marker.write_text(known)
    assert len(Registry(home).versions("s")) == 3


def test_what_cannot_be_moved_is_told(home: Store, named: Named) -> None:
    with pytest.raises(ConfigError, match="HOLDTRUE_REGISTRY names no database"):
        move_registry(home, "postgresql")
    named(True)
    with pytest.raises(ConfigError, match="--to mysql: expected postgresql or sqlite"):
        move_registry(home, "mysql")
    with pytest.raises(RegistryError, match=r"there is no registry in .*registry\.db to move"):
        move_registry(home, "postgresql")
    with pytest.raises(ConfigError, match=r"is in .*registry\.db already"):
        move_registry(home, "sqlite")
    assert not home.root.exists()


def test_nothing_is_moved_from_another_place_than_that_of_the_store(
    home: Store, named: Named, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(home)
    fill(registry)
    registry.close()
    named(True)
    move_registry(home, "postgresql")
    before = seen(Registry(home))
    name = postgres.database()
    monkeypatch.setenv(REGISTRY_VARIABLE, postgres.url(name=name))
    for dry_run in (True, False):
        with pytest.raises(RegistryError, match="there is no registry in postgresql://"):
            move_registry(home, "sqlite", dry_run=dry_run)
    assert postgres.run("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", name) == [
        (0,)
    ]
    named(True)
    assert seen(Registry(home)) == before


def test_a_copy_that_differs_is_not_used(
    home: Store, named: Named, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(home)
    fill(registry)
    before = seen(registry)
    named(True)
    with monkeypatch.context() as patch:
        patch.setattr(_move, "_digest", lambda connection, _: connection.dialect.name)
        with pytest.raises(RegistryError, match="are others after they were moved"):
            move_registry(home, "postgresql")
    assert seen(registry) == before
    registry.close()
    move_registry(home, "postgresql")
    assert seen(Registry(home)) == before
