"""A registry in PostgreSQL is in the backups of its store."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdtrue.backup import back_up, restore
from holdtrue.errors import ConfigError
from holdtrue.registry import Registry, move_registry
from holdtrue.store import REGISTRY_VARIABLE, Store
from tests.postgres import Server
from tests.unit.registry.test_move import fill, seen


def test_it_comes_back_as_a_file_and_can_go_to_a_database_again(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REGISTRY_VARIABLE, postgres.url(name=postgres.database()))
    store, target = Store(tmp_path / "store", lone=False), str(tmp_path / "backups")
    registry = Registry(store)
    fill(registry)
    before = seen(registry)
    made = back_up(store, target)
    assert made.backup.systems == {"other": None, "s": 2}
    assert back_up(store, target).sent_files == 0
    registry.promote("s", 1, generation=2, reason="after the backup")

    new = Store(tmp_path / "new", lone=False)
    restore(new, target)
    with pytest.raises(ConfigError, match="is its file, and HOLDTRUE_REGISTRY names") as told:
        Registry(new)
    assert "holdtrue registry move" in (told.value.hint or "")
    monkeypatch.delenv(REGISTRY_VARIABLE)
    assert seen(Registry(new)) == before
    assert back_up(new, target).backup.store == made.backup.store
    monkeypatch.setenv(REGISTRY_VARIABLE, postgres.url(name=postgres.database()))
    move_registry(new, "postgresql")
    assert seen(Registry(new)) == before


def test_one_that_is_left_in_the_store_is_not_it(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a move has left says that it was moved."""
    store, target = Store(tmp_path / "store", lone=False), str(tmp_path / "backups")
    registry = Registry(store)
    fill(registry)
    registry.close()
    monkeypatch.setenv(REGISTRY_VARIABLE, postgres.url(name=postgres.database()))
    move_registry(store, "postgresql")
    before = seen(Registry(store))
    back_up(store, target)
    monkeypatch.delenv(REGISTRY_VARIABLE)
    with pytest.raises(ConfigError, match="HOLDTRUE_REGISTRY is not set"):
        back_up(store, target)
    new = Store(tmp_path / "new", lone=False)
    restore(new, target)
    assert seen(Registry(new)) == before
