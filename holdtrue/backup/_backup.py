"""Making a backup: what is new is sent, then the list of all, and a note that makes it visible."""

from __future__ import annotations

import hashlib
import platform
import shutil
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING

import holdtrue
from holdtrue.backed_up import LAST, LastBackup, last_backup, note_backup
from holdtrue.backup._frozen import LOCK, frozen
from holdtrue.backup._manifest import (
    FORMAT,
    OBJECTS,
    Backup,
    Contents,
    StoredFile,
    claim,
    forget_backup,
    is_object,
    names_at,
    new_name,
    object_of,
    owner_of,
    read_backup,
    read_contents,
    write_backup,
)
from holdtrue.backup._target import Target, refuse_inside
from holdtrue.backup._transfers import Transfers
from holdtrue.errors import ConfigError, DataError, TargetError
from holdtrue.references import Reference
from holdtrue.registry import Registry
from holdtrue.registry._marker import identify, read_marker
from holdtrue.store import alone

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from holdtrue.backup._frozen import Frozen, FrozenFile
    from holdtrue.progress import Progress
    from holdtrue.store import Store

# Of the disk, for what else is written meanwhile.
_SPARE_BYTES = 10_000_000


class Made(Reference):
    """What a backup came to."""

    target: str
    backup: Backup
    sent_files: int
    """That were not at the target yet, by their content."""
    sent_bytes: int
    removed: tuple[str, ...]
    """Older backups that were taken away."""
    links: tuple[str, ...]
    """Symbolic links of the store, which are left out."""
    dry_run: bool

    def __str__(self) -> str:
        sent = f"{self.sent_files:,} files, {self.sent_bytes / 1e6:,.1f} MB"
        if self.dry_run:
            lines = [f"would back up {self.backup.files:,} files to {self.target}, and send {sent}"]
        else:
            lines = [f"backed up to {self.target}: {self.backup}", f"  sent: {sent}"]
        old = ", ".join(self.removed)
        if old:
            lines.append(f"  {'would remove' if self.dry_run else 'removed'} older ones: {old}")
        lines += [f"  left out: {name}, a symbolic link" for name in self.links]
        return "\n".join(lines)


def back_up(
    store: Store,
    address: str,
    *,
    keep: int | None = None,
    dry_run: bool = False,
    progress: Progress = lambda done, total, words: None,
) -> Made:
    """Back a store up, as it is now; it may be in use meanwhile.

    Only what the target does not have is sent. A run that was stopped or killed is of no
    consequence: the next one finds what was sent, and no backup is visible that is not whole.

    Args:
        store: Which one.
        address: A folder, or a URL of object storage, for backups of this store alone.
        keep: As many of the newest stay, this one included; all where left out.
        dry_run: Send and remove nothing.
        progress: Told how many bytes are done.

    Raises:
        ConfigError: There is no store, or the target is of another one or holds something else.
        RegistryAwayError: The database that the registry is in does not answer.
        RegistryError: The registry is damaged: it is not backed up so.
        StackError: Another backup of this store is being made, or a file has changed while it was
            read, on a file system without hard links.
        TargetError: The target does not answer, refuses, or has lost what it had.
        HoldtrueError: The machine refused, such as where a disk is full.
    """
    if keep is not None and keep < 1:
        message = f"expected at least one backup to keep, got {keep}"
        raise ConfigError(message)
    if not store.root.is_dir():
        message = f"there is no store {store.root}: nothing can be backed up"
        raise ConfigError(message, hint="`holdtrue apply` makes one; --project names its folder")
    target = Target(address)
    refuse_inside(target, store.root)
    with alone(store.path(LOCK), f"a backup or restore of {store.root}"):
        identity = _identity(store, dry_run=dry_run)
        owner = owner_of(target)
        if owner not in (None, identity):
            message = f"{target.shown} holds the backups of another store"
            raise ConfigError(message, hint="give each store a folder or prefix of its own")
        if owner is None:
            _refuse_emptied(store, target)
            if not dry_run:
                claim(target, identity)
        at = datetime.now(UTC).replace(microsecond=0)
        with frozen(store) as now:
            run = _Run(target, now, names_at(target), progress, dry_run=dry_run)
            files = run.files()
            contents = Contents(folders=now.folders, files=files)
            backup = run.backup(contents, identity, at)
            links = now.links
        removed: tuple[str, ...] = ()
        if keep is not None:
            removed = tuple(run.names[: max(0, len(run.names) + 1 - keep)])
        if not dry_run:
            note_backup(store, LastBackup(at=at, target=target.place, name=backup.name))
            _remove(target, removed, progress)
    return Made(
        target=target.shown,
        backup=backup,
        sent_files=run.sent_files,
        sent_bytes=run.sent_bytes,
        removed=removed,
        links=links,
        dry_run=dry_run,
    )


def _refuse_emptied(store: Store, target: Target) -> None:
    """Refuse to begin anew where the last backup should be, as where a disk is not mounted.

    Raises:
        TargetError: It should be there.
    """
    last = last_backup(store)
    if last is None or last.target != target.place:
        return
    message = (
        f"{target.shown} is empty, and holds the backup of {last.at:%Y-%m-%d %H:%M} UTC no more"
    )
    hint = f"see that its disk is mounted; to begin anew there, remove {store.path(LAST)}"
    raise TargetError(message, hint=hint)


def _identity(store: Store, *, dry_run: bool) -> str:
    """What tells a store from others, wherever it lies; made when first asked for."""
    marker = read_marker(store)
    if marker is None and dry_run:
        return "none yet"
    return identify(store) if marker is None else marker.store


