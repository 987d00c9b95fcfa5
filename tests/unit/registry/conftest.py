from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import inspect

from holdtrue.registry._place import database_of
from holdtrue.store import REGISTRY_VARIABLE, Store


@pytest.fixture
def home(tmp_path: Path) -> Store:
    """A store as a declaration has it: its registry is where the environment says."""
    return Store(tmp_path / "store", lone=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, home: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """With a registry of its own, in a file and in a database."""
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        monkeypatch.setenv(REGISTRY_VARIABLE, server.url(name=server.database()))
    return home


@pytest.fixture
def run_sql(store: Store) -> Callable[..., list[str]]:
    """Run statements in what holds the registry, past the registry; gives the tables there are."""

    def run(*statements: str) -> list[str]:
        database = database_of(store)
        with database.connected() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
            tables: list[str] = inspect(connection).get_table_names()
        database.close()
        return sorted(tables)

    return run
