"""One measurement in a process of its own: what `benchmarks.tuning._run` starts."""

from __future__ import annotations

import importlib
import json
import os
import sys
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.tuning._run import CONTENDERS
from benchmarks.tuning._work import Job


class Timed(AbstractContextManager[None]):
    """What is measured: says so to the process that measures, and waits for it.

    Args:
        ask: Descriptor to write to.
        answer: Descriptor to read from.
    """

    def __init__(self, ask: int, answer: int) -> None:
        self._ask, self._answer = ask, answer

    def __enter__(self) -> None:
        self._say()

    def __exit__(self, *_: object) -> None:
        self._say()

    def _say(self) -> None:
        os.write(self._ask, b".")
        os.read(self._answer, 1)


def main(given: Path, found: Path, ask: int, answer: int) -> None:
    """Run the job that `given` holds and write what it returns into `found`."""
    job = Job(**json.loads(given.read_text()))
    module, name = CONTENDERS[job.contender]
    run: Any = getattr(importlib.import_module(f"benchmarks.tuning.{module}"), name)
    found.write_text(json.dumps([asdict(one) for one in run(job, Timed(ask, answer))]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
