"""A registry in PostgreSQL: whose it is, what is refused, and what is said while it is away."""

from __future__ import annotations

import json
import pickle
import shutil
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdtrue.errors import ConfigError, HoldtrueError, RegistryAwayError, RegistryError, Retryable
from holdtrue.references import Interval, ScoredInterval
from holdtrue.registry import Registry
from holdtrue.registry._place import database_of
from holdtrue.store import REGISTRY_VARIABLE, Store
from tests.postgres import SECRET, Server
from tests.unit.registry.test_registry import register

Point = Callable[[str], str]


@pytest.fixture
def point(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> Point:
    """Let the environment name a database of the server; its URL without the password."""

    def to(name: str) -> str:
        monkeypatch.setenv(REGISTRY_VARIABLE, postgres.url(name=name))
        return postgres.url(name=name).replace(f":{SECRET}", "")

    return to


def champion_of(store: Store) -> None:
    registry = Registry(store)
    register(registry, 1)
    registry.promote("s", 1, generation=0, reason="the first")
    registry.close()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///registry.db",
        "mysql://me:s3cr3t@host/name",
        "postgresql+asyncpg://me:s3cr3t@host/name",
        "postgresql://me:s3cr3t@host",
        "postgres://me:s3cr3t@host/name",
        "postgresql://me:s3cr3t@host:port/name",
        "/mnt/team/s3cr3t.db",
    ],
)
def test_what_is_no_postgresql_is_refused(
    home: Store, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REGISTRY_VARIABLE, url)
    said = "HOLDTRUE_REGISTRY is no URL of a PostgreSQL database\n  such as postgresql://user"
    with pytest.raises(ConfigError) as caught:
        Registry(home)
    assert str(caught.value).startswith(said)
    assert "s3cr3t" not in str(caught.value)
    assert not Registry(Store(home.root)).exists  # that of a backtest, say, is a file all the same


def test_a_password_that_would_name_another_host_is_refused(
    home: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REGISTRY_VARIABLE, "postgresql://me:s3/cr@elsewhere@host/name")
    with pytest.raises(ConfigError) as caught:
        Registry(home)
    assert "cr@elsewhere" not in str(caught.value)


