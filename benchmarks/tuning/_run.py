"""Run one search in a tree of processes of its own, and see what it takes."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.tuning._load import Meter

if TYPE_CHECKING:
    from benchmarks.tuning._load import Load, Tree
    from benchmarks.tuning._work import Job

ROOT = Path(__file__).parents[2]
# What the tables call them: the module and the function that run a job.
CONTENDERS = {
    "process pool": ("_peers", "pool"),
    "holdtrue": ("_ours", "holdtrue"),
    "Ray Tune": ("_peers", "ray_tune"),
    "Ray Tune, running": ("_peers", "ray_tune_running"),
    "Optuna n_jobs": ("_peers", "optuna_threads"),
    "Optuna processes": ("_peers", "optuna_processes"),
    "scikit-learn halving": ("_peers", "halving"),
    "asking: holdtrue": ("_asking", "ours"),
    "asking: Optuna": ("_asking", "optunas"),
    "warm start": ("_warm", "warm_start"),
}
_LIMIT_S = 900.0
_ATTEMPTS = 2


class BenchmarkError(RuntimeError):
    """A search that is measured has failed."""


@dataclass(frozen=True)
class Channel:
    """How a measured process and the one that measures it say when the measured time begins."""

    asked: int
    answers: int

    def wait(self, process: subprocess.Popen[bytes], until: float) -> None:
        """Wait for the measured process to say something.

        Raises:
            BenchmarkError: It has ended or takes too long.
        """
        while not select.select([self.asked], [], [], 0.2)[0]:
            if process.poll() is not None:
                message = "it ended before it was done"
                raise BenchmarkError(message)
            if time.monotonic() > until:
                message = f"it takes longer than {_LIMIT_S:g} s"
                raise BenchmarkError(message)
        if not os.read(self.asked, 1):
            message = "it ended before it was done"
            raise BenchmarkError(message)

    def go_on(self) -> None:
        """Let the measured process go on."""
        os.write(self.answers, b".")


def measure(job: Job) -> dict[str, Any]:
    """Run a search and measure it.

    Returns:
        The job's fields, those of `Load`, and what `summary` returns.

    Raises:
        BenchmarkError: It failed, twice.
    """
    load, trials = run(job)
    return asdict(job) | asdict(load) | summary(job, load, trials)


def run(job: Job) -> tuple[Load, list[dict[str, Any]]]:
    """Run a job; once more where it fails, since starting Ray may.

    Returns:
        What the measured time took of the machine, and what the job found.

    Raises:
        BenchmarkError: It failed again.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _run(job)
        except BenchmarkError as err:
            if attempt == _ATTEMPTS:
                raise
            sys.stderr.write(f"once more, since {err}\n")
    raise AssertionError


def summary(job: Job, load: Load, trials: list[dict[str, Any]]) -> dict[str, Any]:
    """What a measured search is judged by."""
    times = [trial["cpu_s"] for trial in trials if trial["cpu_s"] is not None]
    cpu = sum(times) if len(times) == len(trials) else None
    values = [trial["value"] for trial in trials if trial["state"] == "complete"]
    efficiency = None if cpu is None else cpu / (job.workers * load.wall_s)
    return {
        "trials_cpu_s": cpu,
        "efficiency": efficiency,
        # Of the time that others left.
        "efficiency_of_left": None if efficiency is None else efficiency / (1 - load.foreign),
        "overhead_ms": None if cpu is None else 1000 * (load.own_cpu_s - cpu) / len(trials),
        "finished": len(trials),
        "pruned": sum(trial["state"] == "pruned" for trial in trials),
        "best": min(values, default=None),
    }


def _run(job: Job) -> tuple[Load, list[dict[str, Any]]]:
    with tempfile.TemporaryDirectory(prefix="ht-bench-") as name:
        folder = Path(name)
        given, found, log = folder / "job.json", folder / "trials.json", folder / "log.txt"
        given.write_text(json.dumps(asdict(job)))
        theirs, ours = os.pipe(), os.pipe()  # what they say, what we answer
        command = [sys.executable, "-m", "benchmarks.tuning.child", str(given), str(found)]
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own command
                [*command, str(theirs[1]), str(ours[0])],
                cwd=ROOT,
                env=_environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(theirs[1], ours[0]),
                start_new_session=True,
            )
        os.close(theirs[1])
        os.close(ours[0])
        channel, meter = Channel(theirs[0], ours[1]), Meter(process.pid)
        until = time.monotonic() + _LIMIT_S
        try:
            channel.wait(process, until)
            meter.begin()
            channel.go_on()
            channel.wait(process, until)
            load = meter.end()
            channel.go_on()
            process.wait(_LIMIT_S)
            return load, json.loads(found.read_text())
        except (BenchmarkError, OSError, subprocess.TimeoutExpired) as err:
            said = log.read_text(errors="replace")[-3000:]
            message = f"{job.contender} with {job.trials} {job.kind} trials: {err}\n{said}"
            raise BenchmarkError(message) from err
        finally:
            meter.stop()
            end(process, meter.tree)
            for descriptor in (theirs[0], ours[1]):
                os.close(descriptor)


def end(process: subprocess.Popen[bytes], tree: Tree) -> None:
    """End what is left of a measured tree."""
    if process.poll() is None:
        tree.look()
        for pid in tree.alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "HOLDTRUE_HOME": str(folder / "store"),
        "XDG_STATE_HOME": str(folder / "state"),
        "TMPDIR": str(folder),
        # Ray gives its parts 30 s to start, which is not measured and may take longer.
        "RAY_raylet_start_wait_time_s": "120",
    }
