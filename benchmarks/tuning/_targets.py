"""What the searches must reach, and whether they do."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks._markdown import Target
from benchmarks.tuning._parts import OPTUNA, OURS, RAY_TUNE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

EFFICIENCY = {"fixed": 0.93, "many": 0.75}
TIMES_RAY_TUNE = {"fixed": 1.5, "few": 15.0}
OVERHEAD_MS = 6.0
ASKING_SHARE = 0.1
TIMES_BY_PRUNING = 1.6
BEST_WITHIN = 0.002
MEMORY_RATIO = 1.5
TIMES_BY_EIGHT = 6.5


def medians(runs: Sequence[dict[str, Any]], sampler: str | None = None) -> dict[str, Any]:
    """By name: the median of each number over the repeats; what is no number is left out.

    Args:
        runs: As `Place.measure` returns them.
        sampler: Only those.
    """
    found: dict[str, Any] = {}
    for name in dict.fromkeys(run["name"] for run in runs):
        same = [run for run in runs if run["name"] == name and sampler in (None, run["sampler"])]
        if not same:
            continue
        found[name] = {
            key: statistics.median(run[key] for run in same)
            for key, value in same[0].items()
            if isinstance(value, int | float) and all(run[key] is not None for run in same)
        } | {"left_s": statistics.median(map(left_s, same)), "runs": len(same)}
    return found


def left_s(run: dict[str, Any]) -> float:
    """Wall time without the share of the machine that others took: what it would be alone."""
    return float(run["wall_s"] * (1 - run["foreign"]))


def times(runs: dict[str, Any], ours: str, other: str) -> float:
    """How many times as fast one is as the other, by trials in the same time."""
    speeds = [runs[name]["finished"] / runs[name]["left_s"] for name in (ours, other)]
    return float(speeds[0] / speeds[1])


def targets(parts: dict[str, Any]) -> list[Target]:
    """All that the measured parts say something about."""
    checks: dict[str, Callable[[dict[str, Any]], Iterator[Target]]] = {
        "real": _real,
        "own": _own,
        "tiny": _tiny,
        "parallel": _parallel,
        "prune": _prune,
        "long": _long,
        "scale": _scale,
        "warm": _warm,
    }
    found = [target for part, of in checks.items() if part in parts for target in of(parts[part])]
    if {"long", "real"} <= set(parts):
        found.append(_asking(parts["long"], parts["real"]))
    return found


def _real(part: dict[str, Any]) -> Iterator[Target]:
    fixed = medians(part["runs"])
    trials = int(fixed[OURS]["finished"])
    yield _efficiency(f"efficiency, {trials} real trials", fixed, EFFICIENCY["fixed"])
    what = f"{trials} real trials"
    for name in RAY_TUNE:
        yield _times(what, fixed, name, TIMES_RAY_TUNE["fixed"])
    yield from _optuna(what, fixed)


def _own(part: dict[str, Any]) -> Iterator[Target]:
    own = medians(part["runs"])
    yield from _optuna(f"{int(own[OURS]['finished'])} real trials by TPE", own)


def _tiny(part: dict[str, Any]) -> Iterator[Target]:
    many, few = medians(part["many"], "fixed"), medians(part["few"])
    what = f"{int(many[OURS]['finished'])} tiny trials"
    yield _efficiency(f"efficiency, {what}", many, EFFICIENCY["many"])
    overhead = many[OURS]["overhead_ms"]
    yield Target(
        f"overhead a trial, {what}",
        f"≤ {OVERHEAD_MS:g} ms of CPU",
        f"{overhead:.1f} ms",
        overhead <= OVERHEAD_MS,
    )
    yield from _optuna(what, many)
    few_trials = f"{int(few[OURS]['finished'])} tiny trials"
    for name in RAY_TUNE:
        yield _times(few_trials, few, name, TIMES_RAY_TUNE["few"])


def _parallel(part: dict[str, Any]) -> Iterator[Target]:
    runs = medians(part["runs"])
    one, eight = runs
    measured = times(runs, eight, one)
    yield Target(
        f"{int(runs[one]['finished'])} trials that wait: 8 workers as fast as 1",
        f"≥ {TIMES_BY_EIGHT:g} times",
        f"{measured:.2f} times",
        measured >= TIMES_BY_EIGHT,
    )


def _prune(part: dict[str, Any]) -> Iterator[Target]:
    runs = medians(part["runs"])
    for rule in (name for name in runs if name != "none"):
        yield _times("ending trials early", runs, "none", TIMES_BY_PRUNING, rule)
        worse = worse_by_pruning(part["runs"], rule)
        yield Target(
            f"ending trials early by {rule}: best log loss worse by",
            f"≤ {BEST_WITHIN:g}",
            f"{worse:+.4f}",
            worse <= BEST_WITHIN,
        )


def worse_by_pruning(runs: Sequence[dict[str, Any]], rule: str) -> float:
    """Median over the seeds of what a rule costs in the best value."""
    best = {(run["name"], run["seed"]): run["best"] for run in runs}
    seeds = [seed for name, seed in best if name == rule]
    return float(statistics.median(best[rule, seed] - best["none", seed] for seed in seeds))


def _asking(long: dict[str, Any], real: dict[str, Any]) -> Target:
    last = max(ask["past"] for ask in long["asks"])
    ask = next(a for a in long["asks"] if a["past"] == last and a["name"] == OURS)
    trial = medians(real["runs"])[OURS]
    share = ask["median_ms"] * trial["finished"] / (1000 * trial["trials_cpu_s"])
    return Target(
        f"asking after {last:,} trials, of the time of a real trial",
        f"≤ {ASKING_SHARE:.0%}",
        f"{share:.1%}",
        share <= ASKING_SHARE,
    )


def _long(part: dict[str, Any]) -> Iterator[Target]:
    last = max(ask["past"] for ask in part["asks"])
    cost = {ask["name"]: ask["median_ms"] for ask in part["asks"] if ask["past"] == last}
    yield Target(
        f"asking after {last:,} trials, beside Optuna's TPE",
        "cheaper",
        f"{cost[OURS]:.1f} ms against {cost['Optuna']:.1f}",
        cost[OURS] < cost["Optuna"],
    )


def _scale(part: dict[str, Any]) -> Iterator[Target]:
    for rows in dict.fromkeys(run["rows"] for run in part["runs"]):
        few, many = (run["peak_bytes"] for run in part["runs"] if run["rows"] == rows)
        yield Target(
            f"memory of 8 trials at a time beside 1, {rows:,} rows",
            f"≤ {MEMORY_RATIO:g} times",
            f"{many / few:.2f} times",
            many / few <= MEMORY_RATIO,
        )


def _warm(part: dict[str, Any]) -> Iterator[Target]:
    for name, pairs in part["sets"].items():
        for end, rows in (("", "rows that were searched on"), ("_unseen", "unseen rows")):
            good = sum(pair[f"warm{end}"] <= pair[f"cold{end}"] for pair in pairs)
            yield Target(
                f"warm start, {name}: seeds as good after 30 % of the trials, on {rows}",
                f"≥ {(len(pairs) + 1) // 2} of {len(pairs)}",
                f"{good} of {len(pairs)}",
                2 * good >= len(pairs),
            )


def _efficiency(what: str, runs: dict[str, Any], wanted: float) -> Target:
    measured = runs[OURS]["efficiency_of_left"]
    return Target(what, f"≥ {wanted:g}", f"{measured:.3f}", measured >= wanted)


def _optuna(what: str, runs: dict[str, Any]) -> Iterator[Target]:
    for name in OPTUNA:
        yield _times(what, runs, name, 1.0)


def _times(what: str, runs: dict[str, Any], other: str, wanted: float, ours: str = OURS) -> Target:
    measured = times(runs, ours, other)
    by = "" if ours == OURS else f" by {ours}"
    beside = "all of them to their end" if other == "none" else other
    return Target(
        f"{what}{by}: as fast as {beside}",
        f"≥ {wanted:g} times",
        f"{measured:.2f} times",
        measured >= wanted,
    )