def test_a_server_that_is_away_is_one_sentence(
    home: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        port = held.getsockname()[1]
        monkeypatch.setenv(
            REGISTRY_VARIABLE, f"postgresql://me:{SECRET}@127.0.0.1:{port}/team?sslpassword=pw8"
        )
        registry = Registry(home)
        asked = (
            registry.check,
            lambda: registry.champion("s"),
            lambda: registry.search("s", where="passed", sort=None),
            lambda: register(registry, 1),
        )
        for ask in asked:
            with pytest.raises(RegistryAwayError) as caught:
                ask()
            said = f"the registry postgresql://me@127.0.0.1:{port}/team does not answer: "
            assert caught.value.message.startswith(said)
            assert "Connection refused" in caught.value.message
            assert isinstance(caught.value, Retryable)
            assert SECRET not in str(caught.value)
            assert isinstance(pickle.loads(pickle.dumps(caught.value)), Retryable)  # noqa: S301
    assert not home.root.exists() or not (home.root / "registry.db").exists()


def test_no_password_is_told(
    home: Store, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REGISTRY_VARIABLE, postgres.url("wrong-secret"))
    with pytest.raises(RegistryAwayError, match="password authentication failed") as caught:
        Registry(home).check()
    assert "wrong-secret" not in str(caught.value)
    monkeypatch.setenv(REGISTRY_VARIABLE, postgres.url())
    assert SECRET not in Registry(home).place


def test_the_store_knows_where_its_registry_is(
    home: Store, postgres: Server, point: Point, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = point(postgres.database())
    champion_of(home)
    assert Registry(home).place == place
    marker = (home.root / "registry.json").read_text()
    assert json.loads(marker)["database"] == place
    assert SECRET not in marker
    assert not (home.root / "registry.db").exists()
    # Who has not been told of it does not begin another one.
    monkeypatch.delenv(REGISTRY_VARIABLE)
    with pytest.raises(ConfigError, match=r"the registry of .* is in .*HOLDTRUE_REGISTRY") as e:
        Registry(home)
    assert place in e.value.message
    # Nor does who was told of another one, or of one that was lost.
    other = point(postgres.database())
    for use in (lambda: Registry(home).champion("s"), lambda: champion_of(home)):
        with pytest.raises(RegistryError, match="holds no registry") as caught:
            use()
        assert other in caught.value.message
        assert place in caught.value.message


def test_the_same_database_at_another_address_is_the_same(
    home: Store, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.url(name=postgres.database())
    monkeypatch.setenv(REGISTRY_VARIABLE, url)
    champion_of(home)
    monkeypatch.setenv(REGISTRY_VARIABLE, url.replace("127.0.0.1", "localhost"))
    assert Registry(home).champion("s") is not None


def test_a_store_with_a_file_does_not_lose_its_champion(
    home: Store, postgres: Server, point: Point, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion_of(home)
    place = point(postgres.database())
    with pytest.raises(ConfigError, match="is its file, and HOLDTRUE_REGISTRY names") as caught:
        Registry(home)
    assert place in caught.value.message
    assert "`holdtrue registry move FILE --to postgresql`" in (caught.value.hint or "")
    monkeypatch.delenv(REGISTRY_VARIABLE)
    assert Registry(home).champion("s") is not None


def test_two_stores_do_not_share_a_database(
    home: Store, postgres: Server, point: Point, tmp_path: Path
) -> None:
    place = point(postgres.database())
    champion_of(home)
    other = Store(tmp_path / "other", lone=False)
    for use in (lambda: Registry(other).champion("s"), lambda: champion_of(other)):
        with pytest.raises(RegistryError, match="holds the registry of another store") as caught:
            use()
        assert place in caught.value.message
        assert str(home.root) in caught.value.message
    # A schema of its own keeps them apart.
    name = place.rpartition("/")[2]
    postgres.run("CREATE SCHEMA second", name)
    point(f"{name}?options=-csearch_path%3Dsecond")
    assert Registry(other).champion("s") is None
    champion_of(other)
    assert postgres.run("SELECT count(*) FROM second.holdtrue_champions", name) == [(1,)]
    assert postgres.run("SELECT count(*) FROM public.holdtrue_history", name) == [(1,)]
    # Where the folder is mounted elsewhere, it is the same store.
    point(name)
    shutil.copytree(home.root, tmp_path / "mounted")
    assert Registry(Store(tmp_path / "mounted", lone=False)).champion("s") is not None


def test_who_was_cut_short_before_the_store_knew_goes_on(
    home: Store, postgres: Server, point: Point
) -> None:
    place = point(postgres.database())
    champion_of(home)
    marker = home.root / "registry.json"
    content = json.loads(marker.read_text())
    marker.write_text(json.dumps({"store": content["store"]}))
    assert Registry(home).champion("s") is not None
    assert json.loads(marker.read_text()) == {"store": content["store"], "database": place}
    marker.write_text("{")
    with pytest.raises(ConfigError, match=r"registry\.json, .* is damaged"):
        Registry(home)


def test_what_its_user_may_not_do_is_told(
    home: Store, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = postgres.database()
    postgres.run(f"CREATE ROLE weak{name} LOGIN PASSWORD 'pw9'")
    postgres.run("REVOKE CREATE ON SCHEMA public FROM PUBLIC", name)
    url = postgres.url("pw9", name).replace("shop", f"weak{name}")
    monkeypatch.setenv(REGISTRY_VARIABLE, url)
    assert Registry(home).champion("s") is None
    for use in (Registry(home).check, lambda: register(Registry(home), 1)):
        with pytest.raises(RegistryError, match="permission denied for schema") as caught:
            use()
        assert "needs the right to make tables" in (caught.value.hint or "")
    # Who may only read the tables can look, and is told before a training.
    monkeypatch.setenv(REGISTRY_VARIABLE, postgres.url(name=name))
    champion_of(home)
    Registry(home).check()
    postgres.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO weak{name}", name)
    monkeypatch.setenv(REGISTRY_VARIABLE, url)
    assert Registry(home).champion("s") is not None
    with pytest.raises(RegistryError, match="permission denied for table"):
        Registry(home).check()


def test_text_that_does_not_hold_every_name_is_refused(
    home: Store, postgres: Server, point: Point
) -> None:
    point(postgres.database("ENCODING 'LATIN1' TEMPLATE template0"))
    for use in (Registry(home).check, lambda: register(Registry(home), 1)):
        with pytest.raises(ConfigError, match="keeps text as LATIN1"):
            use()


def test_moments_are_in_order_whatever_the_language(
    home: Store, postgres: Server, point: Point
) -> None:
    point(postgres.database("TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"))
    registry = Registry(home)
    began = datetime(2024, 1, 1, tzinfo=UTC)
    starts = [began + timedelta(milliseconds=part) for part in (0, 500, 1000, 1500)]
    for start in starts[::-1]:
        scored = ScoredInterval.model_construct(
            system="s", start=start, end=start + timedelta(seconds=1)
        )
        registry.record_interval(scored)
    assert [one.start for one in registry.done_intervals("s")] == starts
    assert isinstance(registry.done_intervals("s")[0], Interval)


def test_a_connection_that_is_lost_is_made_again(
    home: Store, postgres: Server, point: Point
) -> None:
    name = postgres.database()
    point(name)
    registry = Registry(home)
    register(registry, 1)
    lost = "SELECT pg_terminate_backend(pg_backend_pid())"

    def in_the_middle() -> None:
        with database_of(home).transaction() as connection:
            connection.exec_driver_sql("DELETE FROM holdtrue_versions")
            connection.exec_driver_sql(lost)

    with pytest.raises(RegistryAwayError, match="does not answer: server closed"):
        in_the_middle()
    assert len(registry.versions("s")) == 1
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    assert postgres.run(sessions, name) == [(1,)]  # our own: none is kept


def test_who_only_reads_changes_nothing(home: Store, postgres: Server, point: Point) -> None:
    point(postgres.database())
    champion_of(home)

    def change() -> None:
        with database_of(home).transaction(write=False) as connection:
            connection.exec_driver_sql("DELETE FROM holdtrue_champions")

    with pytest.raises(HoldtrueError, match="read-only transaction"):
        change()
    assert Registry(home).champion("s") is not None
