"""A store made again from a backup: proven as a whole before anything of it takes its place."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from holdtrue.backup._frozen import LOCK, REGISTRY
from holdtrue.backup._manifest import (
    OBJECTS,
    Backup,
    Contents,
    damaged,
    names_at,
    object_of,
    read_backup,
    read_contents,
    require_backups,
)
from holdtrue.backup._target import Target, refuse_inside
from holdtrue.backup._transfers import Transfers
from holdtrue.errors import ConfigError, DataError, HoldtrueError, StackError, refused_by_machine
from holdtrue.references import Reference
from holdtrue.store import alone, is_locked, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from holdtrue.backup._manifest import StoredFile
    from holdtrue.progress import Progress
    from holdtrue.store import Store

# What is fetched, until all of it is there and proven.
_FETCHED = ".restoring"


class Restored(Reference):
    """What a restore came to."""

    store: str
    target: str
    backup: Backup
    only: str | None
    """The one file or folder that was brought back; None: all of it was."""
    aside: str | None
    """Folder with what was there before."""
    dry_run: bool

    def __str__(self) -> str:
        what = self.store if self.only is None else f"{self.only} of {self.store}"
        lines = [f"restored {what} from {self.target}: {self.backup}"]
        if self.dry_run:
            lines = [f"all of it is whole in {self.target}: {self.backup}", "nothing was restored"]
        if self.aside is not None:
            lines.append(f"  what was there before is in {self.aside}")
        return "\n".join(lines)


def restore(
    store: Store,
    address: str,
    *,
    name: str | None = None,
    only: str | None = None,
    replace: bool = False,
    progress: Progress = lambda done, total, words: None,
) -> Restored:
    """Make a store again from a backup.

    All of it is fetched into a hidden folder of the store and held against its digests first. What
    was fetched before an error or a kill is found by the next run; the store is as it was.

    Args:
        store: Which is missing or empty.
        address: Where its backups lie.
        name: Of the backup; the newest where left out.
        only: A file or folder of the store, from it or from the working folder on: that alone is
            brought back, and what is there in its place is put aside.
        replace: Whether a store that is there is put aside, into a hidden folder of it.
        progress: Told how many bytes are done.

    Raises:
        ConfigError: There is no such backup, a newer holdtrue made it, it has nothing of what is
            wanted, or the store is not empty.
        DataError: The backup is damaged; says where.
        StackError: Something runs on the store.
        TargetError: The target does not answer.
        HoldtrueError: The machine refused, such as where the disk is full.
    """
    target, root = Target(address), store.root
    refuse_inside(target, root)
    _refuse_running(store)
    part = None if only is None else _part(root, only)
    there = _entries(root) if part is None else [path for path in [root / part] if path.exists()]
    if there and part is None and not replace:
        message = f"the store {root} is not empty: it has {there[0].name}"
        message += f" and {len(there) - 1:,} more" if len(there) > 1 else ""
        hint = "with --replace it is put aside, and kept; HOLDTRUE_HOME names another place"
        raise ConfigError(message, hint=hint)
    backup, contents = _found(target, name)
    if part is not None:
        contents = _part_of(contents, part, backup)
    aside = None
    with _written(root):
        store.prepare()
        with alone(root / LOCK, f"a backup or restore of {root}"):
            fetched = root / _FETCHED
            _fetch(target, backup, contents, fetched, progress)
            if there:
                aside = root / f".replaced-{datetime.now(UTC):%Y%m%dT%H%M%S}"
                aside.mkdir(mode=0o700)
                _move(there, root, aside)
            found = [fetched / part] if part is not None else [*fetched.iterdir()]
            # The registry last: without it nothing of the rest is anybody's.
            _move(sorted(found, key=_registry_last), fetched, root)
            shutil.rmtree(fetched)
    return Restored(
        store=str(root),
        target=target.shown,
        backup=backup,
        only=part,
        aside=None if aside is None else str(aside),
        dry_run=False,
    )


def prove(
    store: Store,
    address: str,
    *,
    name: str | None = None,
    progress: Progress = lambda done, total, words: None,
) -> Restored:
    """Read all of a backup, and hold it against its digests; nothing is restored.

    Args:
        store: That would be restored.
        address: As for `restore`.
        name: As for `restore`.
        progress: As for `restore`.

    Raises:
        ConfigError: There is no such backup, or a newer holdtrue made it.
        DataError: The backup is damaged; says where.
        TargetError: The target does not answer.
    """
    target = Target(address)
    backup, contents = _found(target, name)
    reading = Transfers(sum(contents.objects.values()), progress, "reading")

    def read(place: str) -> str | None:
        try:
            _held(place, reading.counted(target.chunks(place)), lambda chunk: None)
        except DataError:
            return place
        return None

    wrong = [place for place in reading.run(read, contents.objects) if place is not None]
    if wrong:
        raise damaged(target, backup.name, *wrong)
    return Restored(
        store=str(store.root),
        target=target.shown,
        backup=backup,
        only=None,
        aside=None,
        dry_run=True,
    )


def _part(root: Path, only: str) -> str:
    """Path in the store of what is wanted, as messages or the store have it.

    Raises:
        ConfigError: It is none in the store.
    """
    for path in (Path(only).absolute(), root / only):
        place = Path(os.path.normpath(path))
        if place != root and place.is_relative_to(root):
            return place.relative_to(root).as_posix()
    message = f"{only} is no file or folder in the store {root}"
    raise ConfigError(message, hint="such as registry.db, or data/NAME/snapshots")


def _part_of(contents: Contents, part: str, backup: Backup) -> Contents:
    """What a backup has of a file or folder.

    Raises:
        ConfigError: Nothing.
    """
    files = [one for one in contents.files if f"{one.path}/".startswith(f"{part}/")]
    folders = [one for one in contents.folders if f"{one.path}/".startswith(f"{part}/")]
    if not files and not folders:
        message = f"the backup {backup.name} has no {part}"
        raise ConfigError(message, hint="an earlier one may have it: --backup names one")
    return Contents(files=tuple(files), folders=tuple(folders))


def _found(target: Target, name: str | None) -> tuple[Backup, Contents]:
    """A backup, and what is in it, all of which is there.

    Raises:
        ConfigError: There is none.
        DataError: Something is not there.
    """
    require_backups(target)
    if name is None:
        names = names_at(target)
        if not names:
            message = f"{target.shown} holds no complete backup yet"
            raise ConfigError(message, hint="`holdtrue backup TARGET` makes one")
        name = names[-1]
    backup = read_backup(target, name)
    contents = read_contents(target, backup)
    there = target.sizes(OBJECTS)
    missing = [place for place, size in contents.objects.items() if there.get(place) != size]
    if missing:
        raise damaged(target, backup.name, *missing)
    return backup, contents


def _fetch(
    target: Target, backup: Backup, contents: Contents, folder: Path, progress: Progress
) -> None:
    """Have all files of a backup in a folder, and nothing else.

    Raises:
        DataError: One is damaged.
        HoldtrueError: There is no room.
    """
    folder.mkdir(exist_ok=True, mode=0o700)
    wanted = {folder / file.path: file for file in contents.files}
    for path in [path for path in folder.rglob("*") if not path.is_dir() and path not in wanted]:
        path.unlink()
    for one in contents.folders:
        (folder / one.path).mkdir(parents=True, exist_ok=True)
    need = sum(file.size for path, file in wanted.items() if not path.exists())
    _refuse_full(folder, need)
    fetching = Transfers(sum(file.size for file in contents.files), progress, "fetching")

    def fetch(file: StoredFile) -> str | None:
        path, place = folder / file.path, object_of(file.sha256)
        if _is_there(path, file):
            fetching.count(file.size)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                _write(path, place, fetching.counted(target.chunks(place)))
            except DataError:
                return place
        path.chmod(file.mode)
        os.utime(path, ns=(file.mtime_ns, file.mtime_ns))
        return None

    wrong = [place for place in fetching.run(fetch, contents.files) if place is not None]
    if wrong:
        raise damaged(target, backup.name, *dict.fromkeys(wrong))
    for one in sorted(contents.folders, key=lambda one: one.path, reverse=True):
        (folder / one.path).chmod(one.mode)
        os.utime(folder / one.path, ns=(one.mtime_ns, one.mtime_ns))


def _is_there(path: Path, file: StoredFile) -> bool:
    """Whether a run before has fetched a file."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256


