"""What replicas have to say to people: one bounded file of JSON lines, shared by all of a system.

It outlives them, so that what a caller was told can be looked up later, by its id.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from holdtrue.store import locked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from holdtrue.store import Store

LOG = "log.jsonl"
EARLIER = "log.1.jsonl"
"""What came before it; it goes when the file that follows it is full."""
MAX_BYTES = 5_000_000
"""Of each of the two."""
_LOCK = "log.lock"
# Of a line: what has a place of its own in words.
_SAID = {"at", "event", "system", "ids", "error"}


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
