"""Captured rows, and what is in a store."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from holdtrue.backup._frozen import is_left_out
from holdtrue.serving import capture_places, fold_in, read_captured
from holdtrue.store import Store

START = datetime(2024, 5, 1, tzinfo=UTC)


def captured(number: int) -> bytes:
    """A line that a replica would write."""
    return orjson.dumps(
        {
            "id": f"id-{number}",
            "version": 2,
            "digest": "0" * 32,
            "role": "champion",
            "received": START + timedelta(seconds=number),
            "event_time": None,
            "key": {},
            "row": {"age": number},
            "scores": [0.25, 0.75],
            "decided": "yes",
        }
    )


def folded(store: Store) -> list[str]:
    """Ids of all captured rows, those in segments too."""
    segments, table = capture_places(store, "visits")
    assert fold_in(segments, table, wait_s=0.0).damaged == 0
    rows = read_captured(table, START, START + timedelta(days=30))
    return sorted(rows["id"].to_pylist())


def tree(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Mode, time of the last change and content of all that a backup has."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        above = [str(one) for one in (name, *name.parents[:-1])]
        if any(is_left_out(one) for one in above):
            continue
        seen = path.stat()
        content = path.read_bytes() if path.is_file() else b""
        if name.suffix == ".db":  # SQLite counts in it how often it was written
            with closing(sqlite3.connect(path)) as database:
                content = "\n".join(database.iterdump()).encode()
        found[name.as_posix()] = (stat.S_IMODE(seen.st_mode), seen.st_mtime_ns, content)
    return found
