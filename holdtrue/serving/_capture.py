"""Append what was answered to segment files, so that a killed process loses nothing."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING

from holdtrue.store import is_locked, sync

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

OPEN_SUFFIX = ".jsonl.open"
CLOSED_SUFFIX = ".jsonl"
MAX_ROWS = 5_000
MAX_AGE_S = 10.0
# Touched by whoever wants to fold in what was captured up to now.
CLOSE_REQUEST = ".close"
_POLL_S = 0.05
_ID_DIGITS = 20  # 18 random digits, and one of which two bits are used; taken as whole bytes
_VARIANT = "89ab" * 4


def new_ids(count: int) -> list[str]:
    """Identifiers that sort by the time they were made; in any thread.

    References:
        RFC 9562, section 5.7 (UUID version 7).
    """
    now = f"{time.time_ns() // 1_000_000:012x}"
    head = f"{now[:8]}-{now[8:]}-7"
    if count > 1:
        return [head + tail for tail in _new_tails(count)]
    try:
        tail = _tails.pop()
    except IndexError:
        tail, *more = _new_tails(_TAILS)
        _tails.extend(more)
    return [head + tail]


def _new_tails(count: int) -> list[str]:
    """What follows time and version: random digits, and the variant among them."""
    digits = os.urandom(_ID_DIGITS // 2 * count).hex()
    tails = []
    for i in range(0, _ID_DIGITS * count, _ID_DIGITS):
        variant = _VARIANT[int(digits[i], 16)]
        middle = f"{digits[i + 1 : i + 4]}-{variant}{digits[i + 4 : i + 7]}"
        tails.append(f"{middle}-{digits[i + 7 : i + 19]}")
    return tails


# A call to the system for each request is more than all the rest of an id.
_TAILS = 256
_tails: list[str] = []
os.register_at_fork(after_in_child=_tails.clear)  # or parent and child would make the same ones


def time_of(name: str) -> float | None:
    """When an identifier was made, in seconds since 1970; None for text that is no such one."""
    digits = name.replace("-", "")
    if len(name) != 36 or len(digits) != 32 or digits[12] != "7":
        return None
    try:
        return int(digits[:12], 16) / 1_000
    except ValueError:
        return None


class Capture:
    """Writes lines to segments in one folder.

    A segment is ``<id>.jsonl.open`` while it is written, under a lock that the system releases
    when the process ends, and ``<id>.jsonl`` afterwards. The lines go to the system at once, so
    that only a failure of the machine loses them; `synced` waits until they outlive that too.
    Threads may share it.

    Args:
        folder: Where segments lie; made when first needed.
        durable: Whether segments are forced to the disk when they end; from the first call of
            `synced` on they are.
        clock: Seconds, for the age of a segment.
    """

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.written = 0
        self.failed = 0
        self.last_error: str | None = None
        self._folder = folder
        self._durable = durable
        self._clock = clock
        self._guard = threading.Lock()
        self._path: Path | None = None
        self._descriptor = -1
        self._rows = 0
        self._bytes = 0
        self._opened = 0.0
        self._opened_ns = 0
        # What is not on the disk yet: lines, segments that ended, and the names in the folder.
        self._unsynced = 0
        self._ended: list[int] = []
        self._due = False
        self._renamed = False
        self._forcing = threading.Lock()
        self._asked = threading.Condition()
        self._waiting: list[Future[bool]] = []
        self._syncing: threading.Thread | None = None

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
            self._unsynced += len(lines)
            self._rows += len(lines)
            if self._rows >= MAX_ROWS:
                self._release()

    def not_made(self, count: int, err: Exception) -> None:
        """Count lines that could not even be made."""
        with self._guard:
            self.failed += count
            self.last_error = f"{type(err).__name__}: a line could not be made: {self._folder}"

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
        if self._durable:
            self._force()
        else:
            with self._guard:
                self._let_go(0)

    def synced(self) -> Future[bool]:
        """Force to the disk what was appended before this call.

        All who ask while the disk is busy share its next turn (group commit).

        Returns:
            Done when the lines are on the disk: True; or when they cannot be brought there: False.
            That is counted as a failure to capture, and never raised. To be awaited by
            `asyncio.wrap_future`.
        """
        future: Future[bool] = Future()
        self._durable = True
        with self._asked:
            self._waiting.append(future)
            self._wake()
        return future

    def _wake(self) -> None:
        if self._syncing is None:
            self._syncing = threading.Thread(target=self._sync, name="capture-sync", daemon=True)
            self._syncing.start()
        self._asked.notify()

    def _sync(self) -> None:
        while True:
            with self._asked:
                while not (self._waiting or self._due):
                    self._asked.wait()
                waiting, self._waiting = self._waiting, []
                self._due = False
            forced = self._force()
            for future in waiting:
                # The request may have been given up in the meantime.
                if future.set_running_or_notify_cancel():
                    future.set_result(forced)

    def _force(self) -> bool:
        """Bring all lines to the disk; others may append meanwhile."""
        with self._forcing:
            return self._force_alone()

    def _force_alone(self) -> bool:
        with self._guard:
            descriptors, self._ended = self._ended, []
            if self._descriptor >= 0 and self._unsynced:
                descriptors.append(os.dup(self._descriptor))
            count, self._unsynced = self._unsynced, 0
            renamed, self._renamed = self._renamed, False
        try:
            for descriptor in descriptors:
                os.fsync(descriptor)
            if renamed:
                sync(self._folder)
        except OSError as err:
            with self._guard:
                self.failed += count
                self.last_error = f"{err.strerror or err}: {self._folder}"
                # What the system still holds of this segment is not certain any more.
                self._release()
            return False
        finally:
            for descriptor in descriptors:
                with suppress(OSError):
                    os.close(descriptor)
        return True

    def _wanted(self) -> bool:
        """Whether the segment was asked for since it was opened."""
        try:
            return (self._folder / CLOSE_REQUEST).stat().st_mtime_ns >= self._opened_ns
        except OSError:
            return False

    def _write(self, content: bytes) -> None:
        if self._path is None:
            self._open()
        done = 0
        try:
            while done < len(content):
                done += os.write(self._descriptor, content[done:])
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
        self._renamed = True
        self._rows = self._bytes = 0
        self._opened = self._clock()
        # By the clock of the file system, as the time of a request to close it.
        self._opened_ns = os.fstat(self._descriptor).st_mtime_ns

    def _release(self) -> None:
        if self._path is not None:
            name = self._path.name.removesuffix(OPEN_SUFFIX)
            with suppress(OSError):
                self._path.rename(self._folder / f"{name}{CLOSED_SUFFIX}")
            self._renamed = True
        if self._descriptor >= 0:
            self._ended.append(self._descriptor)
            if self._durable:
                with self._asked:
                    self._due = True
                    self._wake()
            else:
                # The last one stays open: somebody may ask for it to be forced to the disk.
                self._let_go(1)
        self._path, self._descriptor = None, -1

    def _let_go(self, kept: int) -> None:
        """Close the descriptors of ended segments, all but the last ones."""
        while len(self._ended) > kept:
            with suppress(OSError):
                os.close(self._ended.pop(0))


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
    return not is_locked(segment)
