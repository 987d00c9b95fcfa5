"""What was started, remembered in a folder that only the user can read."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from holdtrue.errors import ConfigError, StackError
from holdtrue.references import Reference
from holdtrue.store import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOCK_TIMEOUT_S = 240.0
"""Longer than the slowest start, which somebody else may be in the middle of."""
_POLL_S = 0.1


class ProcessInfo(Reference):
    """A process that was started; what is kept tells it from a later one with the same pid."""

    name: str
    """What it does: ray, prefect or worker."""
    pid: int
    started_s: float
    """Seconds from the machine's start to its own: a clock that is set does not change them."""
    boot: str
    """Identifier of the machine's start; empty where the system has none."""


class StackState(Reference):
    """What runs, and where it answers."""

    ray_address: str | None = None
    """Host and port of the Ray cluster."""
    ray_dashboard: str | None = None
    """URL of the Ray dashboard, which also takes the Serve configuration."""
    ray_owned: bool = False
    """Whether the cluster was started here and ends with `Stack.down`."""
    prefect_api: str | None = None
    """URL of the Prefect API."""
    prefect_ui: str | None = None
    """URL to open in a browser."""
    prefect_port: int | None = None
    """That the Prefect server had last: another one after it takes the same if it can."""
    processes: tuple[ProcessInfo, ...] = ()
    folders: tuple[str, ...] = ()
    """Temporary folders that go when the stack goes."""
    logs: str = ""
    """Folder with the processes' output."""

    def process(self, name: str) -> ProcessInfo | None:
        """The process of that name, if it was started."""
        return next((info for info in self.processes if info.name == name), None)


class Private:
    """The folder with state, tokens and locks of one store's stack.

    Args:
        root: The store's folder; each store has a stack of its own.
    """

    def __init__(self, root: Path) -> None:
        home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
        self.path = Path(home) / "holdtrue" / name

    def prepare(self) -> None:
        """Make the folder, for the user only.

        Raises:
            ConfigError: It cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
        except OSError as err:
            message = f"the state folder {self.path} cannot be used: {err.strerror or err}"
            hint = "give another parent folder by the environment variable XDG_STATE_HOME"
            raise ConfigError(message, hint=hint) from err

    @contextmanager
    def lock(self, name: str, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """Keep other threads and processes out while something is started or ended.

        Raises:
            StackError: Somebody else held it for all of `timeout_s`.
        """
        path = self.path / f"{name}.lock"
        deadline = time.monotonic() + timeout_s
        while True:
            self.prepare()
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if _locked(descriptor, path):
                break
            os.close(descriptor)
            if time.monotonic() > deadline:
                message = f"another command has been working on the stack for {timeout_s:g} s"
                raise StackError(message, hint="wait for it to end, then try again")
            time.sleep(_POLL_S)
        try:
            yield
        finally:
            os.close(descriptor)

    def token(self, name: str) -> str:
        """A secret of 64 hexadecimal digits, made when first asked for."""
        path = self.path / f"{name}.token"
        if not path.exists():
            with self.lock("token"):
                if not path.exists():
                    write_atomically(path, secrets.token_hex(32).encode(), mode=0o600)
        return path.read_text()

    def new_token(self, name: str) -> str:
        """Another secret, in place of the one there is."""
        path = self.path / f"{name}.token"
        with self.lock("token"):
            write_atomically(path, secrets.token_hex(32).encode(), mode=0o600)
        return path.read_text()

    def read(self) -> StackState:
        """What was last remembered."""
        try:
            return StackState.model_validate_json((self.path / "state.json").read_bytes())
        except FileNotFoundError:
            return StackState()
        except ValidationError as err:
            message = f"the stack's state in {self.path / 'state.json'} cannot be read"
            raise StackError(message, hint="end what it names by hand and remove it") from err

    def update(self, change: Callable[[StackState], StackState]) -> StackState:
        """Replace what is remembered by what `change` makes of it."""
        with self.lock("state"):
            state = change(self.read())
            write_atomically(
                self.path / "state.json", state.model_dump_json(indent=1).encode(), mode=0o600
            )
        return state

    def remove(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.path, ignore_errors=True)


def _locked(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:  # `remove` may have taken the file away while we waited: then it locks nothing
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
