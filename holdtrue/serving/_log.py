"""What replicas have to say to people: one bounded file of JSON lines, shared by all of a system.

It outlives them, so that what a caller was told can be looked up later, by its id.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from holdtrue.store import locked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from holdtrue.serving._asked import Problem
    from holdtrue.serving._slate import Slate
    from holdtrue.store import Store

logger = logging.getLogger("ray.serve")

LOG = "log.jsonl"
EARLIER = "log.1.jsonl"
"""What came before it; it goes when the file that follows it is full."""
MAX_BYTES = 5_000_000
"""Of each of the two."""
_LOCK = "log.lock"
# Of a line: what has a place of its own in words.
_SAID = {"at", "event", "system", "ids", "error"}
_LINES_PER_S = 10
_IDS = 5
_LENGTH = 300
# Statuses of what is refused for its content.
_CONTENT_REFUSED = (400, 415, 422)


def log_folder(store: Store, system: str) -> Path:
    """Where the replicas of a system write their log."""
    return store.path("serving", system)


def write_line(folder: Path, line: bytes) -> None:
    """Add a line; any number of processes may.

    Args:
        folder: From `log_folder`.
        line: A JSON object, without the end of the line.

    Raises:
        OSError: It cannot be written.
    """
    path = folder / LOG
    with locked(folder / _LOCK):
        if path.exists() and path.stat().st_size + len(line) > MAX_BYTES:
            path.replace(folder / EARLIER)
        with path.open("ab") as file:
            file.write(line + b"\n")


def shown(ids: Sequence[str]) -> list[str]:
    """The first ids of a request, which are enough to find it by."""
    return [*ids[:_IDS]]


class LogWriter:
    """Writes what one replica has to say, to the log of Ray and to that of its system.

    Args:
        replica: Its name.
    """

    def __init__(self, replica: str) -> None:
        self.slate: Slate | None = None
        """What is served."""
        self.write_failures = 0
        """Files for other processes that could not be written, each time that it was tried."""
        self.write_error: str | None = None
        """Why, the last time."""
        self._replica = replica
        self.next_second()

    def next_second(self) -> None:
        """Let as many lines be written again as there may be in a second."""
        self._lines_left, self._refusals_left = _LINES_PER_S, 1

    def say(self, event: str, **fields: Any) -> None:
        """Write one line of JSON, ten a second at most; in any thread.

        Args:
            event: What happened, in words.
            fields: What else there is to know; `ids` are those that the caller got.
        """
        if self._lines_left <= 0:
            return
        self._lines_left -= 1
        system = None if self.slate is None else self.slate.system
        line = {"event": event, "at": datetime.now(UTC), "system": system, "replica": self._replica}
        written = orjson.dumps(line | fields, default=str)
        logger.warning("%s", written.decode())
        if self.slate is not None:
            with suppress(OSError):  # the line above says it, too
                write_line(self.slate.folder, written)

    def refused(self, problem: Problem, path: str) -> None:
        """Have one refusal a second in the log, of those that the content is to blame for.

        Args:
            problem: Why.
            path: What was asked for.
        """
        if problem.status in _CONTENT_REFUSED and self._refusals_left > 0:
            self._refusals_left -= 1
            said = problem.detail[:_LENGTH]
            self.say("a request was refused", path=path, status=problem.status, error=said)

    def not_written(self, path: Path, err: OSError) -> None:
        """Count a file for other processes that could not be written; in any thread.

        Args:
            path: Of the file.
            err: Why.
        """
        self.write_failures += 1
        said = f"{err.strerror or err}: {path}"
        if said != self.write_error:  # each second it is tried again
            self.write_error = said
            self.say("a file could not be written", error=said)


class LogReader:
    """Reads a log: what is kept of it, then what is added.

    Args:
        folder: From `log_folder`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: int | None = None
        self._at = 0

    def new(self) -> list[dict[str, Any]]:
        """The lines since the last time, the oldest first; at first all that are kept."""
        log, earlier = self._folder / LOG, self._folder / EARLIER
        # Without the lock: who reads must not hold up a replica.
        while (file := _number(log)) is not None:
            before, at = b"", self._at
            if file != self._file:
                if self._file in (None, _number(earlier)) and earlier.exists():
                    before = _rest(earlier, at)
                at = 0
            added = _rest(log, at)
            if _number(log) == file:  # else another one was begun meanwhile
                added = added[: added.rfind(b"\n") + 1]  # the rest is being written
                self._file, self._at = file, at + len(added)
                return [*_parsed((before + added).splitlines())]
        return []


def _number(path: Path) -> int | None:
    """Which file it is, whatever it is called."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _rest(path: Path, start: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read()
    except FileNotFoundError:  # renamed just now
        return b""


def _parsed(lines: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    """Read lines; one that a full disk cut off is passed over."""
    for line in lines:
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                yield found


def line_text(line: dict[str, Any]) -> str:
    """One line of a log in words."""
    ids = ", ".join(line.get("ids") or ())
    parts = [str(line.get("at", ""))[:19].replace("T", " "), str(line.get("event", ""))]
    rest = {k: v for k, v in line.items() if k not in _SAID and v is not None}
    parts += [f"{name} {value}" for name, value in rest.items()]
    if "error" in line:
        parts.append(str(line["error"]))
    return "  ".join([*parts, f"[{ids}]"] if ids else parts)
