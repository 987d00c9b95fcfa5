"""Measure a benchmark part by part, and write its results and its page after each."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.loop import RESULTS, machine, say
from holdtrue.store import read_json, write_atomically, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def drive(
    name: str,
    parts: Mapping[str, Callable[[Any], dict[str, Any]]],
    page: Callable[[dict[str, Any]], str],
    place: Callable[[Path, bool], Any],
    arguments: Sequence[str] | None,
    description: str | None,
) -> None:
    """Measure the parts that are asked for; those that are not stay as they were measured last.

    Args:
        name: Of the results: NAME.json and NAME.md.
        parts: What can be measured; each is called with the place.
        page: Makes the page from what was found.
        place: Makes the place, with its ``size``, from a folder and whether it is to be quick.
        arguments: Of the command line.
        description: Of the command.
    """
    asked = _parser(parts, description).parse_args(arguments)
    # So that what is being measured is ended with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    with tempfile.TemporaryDirectory(prefix="ht-bench-") as folder:
        results = Path(folder) if asked.quick else RESULTS
        path = results / f"{name}.json"
        found = read_json(path) if path.exists() else {"parts": {}}
        where = place(Path(folder), asked.quick)
        found["size"] = asdict(where.size)
        for part in asked.part or parts:
            if asked.resume and found["parts"].get(part, {}).get("date") == date:
                continue
            say(f"({part}) {(parts[part].__doc__ or '').splitlines()[0]}")
            started, before = time.monotonic(), machine()
            measured = parts[part](where)
            minutes = round((time.monotonic() - started) / 60, 1)
            about = {"date": date, "machine": before, "minutes": minutes}
            found["parts"][part] = about | measured
            write_json(path, found)
            write_atomically(results / f"{name}.md", page(found).encode())
        say(f"\n{page(found)}\n{'' if asked.quick else f'written to {RESULTS}'}")


def _parser(parts: Mapping[str, Any], description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--part", action="append", choices=list(parts), help="only this one; may be repeated"
    )
    parser.add_argument(
        "--resume", action="store_true", help="leave out the parts that were measured today"
    )
    parser.add_argument(
        "--quick", action="store_true", help="as small as it gets, to see that all of it works"
    )
    return parser
