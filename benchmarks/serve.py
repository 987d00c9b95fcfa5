"""How fast models are served, by us and by others, and what ours stands: make bench-serve."""

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
from benchmarks.serving._page import page
from benchmarks.serving._parts import PARTS, QUICK, Place, Size
from holdtrue.store import read_json, write_atomically, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the parts that are asked for, and write the results after each."""
    asked = _parser().parse_args(arguments)
    # So that what is being measured is ended with this process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    size = QUICK if asked.quick else Size()
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    with tempfile.TemporaryDirectory(prefix="ht-bench-") as name:
        results = Path(name) if asked.quick else RESULTS
        path = results / f"serve-{date}.json"
        found = read_json(path) if path.exists() else {}
        found = {"parts": {}} | found | {"date": date, "size": asdict(size)}
        place = Place(Path(name), size, say)
        for part in asked.part or PARTS:
            if asked.resume and part in found["parts"]:
                continue
            say(f"({part}) {(PARTS[part].__doc__ or '').splitlines()[0]}")
            found["parts"][part] = _measured(part, place)
            write_json(path, found)
            write_atomically(results / "serve.md", page(found).encode())
        say(f"\n{page(found)}\n{'' if asked.quick else f'written to {RESULTS}'}")


def _measured(part: str, place: Place) -> dict[str, Any]:
    started, before = time.monotonic(), machine()
    found = PARTS[part](place)
    minutes = round((time.monotonic() - started) / 60, 1)
    return {"machine": before, "minutes": minutes} | found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--part", action="append", choices=list(PARTS), help="only this one; may be repeated"
    )
    parser.add_argument(
        "--resume", action="store_true", help="leave out the parts that were measured today"
    )
    parser.add_argument(
        "--quick", action="store_true", help="as small as it gets, to see that all of it works"
    )
    return parser


if __name__ == "__main__":
    main()
