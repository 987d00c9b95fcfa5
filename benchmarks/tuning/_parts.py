"""What is measured, part by part; each returns what goes into the results."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.tuning._data import ROWS, write_flights
from benchmarks.tuning._run import measure, run
from benchmarks.tuning._warm import SETS
from benchmarks.tuning._work import Job

if TYPE_CHECKING:
    from collections.abc import Callable

OURS = "holdtrue"
OPTUNA = ("Optuna n_jobs", "Optuna processes")
# From the start of a search, and from when its actors run.
RAY_TUNE = ("Ray Tune", "Ray Tune, running")
# In the tables, the driver that chooses the same settings for any number of workers.
DETERMINISTIC = "holdtrue, deterministic"
RULES = ("halving", "hyperband", "median")
_MANY = 8
_ALL_ROWS = 327_346


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rows: int = ROWS
    rounds: int = 45
    real: int = 64
    """Trials of half a second."""
    tiny: int = 500
    tiny_s: float = 0.02
    tiny_few: int = 60
    """Tiny trials of Ray Tune, which takes long, and ours beside it."""
    repeats: int = 3
    seeds: int = 5
    waiting: int = 64
    waiting_s: float = 0.5
    past: tuple[int, ...] = (100, 1_000, 5_000)
    """Trials that a study has when it is asked."""
    concurrent: int = 32
    """Trials whose memory is looked at."""
    warm: int = 40
    """Trials of a cold study."""
    warm_seeds: int = 10
    warm_sets: tuple[str, ...] = SETS


QUICK = Size(
    *(2_000, 5),
    real=6,
    tiny=20,
    tiny_s=0.005,
    tiny_few=6,
    waiting=16,
    waiting_s=0.05,
    repeats=1,
    seeds=1,
    past=(20, 50),
    concurrent=8,
    warm=10,
    warm_seeds=1,
    warm_sets=SETS[1:2],
)


@dataclass(frozen=True)
class Place:
    """Where the parts run."""

    folder: Path
    size: Size
    say: Callable[[str], None]

    def rows(self, count: int) -> str:
        """Path of so many flights; written where they are not there yet."""
        path = self.folder / f"flights-{count}.npz"
        if not path.exists():
            write_flights(path, count)
        return str(path)

    def job(self, contender: str, kind: Any, trials: int, sampler: Any, **other: Any) -> Job:
        """A job of this size."""
        fixed = {"rounds": self.size.rounds, "tiny_s": self.size.tiny_s}
        return Job(contender, kind, trials, sampler, self.rows(self.size.rows), **(fixed | other))

    def measure(self, job: Job, name: str | None = None) -> dict[str, Any]:
        """Measure a search, and say how it went."""
        found = measure(job) | {"name": name or job.contender}
        best = "" if found["best"] is None else f", best {found['best']:.4f}"
        words = f"{found['wall_s']:.1f} s, others {found['foreign']:.0%}{best}"
        self.say(f"  {found['name']}: {job.trials} {job.kind}, {job.sampler}: {words}")
        return found | {"data": Path(job.data).name}


def real(place: Place) -> dict[str, Any]:
    """The same 64 settings for everybody."""
    size = place.size
    return {
        "runs": [
            place.measure(place.job(name, "real", size.real, "fixed"))
            for _ in range(size.repeats)
            for name in ("process pool", OURS, *OPTUNA, *RAY_TUNE)
        ]
    }


def own(place: Place) -> dict[str, Any]:
    """Real trials, each search with its own way of choosing them."""
    size = place.size
    runs = []
    for seed in range(size.seeds):
        jobs = {
            name: place.job(name, "real", size.real, "tpe", seed=seed)
            for name in (OURS, *OPTUNA, RAY_TUNE[0], "scikit-learn halving")
        }
        jobs[DETERMINISTIC] = replace(jobs[OURS], deterministic=True)
        runs += [place.measure(job, name) for name, job in jobs.items()]
    return {"runs": runs}


def tiny(place: Place) -> dict[str, Any]:
    """Trials so small that what is around them counts."""
    size = place.size
    asked = [
        *((name, "fixed") for name in ("process pool", OURS, *OPTUNA)),
        *((name, how) for how in ("random", "tpe") for name in (OURS, "Optuna n_jobs")),
    ]
    many, few = [], []
    for _ in range(size.repeats):
        many += [place.measure(place.job(name, "tiny", size.tiny, how)) for name, how in asked]
        few += [
            place.measure(place.job(name, "tiny", size.tiny_few, "fixed"))
            for name in (OURS, *RAY_TUNE)
        ]
    return {"many": many, "few": few}


def parallel(place: Place) -> dict[str, Any]:
    """How many times as fast eight workers are as one, where the cores are not what limits."""
    size = place.size
    job = place.job(OURS, "waiting", size.waiting, "random", tiny_s=size.waiting_s)
    return {
        "runs": [
            place.measure(replace(job, workers=workers), f"{workers} at a time")
            for _ in range(size.repeats)
            for workers in (1, _MANY)
        ]
    }


def prune(place: Place) -> dict[str, Any]:
    """What ending trials early saves, and what it costs in the best score."""
    runs = []
    for seed in range(place.size.seeds):
        job = place.job(OURS, "folds", place.size.real, "tpe", seed=seed)
        runs += [
            place.measure(replace(job, pruner=rule), rule or "none") for rule in (None, *RULES)
        ]
    return {"runs": runs}


def long(place: Place) -> dict[str, Any]:
    """What an ask costs the more trials there are, and the longest of these searches as a whole."""
    asks = []
    for past in place.size.past:
        for name in (OURS, "Optuna"):
            _, found = run(place.job(f"asking: {name}", "real", past, "tpe"))
            asks.append({"name": name, "past": past} | found[0])
            place.say(f"  {name} asked after {past} trials: {found[0]['median_ms']:.1f} ms")
    whole = place.measure(place.job(OURS, "tiny", place.size.past[-1], "tpe"))
    return {"asks": asks, "whole": whole}


def warm(place: Place) -> dict[str, Any]:
    """What a search gains by an earlier one's trials."""
    found = {}
    for name in place.size.warm_sets:
        job = place.job("warm start", "folds", place.size.warm, "tpe")
        _, pairs = run(replace(job, data=name, seed=place.size.warm_seeds))
        found[name] = pairs
        good, unseen = (
            sum(pair[f"warm{end}"] <= pair[f"cold{end}"] for pair in pairs)
            for end in ("", "_unseen")
        )
        place.say(f"  {name}: {good} of {len(pairs)}, on unseen rows {unseen}")
    return {"trials": place.size.warm, "sets": found}


def scale(place: Place) -> dict[str, Any]:
    """What memory eight trials at a time take beside one, where Ray has room for eight."""
    runs = []
    for rows in (place.size.rows, min(_ALL_ROWS, 4 * place.size.rows)):
        job = replace(
            place.job(OURS, "folds", place.size.concurrent, "fixed"),
            workers=_MANY,
            data=place.rows(rows),
        )
        for parallel in (1, _MANY):
            one = replace(job, parallel=parallel, trials=max(2, job.trials * parallel // _MANY))
            runs.append(place.measure(one, f"{parallel} at a time") | {"rows": rows})
    return {"runs": runs}


PARTS: dict[str, Callable[[Place], dict[str, Any]]] = {
    "real": real,
    "own": own,
    "tiny": tiny,
    "parallel": parallel,
    "prune": prune,
    "long": long,
    "warm": warm,
    "scale": scale,
}
