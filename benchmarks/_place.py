"""A folder with a store and a declaration of its own, in which commands are timed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from holdtrue.plan import Journal
from holdtrue.stack import Stack, free_ports
from holdtrue.store import Store

if TYPE_CHECKING:
    from holdtrue.plan._journal import Record

ROOT = Path(__file__).parents[1]
DECLARATION = ROOT / "configs" / "flights.yaml"
SYSTEM = "flights"
_POLL_S = 0.05


class BenchmarkError(RuntimeError):
    """A command that is measured has failed."""


@dataclass(frozen=True)
class Command:
    """A command that was run."""

    started: float
    """Seconds since 1970."""
    ended: float
    peak_bytes: int
    """Largest resident memory of the process itself, without its children."""
    errors: str
    """What it wrote to standard error."""

    @property
    def seconds(self) -> float:
        """Wall time."""
        return self.ended - self.started


class Place:
    """A project in a folder: the flights, with another port and, where asked for, other values.

    Args:
        folder: An empty folder.
        changes: What is replaced in the declaration, and by what.
    """

    def __init__(self, folder: Path, changes: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True)
        for name in ("configs", "flows", "tasks"):
            (folder / name).symlink_to(ROOT / name)
        text = DECLARATION.read_text()
        for old, new in {"port: 8700": f"port: {free_ports(1)[0]}", **(changes or {})}.items():
            if text.count(old) != 1:
                message = f"{DECLARATION} has changed: expected {old!r} in it once"
                raise BenchmarkError(message)
            text = text.replace(old, new)
        self.folder = folder
        self.file = folder / "flights.yaml"
        self.file.write_text(text)
        self.store = Store(folder / "store")
        self.stack = Stack(self.store)

    def run(self, *arguments: str, options: tuple[str, ...] = ()) -> Command:
        """Run a command of holdtrue and watch its memory.

        Args:
            *arguments: Of the command.
            options: Of the Python interpreter.

        Raises:
            BenchmarkError: It failed.
        """
        own = {"HOLDTRUE_HOME": str(self.store.root), "PYTHONPATH": str(ROOT)}
        log = self.folder / "errors.txt"
        with log.open("wb") as errors:
            started = time.time()
            process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, *options, "-m", "holdtrue.cli", *arguments],
                cwd=self.folder,
                env=os.environ | own,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            peak = 0
            while process.poll() is None:
                peak = max(peak, _memory(process.pid))
                time.sleep(_POLL_S)
            ended = time.time()
        said = log.read_text(errors="replace")
        if process.returncode != 0:
            message = f"holdtrue {' '.join(arguments)} failed:\n{said[-3000:]}"
            raise BenchmarkError(message)
        return Command(started, ended, peak, said)

    def records(self) -> dict[str, Record]:
        """What the journal says about each step."""
        journal = Journal(self.store, SYSTEM)
        found = {step: journal.last(step) for step in journal.state()["steps"]}
        return {step: record for step, record in found.items() if record is not None}


def _memory(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:  # it has just ended
        return 0
