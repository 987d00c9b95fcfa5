"""A store as it is at one moment, while it goes on being used.

Almost every file is written once or replaced as a whole, so that another name for it (a hard link)
keeps what it was. Files that grow are cut at the end of a line, and SQLite copies its own.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from holdtrue.backed_up import LAST
from holdtrue.backup._manifest import StoredFolder
from holdtrue.backup._target import CHUNK_BYTES
from holdtrue.errors import RegistryError, StackError, refused_by_machine
from holdtrue.plan._journal import records_lock
from holdtrue.registry import copy_registry
from holdtrue.registry._marker import MARKER
from holdtrue.serving._capture import CLOSED_SUFFIX, OPEN_SUFFIX
from holdtrue.serving._fold import batches_of, capture_places, table_lock
from holdtrue.serving._statistics import LOCK_SUFFIX, TOTAL
from holdtrue.store import Store, locked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

REGISTRY = "registry.db"
LOCK = "backup.lock"
"""Held by whoever makes a backup or restores one."""
MODE_BITS = 0o777
_WORK = ".backup"
_BATCHES = batches_of(Path("table")).name
# Databases, and what SQLite keeps beside one, of which a copy has no need.
_SQLITE = (".db", ".sqlite", ".sqlite3")
_BESIDE = tuple(f"{name}-{what}" for name in _SQLITE for what in ("wal", "shm", "journal"))
# Files that are added to line by line: logs of searches and replicas, captured rows.
_GROWING = (".log", CLOSED_SUFFIX, OPEN_SUFFIX)
# What names other files comes before them, so that all it names is there when they are looked for.
_LOG, _CHECKPOINT, _DIGITS = "_delta_log", "_last_checkpoint", 20
_FIRST = {name: number for number, name in enumerate((REGISTRY, "systems", "steps", _LOG))}
_TAIL_BYTES = 65_536


@dataclass(frozen=True)
class FrozenFile:
    """A file as it was."""

    name: str
    """Path in the store."""
    path: Path
    """Where to read it."""
    number: int
    """Which file it is, for the system (its inode)."""
    size: int
    """Bytes that count."""
    mode: int
    mtime_ns: int
    stamp: str | None
    """Changes when the content does; None where nothing tells that."""

    def chunks(self) -> Iterator[bytes]:
        """The content, a part at a time.

        Raises:
            HoldtrueError: The machine refused to read it.
            StackError: Another one is in its place by now, where it has no second name.
        """
        left = self.size
        try:
            with self.path.open("rb") as file:
                whole = os.fstat(file.fileno()).st_ino == self.number
                while whole and left:
                    chunk = file.read(min(CHUNK_BYTES, left))
                    whole = bool(chunk)
                    left -= len(chunk)
                    yield chunk
        except FileNotFoundError:
            whole = False
        except OSError as err:
            refused = refused_by_machine(err, self.path)
            if refused is None:
                raise
            raise refused from err
        if not whole:
            message = f"{self.name} was changed while it was read"
            raise StackError(message, hint="run the same command again: what was sent is kept")


@dataclass(frozen=True)
class Frozen:
    """A store at one moment."""

    files: tuple[FrozenFile, ...]
    folders: tuple[StoredFolder, ...]
    links: tuple[str, ...]
    """Symbolic links, which are left out: holdtrue makes none."""
    registry: Store
    """A store that has the registry of then, and nothing else."""


def is_left_out(name: str) -> bool:
    """Whether a file or folder is only of use on this machine, or made again by itself.

    Args:
        name: Path in the store.
    """
    parts = name.split("/")
    match parts:
        case ["logs" | "prefect"]:  # what processes say; Prefect's own database
            return True
        case ["serving", _, "slate.json" | "listeners"]:  # of replicas that run
            return True
        case ["batch", _, "work"]:  # what is being scored is scored again
            return True
        case ["backtests", _, inner]:  # a life is played again; the page about it stays
            return not inner.endswith(".html")
        case ["captured", _, inner] if inner == _BATCHES:
            return False
    # Drafts, what is being removed, and locks.
    last = parts[-1]
    return (
        last.startswith(".") or last in ("lock", LAST) or last.endswith((".lock", ".tmp", *_BESIDE))
    )


@contextmanager
def frozen(store: Store) -> Iterator[Frozen]:
    """Hold on to a store as it is now, for as long as the context lasts; nobody waits meanwhile.

    Raises:
        HoldtrueError: The machine refused.
        RegistryError: The registry is damaged.
    """
    work = store.path(_WORK)
    try:
        shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
        work.mkdir(parents=True, mode=0o700)
        copied = copy_registry(store, work)
        walk = _Walk(store, work, copied=(REGISTRY, MARKER) if copied else ())
        lock = records_lock(store)
        # Retention gives up no rows before all that names them has its second name.
        with locked(lock, shared=True) if lock.parent.is_dir() else nullcontext():
            walk.folder("")
        yield Frozen(tuple(walk.files), tuple(walk.folders), tuple(walk.links), Store(work))
    except OSError as err:
        refused = refused_by_machine(err, store.root)
        if refused is None:
            raise
        raise refused from err
    finally:
        shutil.rmtree(work, ignore_errors=True)


class _Walk:
    """Gives each file of a store a second name."""

    def __init__(self, store: Store, work: Path, *, copied: tuple[str, ...]) -> None:
        self._store = store
        self._work = work
        self._copied = copied
        self.files = [_frozen(name, work / name, growing=False, known=False) for name in copied]
        self.folders: list[StoredFolder] = []
        self.links: list[str] = []

    def folder(self, name: str) -> None:
        """Take what is in a folder of the store."""
        path = self._store.root / name
        with _held(self._store, name):
            if path.name == _LOG:
                self._take(f"{name}/{_CHECKPOINT}")  # it must name none that comes later
            for inner in _listed(path):
                self._take(f"{name}/{inner}" if name else inner)
        if name:
            seen = path.stat()
            mode = stat.S_IMODE(seen.st_mode) & MODE_BITS
            self.folders.append(StoredFolder(path=name, mode=mode, mtime_ns=seen.st_mtime_ns))

    def _take(self, name: str) -> None:
        path = self._store.root / name
        try:
            kind = path.lstat().st_mode
            if is_left_out(name) or name in self._copied:
                return
            if stat.S_ISLNK(kind):
                self.links.append(name)
            elif stat.S_ISDIR(kind):
                self.folder(name)
            elif stat.S_ISREG(kind):
                self.files.append(self._file(name, path))
        except FileNotFoundError:  # removed meanwhile, or ended by the replica that wrote it
            if name.endswith(OPEN_SUFFIX):
                self._take(name.removesuffix(OPEN_SUFFIX) + CLOSED_SUFFIX)

    def _file(self, name: str, path: Path) -> FrozenFile:
        copy = self._work / (name if name == REGISTRY else str(len(self.files)))
        if name.endswith(_SQLITE):
            _copy_database(path, copy)
            shutil.copystat(path, copy)
            return _frozen(name, copy, growing=False, known=False)
        try:
            os.link(path, copy)
        except FileNotFoundError:
            raise
        except OSError:  # a file system without hard links
            copy = path
        return _frozen(name, copy, growing=name.endswith(_GROWING), known=True)


def _frozen(name: str, path: Path, *, growing: bool, known: bool) -> FrozenFile:
    """A file that has its second name.

    Args:
        name: Path in the store.
        path: Where to read it.
        growing: Whether it is added to by lines.
        known: Whether it is the store's own, and no copy that is made anew each time.
    """
    with path.open("rb") as file:
        seen = os.fstat(file.fileno())
        size = _whole_lines(file, seen.st_size) if growing else seen.st_size
    return FrozenFile(
        name=name,
        path=path,
        number=seen.st_ino,
        size=size,
        mode=stat.S_IMODE(seen.st_mode) & MODE_BITS,
        mtime_ns=seen.st_mtime_ns,
        stamp=f"{seen.st_size}-{seen.st_mtime_ns}-{seen.st_ino}" if known else None,
    )


def _listed(path: Path) -> list[str]:
    """Names in a folder, in an order in which none comes before one that names it."""
    before = {entry.name for entry in os.scandir(path)}
    # A file whose name is changed while names are listed is missed; not twice.
    names = before | {entry.name for entry in os.scandir(path)}
    if path.name == _LOG:
        # Commits up to one that is there are there, too.
        newest = max((n[:_DIGITS] for n in before if n.endswith(".json")), default="")
        names = {n for n in names if not n[:_DIGITS].isdecimal() or n[:_DIGITS] <= newest}
        names -= {_CHECKPOINT}
    return sorted(names, key=lambda name: (name not in _FIRST, _FIRST.get(name, 0), name))


@contextmanager
def _held(store: Store, name: str) -> Iterator[None]:
    """Have nobody move what is in a folder from one file to another meanwhile."""
    lock: AbstractContextManager[None]
    match name.split("/"):
        case ["captured", system]:
            lock = table_lock(batches_of(capture_places(store, system)[1]))
        case ["serving", _, "stats"]:
            lock = locked(store.path(name, f"{TOTAL}{LOCK_SUFFIX}"), shared=True)
        case _:
            lock = nullcontext()
    with lock:
        yield


def _copy_database(path: Path, copy: Path) -> None:
    """Copy a database that others may write to, and prove the copy.

    Raises:
        RegistryError: It is damaged, or cannot be copied.
    """
    hint = "what is damaged is not backed up: `holdtrue restore` brings an earlier one back"
    try:
        # Not only to read: what a process that was killed has left is mended first.
        place = f"{path.absolute().as_uri()}?mode=rw"
        with (
            closing(sqlite3.connect(place, uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
            (said,) = target.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as err:
        said, hint = str(err), "make room on the disk of the store, and run the same command again"
    except sqlite3.Error as err:
        said = str(err)
    if said != "ok":
        message = f"{path} cannot be copied: {said}"
        raise RegistryError(message, hint=hint)


def _whole_lines(file: BinaryIO, size: int) -> int:
    """Bytes up to the end of the last line that is whole."""
    end = size
    while end:
        start = max(0, end - _TAIL_BYTES)
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0
