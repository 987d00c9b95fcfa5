"""What `apply` costs on the flights, step by step: make bench-loop."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from benchmarks._pace import slow_share
from benchmarks._page import page
from benchmarks._place import Place
from holdtrue.data import load_snapshot
from holdtrue.references import ModelRef, Snapshot, Study
from holdtrue.store import write_atomically, write_json

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("holdtrue", "ray", "prefect", "optuna", "xgboost", "scikit-learn", "pandas")
# In turns, so that other work on the machine meets both ways alike; the quickest counts.
ROUNDS = 2
SECOND_RUNS = 3
_STEADY_S = 3.0
# The parts of the window whose memory is compared, and a search small enough not to wait for.
WINDOWS = {"45d": 0.25, "90d": 0.5}
FEW = {
    "trials: 12": "trials: 1",
    "n_estimators: {int: [100, 400]}": "n_estimators: {int: [50, 60]}",
}


def main() -> None:
    """Measure, and write the results."""
    started = time.monotonic()
    found: dict[str, Any] = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine()}
    with tempfile.TemporaryDirectory(prefix="holdtrue-bench-") as name:
        folder = Path(name)
        os.environ["XDG_STATE_HOME"] = str(folder / "state")
        os.environ.pop("PREFECT_API_URL", None)
        firsts, flows, memory = [], [], []
        for turn in range(ROUNDS):
            say(f"(a) first apply, in process ({turn + 1} of {ROUNDS})")
            place = Place(folder / f"in-process-{turn}")
            try:
                firsts.append(first(place))
                if turn == 0:
                    memory.append(driver_memory(place, 1.0, firsts[0]["peak_bytes"]))
                    say("(b) second apply")
                    found["second"] = second(place)
            finally:
                place.stack.down()
            say(f"(c) first apply as a Prefect flow, the server being up ({turn + 1} of {ROUNDS})")
            flows.append(as_flow(Place(folder / f"flow-{turn}")))
        found["first"], found["flow"] = quickest(firsts), quickest(flows)
        for window, share in WINDOWS.items():
            say(f"(d) memory of the driver: {share:.0%} of the window")
            memory.append(
                memory_of(
                    Place(folder / window, FEW | {"window: 180d": f"window: {window}"}), share
                )
            )
        found["memory"] = sorted(memory, key=lambda one: one["share"])
    found["minutes"] = round((time.monotonic() - started) / 60, 1)
    write_json(RESULTS / "loop.json", found)
    write_atomically(RESULTS / "loop.md", page(found).encode())
    say(f"\n{page(found)}\nwritten to {RESULTS}")


def quickest(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The round that other work on the machine has disturbed least."""
    best = min(rounds, key=lambda one: float(one["seconds"]))
    return best | {"rounds": [one["seconds"] for one in rounds]}


def machine() -> dict[str, Any]:
    """What it was measured on, how busy that was before, and how steadily it worked."""
    return {
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "slow_before": round(slow_share(_STEADY_S), 4),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def version(library: str) -> str:
    """Version of a library; of holdtrue also where it runs from a checkout."""
    if library == "holdtrue":
        import holdtrue

        return holdtrue.__version__
    return metadata.version(library)


def first(place: Place, *options: str) -> dict[str, Any]:
    """Run `apply` on an empty store, and account for every second of it.

    Returns:
        ``seconds`` in all; ``steps`` with the seconds of each; ``work``: extraction, trials, fit
        and evaluation; ``overhead``: all else, and ``parts`` of it.
    """
    command = place.run("apply", str(place.file), *options)
    records = place.records()
    steps = {step: record.seconds for step, record in records.items()}
    study = Study.model_validate(records["tune"].output)
    trials = sum(trial.seconds for trial in study.trials) / study.workers
    fit = ModelRef.model_validate(records["fit"].output).seconds
    work = {
        "extract": steps["extract"],
        "trials": trials,
        "fit": fit,
        "evaluate": steps["evaluate"],
    }
    begun = {step: record.finished.timestamp() - record.seconds for step, record in records.items()}
    parts = {
        "imports and checks before the first step": begun["extract"] - command.started,
        "check, profile and split": steps["check"] + steps["profile"] + steps["split"],
        "waiting for Ray": begun["tune"] - records["split"].finished.timestamp(),
        "search beyond its trials": steps["tune"] - trials,
        "fit beyond the task": steps["fit"] - fit,
        "gate and register": steps["gate"] + steps["register"],
        "start of Serve and of the replica": steps["serve"],
    }
    overhead = command.seconds - sum(work.values())
    parts["end of the process"] = command.ended - records["serve"].finished.timestamp()
    parts["reports and journal, between the steps"] = overhead - sum(parts.values())
    return {
        "seconds": command.seconds,
        "steps": steps,
        "work": work,
        "overhead": overhead,
        "parts": parts,
        "trials": len(study.trials),
        "workers": study.workers,
        "peak_bytes": command.peak_bytes,
    }


def second(place: Place) -> dict[str, Any]:
    """Run `apply` again, where nothing is left to do, and see what part of it is imports."""
    runs = [place.run("apply", str(place.file)).seconds for _ in range(SECOND_RUNS)]
    watched = place.run("apply", str(place.file), options=("-X", "importtime"))
    lines = [line for line in watched.errors.splitlines() if line.startswith("import time:")]
    own = [line.removeprefix("import time:").split("|")[0].strip() for line in lines]
    imports = sum(int(microseconds) for microseconds in own if microseconds.isdigit()) / 1e6
    return {
        "seconds": statistics.median(runs),
        "runs": runs,
        "imports_seconds": imports,
        "imports_share": imports / watched.seconds,
    }


def as_flow(place: Place) -> dict[str, Any]:
    """Run the first `apply` as a Prefect flow against a server that is up."""
    try:
        started = time.monotonic()
        place.stack.up_prefect()
        server = time.monotonic() - started
        return {"server_start_seconds": server} | first(place)
    finally:
        place.stack.down()


def memory_of(place: Place, share: float) -> dict[str, Any]:
    """Train on a part of the window and see what the driver takes."""
    command = place.run("apply", str(place.file), "--until", "gate")
    return driver_memory(place, share, command.peak_bytes)


def driver_memory(place: Place, share: float, peak: int) -> dict[str, Any]:
    """The memory of a driver beside the size of its data."""
    snapshot = Snapshot.model_validate(place.records()["extract"].output)
    size = int(load_snapshot(place.store, snapshot).memory_usage(deep=True).sum())
    return {"share": share, "rows": snapshot.rows, "data_bytes": size, "peak_bytes": peak}


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
