"""Where everything lies: one folder per project."""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import sys
import tempfile
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdtrue.errors import ConfigError, StackError

if TYPE_CHECKING:
    from collections.abc import Iterator

HOME_VARIABLE = "HOLDTRUE_HOME"
REGISTRY_VARIABLE = "HOLDTRUE_REGISTRY"
"""URL of the database that holds the registry; it is a file of the store where this is not set."""
FOLDER = ".holdtrue"
DRAFT = ".draft"
"""What the name of a file ends with that `replacing` is writing."""
_PROJECT_MARKS = ("pyproject.toml", "prefect.yaml", ".git", "flows")


def find_project(declaration: Path) -> Path:
    """Find the folder of the project that a declaration belongs to.

    It is the nearest folder above the file that holds a pyproject.toml, a prefect.yaml, a .git
    or a flows folder; the file's own folder where there is none.
    """
    folder = declaration.resolve().parent
    return next((one for one in (folder, *folder.parents) if is_project(one)), folder)


def is_project(folder: Path) -> bool:
    """Whether a folder has what marks that of a project."""
    return any((folder / mark).exists() for mark in _PROJECT_MARKS)


def put_on_path(project: Path) -> None:
    """Let modules of a project be imported, before others: sources and models may be of them."""
    if str(project) not in sys.path:
        sys.path.insert(0, str(project))
    importlib.invalidate_caches()


class Store:
    """The root folder and the paths inside it.

    Args:
        root: The folder; made when first written to.
        lone: Whether its registry is a file in it whatever the environment says, as that of a
            backtest is.
    """

    def __init__(self, root: Path, *, lone: bool = True) -> None:
        self.root = root
        self.lone = lone

    @classmethod
    def of(cls, declaration: Path) -> Store:
        """The store of a declaration: HOLDTRUE_HOME, or ``.holdtrue`` in its project's folder."""
        home = os.environ.get(HOME_VARIABLE)
        root = Path(home).expanduser() if home else find_project(declaration) / FOLDER
        return cls(root.resolve(), lone=False)

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            ConfigError: It cannot be written.
        """
        self.check()
        with self._writing():
            self.root.mkdir(parents=True, exist_ok=True)
            ignore = self.root / ".gitignore"
            if not ignore.exists():
                write_atomically(ignore, b"*\n")

    def check(self) -> None:
        """Prove that the folder can be written, or made; leaves nothing behind.

        Raises:
            ConfigError: It cannot.
        """
        with self._writing():
            there = next(p for p in (self.root, *self.root.parents) if p.exists())
            with tempfile.NamedTemporaryFile(dir=there, prefix=".probe-"):
                pass

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            message = f"the store folder {self.root} cannot be written: {err.strerror or err}"
            hint = f"give a folder that can, by the environment variable {HOME_VARIABLE}"
            raise ConfigError(message, hint=hint) from err

    def path(self, *parts: str) -> Path:
        """A path inside the store.

        Raises:
            ConfigError: The parts lead out of it.
        """
        path = self.root.joinpath(*parts)
        if not path.resolve().is_relative_to(self.root.resolve()):
            message = f"the path {'/'.join(parts)} leads out of the store {self.root}"
            raise ConfigError(message)
        return path

    def relative(self, path: Path) -> str:
        """The inverse of `path`."""
        return path.relative_to(self.root).as_posix()


def write_atomically(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file so that readers see either the old or the new content, also after a crash.

    Args:
        path: Where; missing folders are made.
        content: What.
        mode: Permission bits of the file.

    Raises:
        OSError: With the path, also where the system does not say it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        os.fchmod(descriptor, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException as err:
        if isinstance(err, OSError):
            err.filename = str(path)
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file that appears whole or not at all.

    Yields:
        A path beside it to write to.
    """
    draft = path.with_name(f".{path.name}{DRAFT}")
    try:
        yield draft
        draft.replace(path)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that readers see either the old or the new content."""
    write_atomically(path, json.dumps(content, indent=1, default=str).encode())


def read_json(path: Path) -> Any:
    """Read JSON; None where there is no such file."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder that appears whole or not at all.

    Yields:
        A temporary folder beside `path` that becomes `path` at the end. Where `path` exists
        already (somebody else was faster, or its name is a digest of the content), that one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=path.parent, prefix=f".{path.name}-", ignore_cleanup_errors=True
    ) as name:
        work = Path(name) / "new"
        work.mkdir()
        yield work
        with suppress(OSError):
            if not path.exists():
                work.rename(path)


def is_locked(path: Path) -> bool:
    """Whether a process holds a file alone (`flock`); the system lets go when that process ends.

    Raises:
        FileNotFoundError: There is no such file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Wait for a lock, and hold it as long as the context lasts (`flock`).

    Args:
        path: Its file, which stays. The system lets go of the lock when the process ends.
        shared: Whether others may hold it so, too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Keep a second run of the same thing out, for as long as the context lasts.

    Args:
        path: File of the lock, there while it lasts, with the moment that it began. The system lets
            go of it when the process ends, however it ends.
        what: What runs, for the message.

    Raises:
        StackError: It runs already.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:  # what it holds is of those who have the lock
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between the opening and the lock, the one before may have removed the file.
            if path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                raise BlockingIOError
        except OSError as err:
            message = f"{what} runs already, in another process"
            raise StackError(message, hint="wait until it has ended, and run this again") from err
        try:
            file.truncate(0)
            file.write(f"{datetime.now(UTC).isoformat()}\n")
            file.flush()
            yield
        finally:
            path.unlink(missing_ok=True)
