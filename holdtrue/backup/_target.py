"""Where backups lie: a folder, or a place in object storage by Arrow's file systems."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from holdtrue.declaration._data import without_password
from holdtrue.errors import ConfigError, DataError, TargetError, refused_by_machine
from holdtrue.store import replacing, sync

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pyarrow.fs import FileSystem

CHUNK_BYTES = 2**22
"""What is read, hashed and sent at a time."""
# Arrow sends parts to object storage in the background, however many wait: after so many bytes we
# wait for them, so that a large file does not fill the memory.
_AHEAD_BYTES = 2**24
# Without it Arrow takes three requests for each file, however small.
_ONE_REQUEST = "allow_delayed_open=true"
# An address of object storage that lacks a colon or a slash: it would be the name of a folder.
_MISSPELT = re.compile(r"(?P<scheme>s3|gs|gcs|abfss?)(:/|//|:)(?!/)")
# Backups hold captured rows: the user alone may read them.
_FILE_MODE = 0o600


class Target:
    """A place for files with names such as ``objects/ab/...``; any number of threads may use it.

    Args:
        address: A folder, or a URL such as ``s3://bucket/prefix`` with the options of Arrow after a
            question mark. Credentials come from the environment.

    Raises:
        ConfigError: It is no address, or of a kind that Arrow does not know.
    """

    def __init__(self, address: str) -> None:
        import pyarrow as pa
        from pyarrow.fs import FileSystem, LocalFileSystem

        self.shown = without_password(address)
        """The address as it is told."""
        self._system: FileSystem
        if "://" in address:
            plain, _, options = address.partition("?")
            if plain.startswith("s3://"):
                options = "&".join(part for part in (options, _ONE_REQUEST) if part)
            url = f"{plain.rstrip('/')}?{options}" if options else plain.rstrip("/")
            try:
                self._system, root = FileSystem.from_uri(url)
            except (pa.ArrowException, ValueError, OSError) as err:
                message = f"{self.shown} is no target of backups: {_first_line(err)}"
                hint = "give a folder, or such as s3://bucket/prefix or gs://bucket/prefix"
                raise ConfigError(message, hint=hint) from None
        elif (meant := _MISSPELT.match(address)) and not Path(address).exists():
            message = f"{self.shown} is a folder here, and looks like object storage"
            url = f"{meant['scheme']}://{address[meant.end() :]}"
            hint = f"write {url}, or ./{address} for the folder"
            raise ConfigError(message, hint=hint)
        else:
            self._system, root = LocalFileSystem(), str(Path(address).expanduser().absolute())
        if not root.strip("/"):
            message = f"{self.shown} is no target of backups: it names no bucket or folder"
            raise ConfigError(message, hint="such as s3://bucket/prefix")
        self._root = root.rstrip("/")
        self.folder = Path(root) if isinstance(self._system, LocalFileSystem) else None
        """Where it is on this machine; None in object storage."""

    @property
    def place(self) -> str:
        """The address as it is written down: the same wherever it is said from."""
        return self.shown if self.folder is None else str(self.folder)

    def names(self, folder: str = "") -> list[str]:
        """Names of what lies directly in a folder of the target; none where there is none.

        Raises:
            TargetError: The target does not answer.
            HoldtrueError: The machine refused.
        """
        return [name.rpartition("/")[2] for name in self._list(folder, deep=False)]

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of each file below a folder of the target, by its name from the target on.

        Raises:
            TargetError: As `names`.
            HoldtrueError: As `names`.
        """
        found = self._list(folder, deep=True)
        return {name: size for name, size in found.items() if size is not None}

    def _list(self, folder: str, *, deep: bool) -> dict[str, int | None]:
        from pyarrow.fs import FileSelector, FileType

        place = self._path(folder)
        with self._answering():
            wanted = FileSelector(place, allow_not_found=True, recursive=deep)
            listed = self._system.get_file_info(wanted)
        return {
            one.path[len(self._root) + 1 :]: one.size if one.type == FileType.File else None
            for one in listed
        }

    def read(self, name: str) -> bytes | None:
        """What a small file holds; None where there is none.

        Raises:
            TargetError: As `names`.
            HoldtrueError: As `names`.
        """
        try:
            return b"".join(self.chunks(name))
        except DataError:
            return None

    def chunks(self, name: str) -> Iterator[bytes]:
        """What a file holds, a part at a time.

        Raises:
            DataError: It is not there.
            TargetError: As `names`.
            HoldtrueError: As `names`.
        """
        with self._answering():
            try:
                # Left to itself, Arrow would unpack what has such an ending.
                file = self._system.open_input_stream(self._path(name), compression=None)
            except FileNotFoundError:
                message = f"{name} is not there any more in {self.shown}"
                raise DataError(message) from None
            with file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk

    def write(self, name: str, content: Iterable[bytes]) -> None:
        """Write a file; on this machine, and mostly elsewhere, it appears whole or not at all.

        What an error leaves in object storage has fewer bytes than the whole.

        Args:
            name: Of the file; missing folders are made.
            content: Its bytes, a part at a time.

        Raises:
            TargetError: As `names`.
            HoldtrueError: As `names`, or what `content` raises.
        """
        with self._answering():
            if self.folder is not None:
                _write_here(self.folder / name, content)
                return
            file = self._system.open_output_stream(self._path(name), compression=None)
            ahead = 0
            try:
                for chunk in content:
                    file.write(chunk)
                    ahead += len(chunk)
                    if ahead >= _AHEAD_BYTES:
                        file.flush()
                        ahead = 0
            except BaseException:
                with suppress(OSError):
                    file.close()
                raise
            file.close()

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            TargetError: As `names`.
            HoldtrueError: As `names`.
        """
        with self._answering(), suppress(FileNotFoundError):
            self._system.delete_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Say in a sentence what went wrong with the target."""
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError) as err:
            refused = refused_by_machine(err, self.folder) if isinstance(err, OSError) else None
            if refused is not None and self.folder is not None:
                raise refused from err
            message = f"{self.shown} does not do what is asked: {_first_line(err)}"
            hint = "see the address, and the credentials in the environment"
            raise TargetError(message, hint=hint) from err


def _write_here(path: Path, content: Iterable[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with os.fdopen(os.open(draft, flags, _FILE_MODE), "wb") as file:
            for chunk in content:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    sync(path.parent)


def _first_line(err: Exception) -> str:
    return next(iter(str(err).strip().splitlines()), type(err).__name__)


def refuse_inside(target: Target, root: Path) -> None:
    """Refuse a target that lies in the store, or that the store lies in.

    Raises:
        ConfigError: It does.
    """
    if target.folder is None:
        return
    place, root = target.folder.resolve(), root.resolve()
    if place.is_relative_to(root) or root.is_relative_to(place):
        message = f"{target.shown} and the store {root} lie in each other"
        raise ConfigError(message, hint="give a folder elsewhere, best on another disk")
