from __future__ import annotations

import datetime as dt
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect

from holdtrue.errors import ConfigError, RegistryError
from holdtrue.origin import Origin
from holdtrue.references import Decision, DriftReport, Estimate
from holdtrue.registry import RegisteredVersion, Registry, _search
from holdtrue.registry._place import database_of
from holdtrue.store import Store

RunSql = Callable[..., list[str]]
AS_OF = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def registry(store: Store) -> Iterator[Registry]:
    made = Registry(store)
    yield made
    made.close()


def digest_of(number: int) -> str:
    return f"{number:032x}"


def register(registry: Registry, number: int, system: str = "s", **rest: Any) -> RegisteredVersion:
    values: dict[str, Any] = {
        "bundle": f"bundles/{number}",
        "as_of": AS_OF,
        "passed": True,
        "reason": "all gates held",
        "incumbent": None,
        "metrics": {"log_loss": Estimate(value=0.5, low=0.4, high=0.6)},
        "profile": "profiles/1",
        "lineage": {"extract": "a"},
    }
    return registry.register(system, digest=digest_of(number), **(values | rest))


def promote(registry: Registry, number: int, action: str = "promote") -> None:
    champion = registry.champion("s")
    generation = 0 if champion is None else champion.generation
    registry.promote("s", number, generation=generation, reason=f"{action} {number}", action=action)


def test_nothing_is_made_by_looking(registry: Registry, store: Store, tmp_path: Path) -> None:
    registry.check()
    assert not registry.exists
    assert registry.champion("s") is None
    assert registry.versions("s") == []
    assert registry.history("s") == []
    assert registry.drift_reports("s") == []
    assert registry.previous_champion("s") is None
    assert registry.find("s", digest_of(1)) is None
    with pytest.raises(RegistryError, match="s has no version 1"):
        registry.version("s", 1)
    assert registry.systems() == []
    assert registry.search("s", where="passed", sort=None) == []
    assert list(tmp_path.iterdir()) == []
    if registry.on_server:
        with database_of(store).connected() as connection:
            assert inspect(connection).get_table_names() == []


def test_what_is_said_of_a_champion_is_history(registry: Registry) -> None:
    first = register(registry, 7)
    promote(registry, 1)
    assert registry.was_champion("s", 1)
    assert register(registry, 7, reason="another reason", passed=False) == first


def test_a_model_keeps_its_number(registry: Registry) -> None:
    first = register(registry, 7)
    again = register(registry, 7, reason="another reason", passed=False)
    assert (again.number, again.reason, again.passed) == (1, "another reason", False)
    assert register(registry, 8).number == 2
    assert register(registry, 8, system="other").number == 1
    assert [version.number for version in registry.versions("s")] == [1, 2]
    assert registry.find("s", digest_of(8)) == registry.version("s", 2)
    assert first.metrics == {"log_loss": Estimate(value=0.5, low=0.4, high=0.6)}
    assert (first.as_of, first.lineage) == (AS_OF, {"extract": "a"})
    assert first.created.tzinfo is not None


def test_another_process_sees_what_was_written(registry: Registry, store: Store) -> None:
    register(registry, 1)
    promote(registry, 1)
    other = Registry(store)
    assert other.champion("s") == registry.champion("s")
    other.close()


def test_a_champion_is_changed_only_by_who_knows_it(registry: Registry) -> None:
    for number in (1, 2, 3):
        register(registry, number)
    first = registry.promote("s", 1, generation=0, reason="the first")
    assert (first.version.number, first.generation, first.reason) == (1, 1, "the first")
    second = registry.promote("s", 2, generation=1, reason="better")
    assert second.generation == 2
    for stale in (0, 1, 3):
        with pytest.raises(RegistryError, match="the champion of s changed") as caught:
            registry.promote("s", 3, generation=stale, reason="late")
        assert "run the command again" in (caught.value.hint or "")
    assert registry.champion("s") == second
    assert [change.generation for change in registry.history("s")] == [1, 2]


def test_an_unknown_version_is_not_promoted(registry: Registry) -> None:
    register(registry, 1, system="other")
    with pytest.raises(RegistryError, match="s has no version 1"):
        registry.promote("s", 1, generation=0, reason="?")
    assert registry.champion("s") is None


