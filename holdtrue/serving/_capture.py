"""Append what was answered to segment files, so that a killed process loses nothing."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

OPEN_SUFFIX = ".jsonl.open"
CLOSED_SUFFIX = ".jsonl"
MAX_ROWS = 5_000
MAX_AGE_S = 10.0
# Touched by whoever wants to fold in what was captured up to now.
CLOSE_REQUEST = ".close"
_RANDOM_BITS = 74
_POLL_S = 0.05


def new_ids(count: int) -> list[str]:
    """Identifiers that sort by the time they were made.

    References:
        RFC 9562, section 5.7 (UUID version 7).
    """
    head = (time.time_ns() // 1_000_000) << 80 | 0x7 << 76 | 0b10 << 62
    ids = []
    for _ in range(count):
        random = int.from_bytes(os.urandom(10)) & (1 << _RANDOM_BITS) - 1
        low = random & (1 << 62) - 1
        ids.append(str(UUID(int=head | (random >> 62) << 64 | low)))
    return ids


class Capture:
    """Writes lines to segments in one folder.

    A segment is ``<id>.jsonl.open`` while it is written, under a lock that the system releases
    when the process ends, and ``<id>.jsonl`` afterwards. The lines go to the system at once;
    they are not forced to the disk, so only a failure of the machine loses them.

    Args:
        folder: Where segments lie; made when first needed.
        clock: Seconds, for the age of a segment.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.written = 0
        self.failed = 0
        self.last_error: str | None = None
        self._folder = folder
        self._clock = clock
        self._guard = threading.Lock()
        self._path: Path | None = None
        self._descriptor = -1
        self._rows = 0
        self._bytes = 0
        self._opened = 0.0
        self._opened_ns = 0

    def append(self, lines: Sequence[bytes]) -> None:
        """Write lines, each without its line end. A failure is counted, never raised."""
        if not lines:
            return
        with self._guard:
            try:
                self._write(b"\n".join(lines) + b"\n")
            except OSError as err:
                self.failed += len(lines)
                self.last_error = f"{err.strerror or err}: {self._folder}"
                self._release()
                return
            self.written += len(lines)
            self._rows += len(lines)
            if self._rows >= MAX_ROWS:
                self._release()

    def close_if_due(self) -> None:
        """Close a segment that is old enough or wanted; called also without traffic."""
        with self._guard:
            if self._path is None:
                return
            if self._clock() - self._opened >= MAX_AGE_S or self._wanted():
                self._release()

    def close(self) -> None:
        """Close the segment. A later line opens another."""
        with self._guard:
            self._release()

    def _wanted(self) -> bool:
        """Whether the segment was asked for since it was opened."""
        try:
            return (self._folder / CLOSE_REQUEST).stat().st_mtime_ns >= self._opened_ns
        except OSError:
            return False

    def _write(self, content: bytes) -> None:
        if self._path is None:
            self._open()
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            with suppress(OSError):  # half a line must not run into the next one
                os.ftruncate(self._descriptor, self._bytes)
            raise
        self._bytes += len(content)

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        (name,) = new_ids(1)
        # Under another name until it is locked, or a fold would take it for an orphan's.
        draft = self._folder / f".{name}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(draft, flags, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self._path = draft.rename(self._folder / f"{name}{OPEN_SUFFIX}")
        self._rows = self._bytes = 0
        self._opened = self._clock()
        # By the clock of the file system, as the time of a request to close it.
        self._opened_ns = os.fstat(self._descriptor).st_mtime_ns

    def _release(self) -> None:
        if self._path is not None:
            name = self._path.name.removesuffix(OPEN_SUFFIX)
            with suppress(OSError):
                self._path.rename(self._folder / f"{name}{CLOSED_SUFFIX}")
        if self._descriptor >= 0:
            with suppress(OSError):
                os.close(self._descriptor)
        self._path, self._descriptor = None, -1


def ask_to_close(folder: Path, timeout_s: float) -> None:
    """Have the replicas close the segments that they write to now, and wait until they have.

    Args:
        folder: Where segments lie.
        timeout_s: How long to wait at most; what is still open then is taken the next time.
    """
    waited_for = [path for path in folder.glob(f"[!.]*{OPEN_SUFFIX}") if _is_written(path)]
    if not waited_for:
        return
    (folder / CLOSE_REQUEST).touch()
    deadline = time.monotonic() + timeout_s
    while waited_for and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        waited_for = [path for path in waited_for if _is_written(path)]


def _is_written(segment: Path) -> bool:
    try:
        return not is_orphan(segment)
    except FileNotFoundError:
        return False


def is_orphan(segment: Path) -> bool:
    """Whether the process that wrote an open segment has ended."""
    descriptor = os.open(segment, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
