"""Backups of a store that answers, and of others on a real server that speaks S3 over HTTP."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import httpx
import pytest
from deltalake import DeltaTable
from pyarrow.fs import FileSelector, FileType, S3FileSystem

from holdtrue.access import create_key
from holdtrue.backup import Target, back_up, backups_at, prove, restore
from holdtrue.errors import DataError, StackError, TargetError
from holdtrue.serving import Endpoint, capture_places, fold_in
from holdtrue.stack import free_ports
from holdtrue.store import HOME_VARIABLE, Store, write_atomically
from holdtrue.system import System
from tests.unit.backup.rows import tree
from tests.unit.conftest import learner

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

# More than Arrow keeps before it sends parts of a file.
LARGE_BYTES = 40_000_000
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its host and port."""
    if importlib.util.find_spec("moto") is None:
        reason = "no S3 server here: `make install` brings moto"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    (port,) = free_ports(1)
    log = tmp_path_factory.mktemp("s3") / "log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603 - our own
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/").raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture
def storage(server: str, monkeypatch: pytest.MonkeyPatch) -> S3FileSystem:
    """With an empty bucket `models`; the environment says where it is."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://{server}"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    httpx.post(f"http://{server}/moto-api/reset").raise_for_status()
    found = S3FileSystem(endpoint_override=server, scheme="http", allow_bucket_creation=True)
    found.create_dir("models")
    return found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    for number in range(30):
        name = f"reports/page ü {number}.html"
        write_atomically(store.path(name), f"{number}".encode(), mode=0o600)
    write_atomically(store.path("bundles/s/large.bin"), os.urandom(LARGE_BYTES))
    write_atomically(store.path("studies/s/empty.log"), b"")
    store.prepare()
    return store


def test_a_system_that_answers_is_backed_up_and_answers_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same champion and keys; and each row that was captured until then is there once."""
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    learner(tmp_path)(0)
    path, (port,) = tmp_path / "visits.yaml", free_ports(1)
    with path.open("a") as file:
        file.write(f"serve: {{port: {port}}}\n")
    system, target = System(path), str(tmp_path / "backups")
    row = {"age": 40, "weight": 0.5, "ward": "b"}
    _, key = create_key(system.store, "shop", ["predict"])
    over, ids = Event(), []

    def ask() -> None:
        with Endpoint(url, key=key) as endpoint:
            while not over.is_set():
                ids.append(endpoint.predict([row])["ids"][0])

    try:
        url = system.serve().endpoint
        with Endpoint(url, key=key) as endpoint:
            before = endpoint.predict([row])
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ask)
            try:
                back_up(system.store, target)
                known = len(ids)
                made = back_up(system.store, target)
            finally:
                over.set()
            asked.result()
        with pytest.raises(StackError, match="something runs on the store"):
            restore(system.store, target, replace=True)
    finally:
        system.stack.down()
    system.store.root.rename(tmp_path / "lost")
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "new"))
    again = System(path)
    assert restore(again.store, target).backup == made.backup
    assert again.verify().mismatches == ()
    segments, table = capture_places(again.store, "visits")
    assert fold_in(segments, table).damaged == 0
    found = DeltaTable(table).to_pyarrow_table()["id"].to_pylist()
    assert {*ids[:known]} <= {*found}
    assert len(found) == len({*found})
    try:
        url = again.serve().endpoint
        with Endpoint(url, key=key) as endpoint:
            after = endpoint.predict([row])
    finally:
        again.stack.down()
    for name in ("version", "predictions"):
        assert after[name] == before[name]


def keys_of(storage: S3FileSystem) -> dict[str, int]:
    """Bytes of each object in the bucket."""
    listed = storage.get_file_info(FileSelector("models", recursive=True))
    return {one.path: one.size for one in listed if one.type == FileType.File}


def test_there_and_back(storage: S3FileSystem, store: Store, tmp_path: Path) -> None:
    with storage.open_output_stream("models/other/readme.txt") as file:
        file.write(b"mine")
    address = "s3://models/team/flights"
    made = back_up(store, address)
    assert made.sent_bytes > LARGE_BYTES
    again = back_up(store, f"{address}/")
    assert (again.sent_files, again.sent_bytes) == (0, 0)
    new = Store(tmp_path / "new")
    assert prove(new, address).backup == again.backup
    restore(new, address, name=made.backup.name)
    assert tree(new.root) == tree(store.root)
    # Older ones go, with what no other one has; nothing else does.
    store.path("bundles/s/large.bin").unlink()
    last = back_up(store, address, keep=1)
    assert last.removed == (made.backup.name, again.backup.name)
    assert [*backups_at(Target(address))] == [last.backup.name]
    left = keys_of(storage)
    assert max(left.values()) < LARGE_BYTES
    assert left["models/other/readme.txt"] == 4
    restore(new, address, replace=True)
    assert tree(new.root) == tree(store.root)


def test_options_of_the_address(
    storage: S3FileSystem, server: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    back_up(store, f"s3://models/x?endpoint_override={server}&scheme=http&region=eu-central-1")
    assert "models/x/holdtrue.json" in keys_of(storage)


def test_what_was_stopped_is_gone_on_with(
    storage: S3FileSystem, store: Store, tmp_path: Path
) -> None:
    address = "s3://models/flights"

    def stop(done: int, total: int, words: str) -> None:
        # The small ones are there by now, and the large one is on its way.
        if words.startswith("sending") and done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(store, address, progress=stop)
    assert backups_at(Target(address)) == {}
    sent = [size for name, size in keys_of(storage).items() if "/objects/" in name]
    made = back_up(store, address)
    assert made.sent_files <= made.backup.files - len(sent) + 1  # the large one, in part
    restore(Store(tmp_path / "new"), address)
    assert tree(tmp_path / "new") == tree(store.root)


def test_what_is_damaged_or_lost_there(storage: S3FileSystem, store: Store, tmp_path: Path) -> None:
    address, new = "s3://models/flights", Store(tmp_path / "new")
    back_up(store, address)
    objects = [name for name in keys_of(storage) if "/objects/" in name]
    large = next(name for name in objects if storage.get_file_info(name).size == LARGE_BYTES)
    with storage.open_output_stream(large) as file:
        file.write(bytes(LARGE_BYTES))
    with pytest.raises(DataError, match=f"is damaged: {large.removeprefix('models/flights/')}"):
        restore(new, address)
    storage.delete_file(large)
    with pytest.raises(DataError, match=f"is damaged: {large.removeprefix('models/flights/')}"):
        restore(new, address)
    assert back_up(store, address).sent_files == 1
    restore(new, address)
    assert tree(new.root) == tree(store.root)


def test_a_bucket_that_is_not_there(storage: S3FileSystem, store: Store) -> None:
    with pytest.raises(TargetError, match="NO_SUCH_BUCKET") as told:
        back_up(store, "s3://nobody/flights")
    assert "s3://nobody/flights does not do what is asked: " in told.value.message
    assert "credentials" in (told.value.hint or "")


def test_a_place_that_does_not_answer(
    storage: S3FileSystem, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with pytest.raises(TargetError, match="Could not connect to server"):
        back_up(store, "s3://models/flights")
    assert not [*store.root.glob(".backup*")]
