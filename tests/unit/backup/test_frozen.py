"""A store that is used while it is backed up."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from holdtrue.backup import back_up, restore
from holdtrue.backup._frozen import Frozen, frozen, is_left_out
from holdtrue.errors import RegistryError, StackError
from holdtrue.plan import Journal
from holdtrue.serving import capture_places, fold_in
from holdtrue.serving._capture import Capture
from holdtrue.serving._fold import batches_of, table_lock
from holdtrue.store import Store, write_atomically
from tests.unit.backup.rows import captured, folded

ROUNDS = 5
_BREATH_S = 0.01


@pytest.fixture
def bare(tmp_path: Path) -> Store:
    """A store with nothing in it."""
    store = Store(tmp_path / "store")
    store.prepare()
    return store


def contents(now: Frozen) -> dict[str, bytes]:
    return {file.name: b"".join(file.chunks()) for file in now.files}


@contextmanager
def meanwhile(work: Callable[[int], None]) -> Iterator[None]:
    """Have something done again and again by another thread, with a breath in between."""
    over = Event()

    def again() -> None:
        number = 0
        while not over.wait(_BREATH_S):
            work(number)
            number += 1

    with ThreadPoolExecutor(1) as pool:
        ends = pool.submit(again)
        try:
            yield
        finally:
            over.set()
            ends.result()


def copies(store: Store, folder: Path) -> Iterator[Store]:
    """Stores that were made again from backups which were made one after the other."""
    for number in range(ROUNDS):
        made = back_up(store, str(folder / "backups"))
        again = Store(folder / str(number))
        restore(again, str(folder / "backups"), name=made.backup.name)
        yield again


def test_what_is_replaced_or_removed_meanwhile_is_as_it_was(bare: Store) -> None:
    for name in ("reports/a.html", "reports/b.html", "bundles/x/model.json"):
        write_atomically(bare.path(name), name.encode())
    with frozen(bare) as now:
        write_atomically(bare.path("reports/a.html"), b"changed")
        bare.path("reports/b.html").unlink()
        bare.path("bundles").rename(bare.path("elsewhere"))
        write_atomically(bare.path("reports/c.html"), b"new")
        assert contents(now) == {
            name: name.encode()
            for name in ("bundles/x/model.json", "reports/a.html", "reports/b.html")
        }
    assert [path.name for path in bare.root.glob(".backup*")] == []


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (b"", b""),
        (b"no end", b""),
        (b"one\ntwo\n", b"one\ntwo\n"),
        (b"one\ntw", b"one\n"),
        (b"one\n" + b"x" * 200_000, b"one\n"),
        (b"one\n" * 50_000 + b"x" * 65_536, b"one\n" * 50_000),
    ],
)
def test_what_grows_is_cut_at_the_end_of_a_line(bare: Store, written: bytes, kept: bytes) -> None:
    names = ("studies/s/a.log", "serving/s/log.jsonl", "captured/s/segments/a.jsonl.open")
    for name in names:
        write_atomically(bare.path(name), written)
    write_atomically(bare.path("reports/page.html"), written)
    with frozen(bare) as now:
        for name in names:
            with bare.path(name).open("ab") as file:
                file.write(b"\nlater\n")
        found = contents(now)
    assert [found[name] for name in names] == [kept] * 3
    assert found["reports/page.html"] == written


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        *[("registry.db", False), ("registry.db-wal", True), ("registry.db-journal", True)],
        *[("systems/a.json", False), ("systems/a.lock", True), ("systems/a.batch.lock", True)],
        *[("systems", False), ("systems/.a.json-x", True), ("logs", True), ("prefect", True)],
        *[("captured/a/.table-batches", False), ("captured/a/.table-batches/lock", True)],
        *[("captured/a/.table-batches/7", False), ("captured/.table-batches", True)],
        *[("captured/a/segments/.close", True), ("bundles/a/.b-x", True), (".backup", True)],
        *[("captured/a/segments/b.jsonl.open", False), ("serving/keys.json", False)],
        *[("serving/a/slate.json", True), ("serving/a/listeners", True), ("serving/a", False)],
        *[("serving/a/stats/b.json", False), ("serving/a/stats/b.lock", True)],
        *[("batch/a/work", True), ("batch/a/scored", False), ("backtests/a", False)],
        *[("backtests/a/backtest.html", False), ("backtests/a/registry.db", True)],
        *[("backtests/a/data", True), ("backed-up.json", True), ("registry.json", False)],
        *[("bundles/logs", False), ("data/prefect/splits", False), (".gitignore", True)],
    ],
)
def test_what_is_of_no_use_elsewhere_is_left_out(name: str, left_out: bool) -> None:
    assert is_left_out(name) is left_out


def test_a_symbolic_link_is_told_and_not_followed(bare: Store, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    bare.path("reports").mkdir()
    (bare.root / "reports" / "page.html").symlink_to(tmp_path / "secret")
    made = back_up(bare, str(tmp_path / "backups"))
    assert made.links == ("reports/page.html",)
    assert str(made).endswith("  left out: reports/page.html, a symbolic link")
    assert made.backup.files == 1  # the store's identity


def test_a_database_that_is_written_to_is_whole(bare: Store, tmp_path: Path) -> None:
    """With what SQLite has not moved into its file yet, and never half of a transaction."""
    path = bare.path("studies.db")
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE pairs (number INTEGER)")
        database.commit()

        def write(number: int) -> None:
            with closing(sqlite3.connect(path)) as other, other:
                other.executemany("INSERT INTO pairs VALUES (?)", [(number,)] * 500)

        counts = []
        with meanwhile(write):
            for again in copies(bare, tmp_path):
                assert [one.name for one in again.root.glob("*.db*")] == ["studies.db"]
                with closing(sqlite3.connect(again.path("studies.db"))) as found:
                    counts += found.execute("SELECT count(*) FROM pairs").fetchone()
    assert [count % 500 for count in counts] == [0] * ROUNDS
    assert counts == sorted(counts)


def test_a_database_that_is_none(bare: Store) -> None:
    bare.path("registry.db").write_text("no database, whatever its name says")
    with pytest.raises(RegistryError, match="file is not a database"), frozen(bare):
        pass


def test_a_table_that_is_written_to_is_whole(bare: Store, tmp_path: Path) -> None:
    table = bare.path("data", "s", "snapshots")

    def write(number: int) -> None:
        write_deltalake(table, pa.table({"number": [number] * 100}), mode="append")

    write(0)
    versions = []
    with meanwhile(write):
        for again in copies(bare, tmp_path):
            found = DeltaTable(again.path("data", "s", "snapshots"))
            versions.append(found.version())
            assert len(found.to_pyarrow_table()) == 100 * (found.version() + 1)
    assert versions == sorted(versions)


def test_captured_rows_are_there_once_whoever_moves_them(bare: Store, tmp_path: Path) -> None:
    """A replica writes, and the monitor folds in, while backups are made."""
    segments, table = capture_places(bare, "visits")

    def write(number: int) -> None:
        capture = Capture(segments)
        capture.append([captured(number)])
        capture.close()

    def fold(_number: int) -> None:
        fold_in(segments, table, wait_s=0.0)

    n_found = []
    with meanwhile(write), meanwhile(fold):
        for again in copies(bare, tmp_path):
            found = folded(again)
            # The first so many, each once.
            assert found == sorted(f"id-{number}" for number in range(len(found)))
            n_found.append(len(found))
    assert n_found == sorted(n_found)


def test_a_backup_waits_for_who_gives_records_up(bare: Store) -> None:
    """What is marked meanwhile is marked in it: its rows may be gone."""
    record = bare.path("steps/split/a.json")
    write_atomically(record, b"kept")
    with ThreadPoolExecutor(1) as pool:
        entered = Event()

        def freeze() -> bytes:
            entered.set()
            with frozen(bare) as now:
                return contents(now)["steps/split/a.json"]

        with Journal(bare, "s").giving_up():
            found = pool.submit(freeze)
            assert entered.wait(60)
            write_atomically(record, b"pruned")
            assert not found.done()
        assert found.result(60) == b"pruned"


def test_a_backup_waits_for_who_folds_in(bare: Store) -> None:
    segments, table = capture_places(bare, "visits")
    capture = Capture(segments)
    capture.append([captured(0)])
    batches = batches_of(table)
    with ThreadPoolExecutor(1) as pool:
        with table_lock(batches):
            entered = Event()

            def freeze() -> set[str]:
                entered.set()
                with frozen(bare) as now:
                    return {*contents(now)}

            names = pool.submit(freeze)
            assert entered.wait(60)
            (segment,) = segments.glob("[!.]*")
            (batches / "0").mkdir()
            segment.rename(batches / "0" / segment.name)
            assert not names.done()
        assert [name for name in names.result(60) if segment.name in name] == [
            f"captured/visits/.table-batches/0/{segment.name}"
        ]
    capture.close()


def test_without_hard_links_a_change_is_noticed(
    bare: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on file systems that have none: there is none here."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    page, log = bare.path("reports/page.html"), bare.path("studies/s/a.log")
    write_atomically(page, b"page")
    write_atomically(log, b"one\n")
    with frozen(bare) as now:
        with log.open("ab") as file:
            file.write(b"two\n")
        assert contents(now) == {"reports/page.html": b"page", "studies/s/a.log": b"one\n"}
        write_atomically(page, b"gape")
        with pytest.raises(StackError, match=r"reports/page\.html was changed while it was read"):
            contents(now)
        page.unlink()
        with pytest.raises(StackError, match="run the same command again"):
            contents(now)
    made = back_up(bare, str(tmp_path / "backups"))
    assert made.backup.files == 2