class _Run:
    """One backup that is being made."""

    def __init__(
        self, target: Target, now: Frozen, names: list[str], progress: Progress, *, dry_run: bool
    ) -> None:
        self._target = target
        self._now = now
        self.names = names
        """Of the backups that are there, oldest first."""
        self._progress = progress
        self._dry_run = dry_run
        progress(0, 0, "looking what is there already")
        self._there = target.sizes(OBJECTS)
        self._lock = Lock()
        self.sent_files = self.sent_bytes = 0

    def files(self) -> tuple[StoredFile, ...]:
        """Send the content of all files that is not there."""
        known = self._known()
        total = sum(file.size for file in self._now.files)
        reading = Transfers(total, self._progress, "reading")

        def read(file: FrozenFile) -> StoredFile:
            before = known.get(file.name)
            same = before is not None and file.stamp is not None and before.stamp == file.stamp
            if before is not None and same and before.size == file.size:
                sha256 = before.sha256
                reading.count(file.size)
            else:
                sha256 = _digest(reading.counted(file.chunks()))
            return StoredFile(
                path=file.name,
                size=file.size,
                mode=file.mode,
                mtime_ns=file.mtime_ns,
                sha256=sha256,
                stamp=file.stamp or "",
            )

        found = reading.run(read, self._now.files)
        new = {
            one.sha256: file
            for one, file in zip(found, self._now.files, strict=True)
            if self._there.get(object_of(one.sha256)) != one.size
        }
        self._refuse_full(sum(file.size for file in new.values()))
        sending = Transfers(sum(file.size for file in new.values()), self._progress, "sending")

        def send(one: tuple[str, FrozenFile]) -> None:
            self._send(one[0], sending.counted(one[1].chunks()), one[1].size)

        sending.run(send, new.items())
        return tuple(found)

    def _known(self) -> Mapping[str, StoredFile]:
        """The files of the last backup, by path; none where it cannot be read."""
        if not self.names:
            return {}
        try:
            last = read_contents(self._target, read_backup(self._target, self.names[-1]))
        except (ConfigError, DataError):
            return {}
        return {file.path: file for file in last.files}

    def _send(self, sha256: str, chunks: Iterator[bytes], size: int) -> None:
        with self._lock:
            self.sent_files += 1
            self.sent_bytes += size
        if not self._dry_run:
            self._target.write(object_of(sha256), _held_to(sha256, chunks))

    def _refuse_full(self, n_bytes: int) -> None:
        """Refuse to begin what the disk has no room for.

        Raises:
            TargetError: It has none.
        """
        folder = self._target.folder
        if folder is None or not n_bytes or self._dry_run:
            return
        free = shutil.disk_usage(folder).free
        if free < n_bytes + _SPARE_BYTES:
            message = (
                f"{self._target.shown} has no room: {n_bytes / 1e6:,.1f} MB are to be sent, "
                f"{free / 1e6:,.1f} MB are free"
            )
            hint = "make room there, such as by --keep, or give another target"
            raise TargetError(message, hint=hint)

    def backup(self, contents: Contents, store: str, at: datetime) -> Backup:
        """Make what was sent a backup, once all of it is seen at the target.

        Raises:
            TargetError: Something is not there.
        """
        content = contents.model_dump_json().encode()
        sha256 = hashlib.sha256(content).hexdigest()
        backup = Backup(
            format=FORMAT,
            name=new_name(at, self.names),
            at=at,
            store=store,
            machine=platform.node(),
            holdtrue=holdtrue.__version__,
            systems=_systems(self._now),
            files=len(contents.files),
            bytes=sum(file.size for file in contents.files),
            contents=sha256,
            contents_bytes=len(content),
        )
        if self._dry_run:
            return backup
        place = object_of(sha256)
        if self._there.get(place) != len(content):
            self._target.write(place, [content])
        self._progress(0, 0, "seeing that all of it is there")
        there = self._target.sizes(OBJECTS)
        wanted = contents.objects | {place: len(content)}
        missing = [name for name, size in wanted.items() if there.get(name) != size]
        if missing:
            message = f"{len(missing):,} of the files that were sent to {self._target.shown} are"
            message += f" not there, the first is {missing[0]}"
            raise TargetError(message, hint="run the same command again; no backup was made")
        write_backup(self._target, backup)
        return backup


def _systems(now: Frozen) -> dict[str, int | None]:
    """The champion of each system, as the registry that is backed up has it."""
    registry = Registry(now.registry)
    try:
        champions = {name: registry.champion(name) for name in sorted(registry.systems())}
    finally:
        registry.close()
    return {name: None if one is None else one.version.number for name, one in champions.items()}


def _digest(chunks: Iterator[bytes]) -> str:
    state = hashlib.sha256()
    for chunk in chunks:
        state.update(chunk)
    return state.hexdigest()


def _held_to(sha256: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Parts of a file; what reads otherwise than before is not sent to its end.

    Raises:
        DataError: It does.
    """
    state, last = hashlib.sha256(), b""
    for chunk in chunks:
        if last:
            yield last
        state.update(chunk)
        last = chunk
    if state.hexdigest() != sha256:
        message = "a file of the store reads otherwise each time: its disk may be failing"
        raise DataError(message, hint="see the log of the system, and run this again")
    if last:
        yield last


def _remove(target: Target, names: tuple[str, ...], progress: Progress) -> None:
    """Take backups away, and the objects that no other one has."""
    for name in names:
        forget_backup(target, name)
    if not names:
        return
    progress(0, 0, "removing what no backup names any more")
    kept: set[str] = set()
    for name in names_at(target):
        try:
            backup = read_backup(target, name)
            kept |= {object_of(backup.contents), *read_contents(target, backup).objects}
        except (ConfigError, DataError):
            return  # nobody knows what it is made from
    doomed = [o for o in target.sizes(OBJECTS) if is_object(o) and o not in kept]
    Transfers(0, progress, "removing").run(target.remove, doomed)