def test_the_history_says_who_and_why(registry: Registry) -> None:
    for number in (1, 2):
        register(registry, number)
        promote(registry, number)
    promote(registry, 1, "rollback")
    seen = [(c.number, c.previous, c.action, c.reason) for c in registry.history("s")]
    assert seen == [
        (1, None, "promote", "promote 1"),
        (2, 1, "promote", "promote 2"),
        (1, 2, "rollback", "rollback 1"),
    ]
    moments = [change.at for change in registry.history("s")]
    assert moments == sorted(moments)


@pytest.mark.parametrize(
    ("moves", "target"),
    [
        ([], None),
        ([1], None),
        ([1, 2], 1),
        ([1, 2, 3], 2),
        ([1, 2, 3, -2], 1),
        ([1, 2, 3, -2, -1], None),
        ([1, 2, 3, -1], None),
        ([1, 2, -1, 3], 1),
        ([1, 2, 3, -2, 4], 2),
        ([1, 2, 3, -2, 4, -2], 1),
        ([1, 2, 3, -1, -3], 1),  # to one that was gone back from
        ([1, 2, 3, -1, -3, -1], None),
    ],
)
def test_the_version_to_roll_back_to(
    registry: Registry, moves: list[int], target: int | None
) -> None:
    for number in (1, 2, 3, 4):
        register(registry, number)
    for move in moves:
        promote(registry, abs(move), "rollback" if move < 0 else "promote")
    assert registry.previous_champion("s") == target


def race(store: Store, numbers: list[int], generation: int, start: Any) -> list[str]:
    registry = Registry(store)
    won = []
    start.wait()
    for number in numbers:
        try:
            registry.promote("s", number, generation=generation, reason="race")
            won.append("won")
        except RegistryError:
            won.append("lost")
    registry.close()
    return won


@pytest.mark.parametrize("generation", [0, 1])
def test_of_two_threads_exactly_one_wins(registry: Registry, store: Store, generation: int) -> None:
    for number in (1, 2):
        register(registry, number)
    if generation:
        promote(registry, 1)
    start = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(race, store, [2], generation, start) for _ in range(4)]
        results = [result for run in runs for result in run.result(30)]
    assert sorted(results) == ["lost", "lost", "lost", "won"]
    assert [change.generation for change in registry.history("s")] == list(range(1, generation + 2))


def climb(store: Store, number: int, times: int) -> int:
    """Promote again and again; whoever is stale looks and tries again."""
    registry = Registry(store)
    done = 0
    while done < times:
        champion = registry.champion("s")
        try:
            generation = 0 if champion is None else champion.generation
            registry.promote("s", number, generation=generation, reason="climb")
            done += 1
        except RegistryError:
            continue
    registry.close()
    return done


def test_generations_have_no_gaps_when_processes_race(registry: Registry, store: Store) -> None:
    for number in (1, 2):
        register(registry, number)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        runs = [pool.submit(climb, store, n, 8) for n in (1, 2)]
        assert [run.result(60) for run in runs] == [8, 8]
    history = registry.history("s")
    assert [change.generation for change in history] == list(range(1, 17))
    assert [c.previous for c in history] == [None, *[c.number for c in history[:-1]]]


def open_anew(store: Store, start: Any) -> int:
    registry = Registry(store)
    start.wait()
    number = register(registry, 1).number
    registry.close()
    return number


def test_many_may_open_a_new_registry_at_once(store: Store) -> None:
    start = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(open_anew, store, start) for _ in range(8)]
        assert [run.result(30) for run in runs] == [1] * 8
    assert len(Registry(store).versions("s")) == 1


def test_a_newer_registry_is_refused_and_left_as_it_was(store: Store, run_sql: RunSql) -> None:
    store.root.mkdir()
    run_sql(
        "CREATE TABLE holdtrue_schema (version INTEGER PRIMARY KEY)",
        "INSERT INTO holdtrue_schema VALUES (9)",
    )
    for use in (lambda: Registry(store).champion("s"), lambda: register(Registry(store), 1)):
        with pytest.raises(RegistryError, match=r"by a newer holdtrue \(schema 9\)") as caught:
            use()
        assert caught.value.hint == "upgrade holdtrue"
    assert run_sql() == ["holdtrue_schema"]


