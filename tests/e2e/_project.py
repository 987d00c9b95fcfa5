"""A project in a temporary folder, driven by the command as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import holdtrue
from holdtrue.stack import Stack, StackState, free_ports, port_is_free
from holdtrue.stack._processes import _family, _runs
from holdtrue.store import Store

if TYPE_CHECKING:
    import psutil


@dataclass
class Project:
    """A project in a folder of its own, with a store, a stack and a port of its own."""

    folder: Path
    port: int = field(default_factory=lambda: free_ports(1)[0])

    @property
    def home(self) -> Path:
        return self.folder / "store"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOLDTRUE_HOME": str(self.home),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "PYTHONPATH": str(Path(holdtrue.__path__[0]).parent),
        }

    @property
    def stack(self) -> Stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_STATE_HOME", self.environment["XDG_STATE_HOME"])
            return Stack(Store(self.home))

    @property
    def file(self) -> Path:
        return self.folder / "configs" / "flights-small.yaml"

    @property
    def champions_judge(self) -> Path:
        """The same declaration, in which a new model must be better than the champion."""
        return self.folder / "configs" / "flights-judged.yaml"

    def command(self, *arguments: object) -> list[str]:
        """The command line of holdtrue."""
        return [sys.executable, "-m", "holdtrue.cli", *map(str, arguments)]

    def run(self, *arguments: object, code: int | None = 0) -> str:
        """Type a command; returns what it printed."""
        done = subprocess.run(  # noqa: S603
            self.command(*arguments),
            cwd=self.folder,
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def ask(self, *arguments: object, code: int | None = 0) -> Any:
        """Type a command with --json; returns its answer."""
        said = self.run(*arguments, "--json", code=code)
        return json.loads(said)

    def plan(self, file: Path) -> list[str]:
        """The steps that `apply` would run."""
        return [step["step"] for step in self.ask("plan", file) if step["runs"]]

    def family(self) -> list[psutil.Process]:
        """Every process that runs for this project's stack."""
        return _family(self.stack.state().processes)


def wait_for(question, deadline_s: float):
    """Ask again and again until there is an answer."""
    deadline = time.monotonic() + deadline_s
    while not (answer := question()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return answer


def ended(family: list[psutil.Process], state: StackState, port: int) -> None:
    """Nothing is left of a stack: no process, no temporary folder, no port."""
    assert not [process for process in family if _runs(process)]
    assert not [path for path in state.folders if Path(path).exists()]
    assert port_is_free(port)


def ran(answer: Any) -> list[str]:
    """The steps that an `apply --json` ran."""
    return [step["step"] for step in answer["steps"] if not step["cached"]]
