"""A store with something of each kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from holdtrue.access import create_key
from holdtrue.serving import capture_places, fold_in
from holdtrue.serving._capture import Capture
from holdtrue.store import HOME_VARIABLE, Store
from tests.unit.backup.rows import captured
from tests.unit.conftest import learner


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a project with two versions of `visits`, a key and captured rows."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(HOME_VARIABLE, raising=False)
        learn = learner(folder)
        learn(0)
        store = learn(1).store
    create_key(store, "shop", ["predict"])
    segments, table = capture_places(store, "visits")
    for numbers in (range(3), range(3, 5)):
        fold_in(segments, table)
        capture = Capture(segments)
        capture.append([captured(number) for number in numbers])
        capture.close()
    (store.root / "logs").mkdir()
    (store.root / "logs" / "ray.log").write_text("started\n")
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to be changed; the working folder."""
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def store(project: Path) -> Store:
    """Its store."""
    return Store.of(project / "visits.yaml")