def test_a_registry_of_before_refits_gets_its_columns(store: Store, run_sql: RunSql) -> None:
    registry = Registry(store)
    version = register(registry, 1)
    registry.close()
    run_sql(
        *(
            f"ALTER TABLE holdtrue_versions DROP COLUMN measured_{it}"
            for it in ("digest", "bundle")
        ),
        "UPDATE holdtrue_schema SET version = 3",
    )
    registry = Registry(store)
    assert registry.versions("s") == [version]
    assert not version.refitted
    assert (version.measured_digest, version.measured_bundle) == (version.digest, version.bundle)
    assert registry.search("s", where="NOT refitted", sort=None) == [version]
    refitted = register(registry, 2, measured=("a" * 32, "bundles/a"))
    assert refitted.refitted
    assert (refitted.measured_digest, refitted.measured_bundle) == ("a" * 32, "bundles/a")
    assert registry.search("s", where="refitted", sort=None) == [refitted]
    assert registry.of_fit("s", "a" * 32) == [refitted]
    registry.close()


def test_a_registry_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "registry.db").write_bytes(b"not a database, but long enough" * 100)
    (tmp_path / "folder" / "registry.db").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"")
    for name in ("damaged", "folder", "file"):
        with pytest.raises(RegistryError, match=r"registry\.db cannot be used: "):
            register(Registry(Store(tmp_path / name)), 1)


def test_reports_come_back_in_order(registry: Registry) -> None:
    reports = [
        DriftReport(
            system="s",
            version=number,
            at=AS_OF,
            windows=(),
            performance=(),
            decision=Decision(at=AS_OF, action="none", reason="all quiet"),
        )
        for number in (1, 2)
    ]
    for report in reports:
        registry.record_report(report)
    assert registry.drift_reports("s") == reports
    for last in (1, 2, 100):
        assert registry.drift_reports("s", last=last) == reports[-last:]
    assert registry.drift_reports("other") == []


def test_what_json_has_no_word_for_is_kept(registry: Registry) -> None:
    odd = Estimate(value=float("nan"), low=float("-inf"), high=0.1 + 0.2)
    kept = register(registry, 1, metrics={"log_loss": odd}, reason="größer \N{SNOWMAN} 'quoted' %s")
    found = registry.version("s", 1)
    assert found.metrics["log_loss"].model_dump_json() == odd.model_dump_json()
    assert found.reason == kept.reason == "größer \N{SNOWMAN} 'quoted' %s"


def test_versions_are_found_by_a_condition(registry: Registry) -> None:
    origin = Origin(commit="c" * 40, changed=("a.py",), patch="+\x00secret")
    for number, loss in ((1, 0.5), (2, 0.3), (3, 0.4)):
        metrics = {"log_loss": Estimate(value=loss, low=0, high=1)}
        register(registry, number, metrics=metrics, passed=number < 3, origin=origin)
    register(registry, 4, system="other")
    promote(registry, 1)
    promote(registry, 2)

    def found(where: str | None, sort: str | None = None) -> list[int]:
        return [version.number for version in registry.search("s", where=where, sort=sort)]

    assert found(None) == [1, 2, 3]
    assert found(None, "log_loss") == [2, 3, 1]
    assert found("log_loss < 0.45 AND passed") == [2]
    assert found("champion OR NOT passed", "version") == [3, 2]
    assert found("was_champion AND NOT champion") == [1]
    assert found(f"git_commit = '{'c' * 40}' AND created > '2020'") == [1, 2, 3]
    assert found("version = '2'") == [2]
    assert registry.origins("s")[1] == Origin(commit="c" * 40, changed=("a.py",))
    assert registry.origin("s", 1) == origin


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("version IN (SELECT number FROM holdtrue_versions)", "no such table"),
        ("1) UNION SELECT 9 --", "SELECTs to the left and right|syntax error"),
        ("1; DROP TABLE versions", "one statement at a time"),
        ("readfile('/etc/passwd') IS NULL", "no such function"),
        ("load_extension('x') IS NULL", "not authorized|no such function"),
        ("pg_read_file('/etc/passwd') IS NULL", "no such function"),
        ("pg_sleep(99) IS NULL", "no such function"),
        ("unheard_of > 1", "no such column"),
        ("version IN (SELECT name FROM pragma_database_list)", "not authorized|prohibited"),
    ],
)
def test_a_condition_reaches_nothing_else(registry: Registry, where: str, said: str) -> None:
    register(registry, 1)
    with pytest.raises(ConfigError, match=f"--where .*({said})"):
        registry.search("s", where=where, sort=None)
    assert len(registry.versions("s")) == 1


def test_a_condition_without_end_is_ended(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_search, "_LONGEST_S", 0.1)
    register(registry, 1)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with pytest.raises(ConfigError, match=r"takes longer than 0\.1 s"):
        registry.search("s", where=f"version < ({endless})", sort=None)
