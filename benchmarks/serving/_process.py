"""Start a server or a load in a process of its own, and end it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.serving import client
from benchmarks.tuning._load import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.serving.client import Load

ROOT = Path(__file__).parents[2]
_START_S = 180.0
_END_S = 10.0
_POLL_S = 0.2


class BenchmarkError(RuntimeError):
    """A server that is measured does not do what it should."""


@contextmanager
def server(
    command: Sequence[str],
    answers: Callable[[], bool],
    *,
    folder: Path,
    env: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Run a server until the block ends.

    Args:
        command: What starts it.
        answers: Whether it answers as it should; asked until it does.
        folder: Working folder, for its log as well.
        env: Variables besides those of this process.

    Yields:
        Its process id.

    Raises:
        BenchmarkError: It ended, or did not answer within three minutes.
    """
    log = folder / f"{Path(command[0]).name}-{time.time_ns()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            list(command),
            cwd=folder,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    tree = Tree(process.pid)
    try:
        until = time.monotonic() + _START_S
        while not answers():
            tree.look()
            if process.poll() is not None or time.monotonic() > until:
                said = log.read_text(errors="replace")[-3000:]
                message = f"{' '.join(command)} does not answer:\n{said}"
                raise BenchmarkError(message)
            time.sleep(_POLL_S)
        yield process.pid
    finally:
        _end(process, tree)


def _end(process: subprocess.Popen[bytes], tree: Tree) -> None:
    tree.look()
    with suppress(ProcessLookupError):
        process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
    for pid in {*tree.alive} - {os.getpid()}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _stolen() -> float:
    """Seconds of the cores that the host of a virtual machine has given to others."""
    return float(psutil.cpu_times().steal)


class Asking:
    """A load in a process of its own.

    Args:
        load: What is asked.
    """

    def __init__(self, load: Load) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ht-bench-")
        given, self._result = (Path(self._folder.name) / name for name in ("load", "found"))
        given.write_text(json.dumps(asdict(load)))
        self._stolen, self._began = _stolen(), time.monotonic()
        self._limit_s = sum(phase.seconds for phase in load.phases) + load.timeout_s + 60
        self.process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", client.__file__, str(given), str(self._result)],
            stdin=subprocess.PIPE,
        )

    def end(self) -> dict[str, Any]:
        """Have it end before its phases are over, and say what it found."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        return self.found()

    def found(self) -> dict[str, Any]:
        """Wait until it is over.

        Returns:
            What `client.Client.found` returns, with ``stolen``, the share of this machine that its
            host has given to others meanwhile.

        Raises:
            BenchmarkError: It failed.
        """
        try:
            code = self.process.wait(self._limit_s)
            if code != 0:
                message = f"the load ended with {code}"
                raise BenchmarkError(message)
            found: dict[str, Any] = json.loads(self._result.read_text())
            room = (os.cpu_count() or 1) * (time.monotonic() - self._began)
            found["stolen"] = (_stolen() - self._stolen) / room
        finally:
            self.kill()
        return found

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self._folder.cleanup()