def _write(path: Path, place: str, chunks: Iterable[bytes]) -> None:
    with replacing(path) as draft, draft.open("wb") as file:
        _held(place, chunks, file.write)
        file.flush()
        os.fsync(file.fileno())


def _held(place: str, chunks: Iterable[bytes], take: Callable[[bytes], object]) -> None:
    """Take the content of an object, and hold it against its name.

    Raises:
        DataError: It is another content.
    """
    state = hashlib.sha256()
    for chunk in chunks:
        state.update(chunk)
        take(chunk)
    if not place.endswith(state.hexdigest()):
        raise DataError(place)


def _refuse_full(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        message = (
            f"the disk of {folder.parent} has no room: {n_bytes / 1e6:,.1f} MB are to be "
            f"fetched, {free / 1e6:,.1f} MB are free"
        )
        raise HoldtrueError(message, hint="make room, or name another place by HOLDTRUE_HOME")


def _refuse_running(store: Store) -> None:
    """Refuse a store that is in use.

    Raises:
        StackError: It is.
    """
    from holdtrue.stack import Stack

    running = [info.name for info in Stack(store).state().processes]
    running += [lock.stem for lock in store.path("systems").glob("*.lock") if is_locked(lock)]
    if running:
        message = f"something runs on the store {store.root}: {', '.join(running)}"
        raise StackError(message, hint="run `holdtrue down` first, and wait for what trains")


def _entries(root: Path) -> list[Path]:
    """What is in a store, beside what a restore has left."""
    if not root.is_dir():
        return []
    ours = (_FETCHED, LOCK, ".gitignore")
    entries = (path for path in root.iterdir() if not path.name.startswith(".replaced-"))
    return sorted(path for path in entries if path.name not in ours)


def _move(paths: Iterable[Path], above: Path, folder: Path) -> None:
    """Move what is in a folder to the same place in another one."""
    for path in paths:
        place = folder / path.relative_to(above)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)


def _registry_last(path: Path) -> tuple[bool, str]:
    return path.name == REGISTRY, path.name


@contextmanager
def _written(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        refused = refused_by_machine(err, root)
        if refused is None:
            raise
        raise refused from err
