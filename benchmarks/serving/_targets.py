"""What serving must reach, and whether it does."""

from __future__ import annotations

import statistics
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from benchmarks._markdown import Target
from benchmarks.serving._beside import ALONE
from benchmarks.serving._ours import OURS
from benchmarks.serving._parts import UNCAPTURED
from benchmarks.serving._refused import NO_TURN, undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROW_US = 100.0
TIMES_PIPELINE = 100.0
TIMES_PEER = 25.0
OF_BARE = 0.5
P99_MS = 3.0
P50_MS = 1.5
SWAP_S = 5.0
CAPTURE_COSTS = 0.1
ROLLBACK_S = 5.0
FULL_S = 15.0
BACK_S = 10.0
RISE_S = 15.0
SETTLED_S = 20.0
REVERSALS = 1
SHADOW_COSTS = 0.05
MEAN_ROWS = 8.0
ANSWERED = 0.99
REFUSED_MS = 10.0
# Of a model that is not compiled: one's own, and one that is waited for.
CALLS = 2
LARGE_MS = 100.0
ALLOWED = {"200", "429", "503"}
BARE = "bare uvicorn"
# Within so many times the worst second before the overload, the 99th percentile is back.
_AGAIN = 2.0
_LEAST_MS = 5.0
# An overload begins as a burst, which is let in and waits as long as is declared.
_BURST_S = 1
# The load that is looked at is a mean of the last 5 s; then a replica has to end, in at most 20 s.
_FALL_MORE_S = 25.0


def medians(runs: Sequence[dict[str, Any]]) -> dict[tuple[str, int, int], dict[str, float]]:
    """By name, rows and connections: the median of each number over the rounds."""
    found: dict[tuple[str, int, int], dict[str, float]] = {}
    for cell in dict.fromkeys((run["name"], run["rows"], run["connections"]) for run in runs):
        same = [run for run in runs if (run["name"], run["rows"], run["connections"]) == cell]
        found[cell] = {
            key: statistics.median(run[key] for run in same)
            for key, value in same[0].items()
            if isinstance(value, int | float) and all(run[key] is not None for run in same)
        } | {"failed": sum(failed(run) for run in same)}
    return found


def failed(run: dict[str, Any]) -> int:
    """Requests without an answer, and answers that are none."""
    others = sum(count for status, count in run["statuses"].items() if status != "200")
    return int(sum(run["errors"].values()) + others)


def best(cells: dict[tuple[str, int, int], dict[str, float]], name: str, rows: int = 1) -> float:
    """The most answers a second of a server, over the numbers of connections."""
    return max(
        cell["per_s"] for (who, many, _), cell in cells.items() if (who, many) == (name, rows)
    )


def back_s(part: dict[str, Any]) -> float | None:
    """Seconds after an overload until the 99th percentile stays as it was; None: never."""
    start = int(part["calm_s"])
    stop = int(part["calm_s"] + part["overload_s"])
    seconds = [second["p99_ms"] for second in part["by_second"]]
    before = [value for value in seconds[1:start] if value is not None]
    limit = max(_LEAST_MS, _AGAIN * max(before))
    after = seconds[stop : stop + start]
    return _over_s([value is None or value > limit for value in after])


def during(part: dict[str, Any]) -> list[float]:
    """The 99th percentile of those answered in each second of an overload, after its burst, ms."""
    start, stop = int(part["calm_s"]), int(part["calm_s"] + part["overload_s"])
    return settled([second["p99_ms"] for second in part["by_second"][start:stop]])


def at_full_load(part: dict[str, Any]) -> float | None:
    """The median over the seconds of the same where just as much is asked as can be answered."""
    return median_of(settled([second["p99_ms"] for second in part["full"]["by_second"]]))


def settled(seconds: Sequence[float | None]) -> list[float]:
    """What there was in the seconds after a burst."""
    return [value for value in seconds[_BURST_S:] if value is not None]


def _over_s(bad: Sequence[bool]) -> float | None:
    """Seconds until none is bad any more; None: the last one is, or there are none."""
    if not bad or bad[-1]:
        return None
    return float(max((number + 1 for number, one in enumerate(bad) if one), default=0))


def wrong(run: dict[str, Any]) -> int:
    """Requests without an answer, and answers of another status than 200, 429 and 503."""
    others = sum(count for status, count in run["statuses"].items() if status not in ALLOWED)
    return int(sum(run["errors"].values()) + others)


def rise_s(part: dict[str, Any]) -> float | None:
    """Seconds from the burst's begin until as many replicas lived as there may be; None: never."""
    most = part["declared"]["max"]
    there = (one["at"] for one in part["points"] if one["up_to_date"] >= most)
    return next((at - part["began_at"] for at in there if at >= part["began_at"]), None)


def fall_s(part: dict[str, Any]) -> float | None:
    """Seconds from the burst's end until as few lived as there must be; None: never."""
    least = part["declared"]["min"]
    few = (one["at"] for one in part["points"] if max(one["up_to_date"], one["ready"]) <= least)
    return next((at - part["ended_at"] for at in few if at >= part["ended_at"]), None)


def reversals(counts: Sequence[int]) -> int:
    """How often a count that has grown shrinks next, or the other way round."""
    changes = [after - before for before, after in pairwise(counts)]
    signs = [change > 0 for change in changes if change]
    return sum(before != after for before, after in pairwise(signs))


def high_phases(part: dict[str, Any]) -> list[dict[str, Any]]:
    """What happened in each high phase.

    Returns:
        Of each ``rise_s`` until the most replicas lived, ``settled_s`` until no second was worse
        any more than twice the worst one of the low phase before, or had a refusal, and
        ``reversals`` of the replicas that were wanted within the phase; None: not within it.
    """
    found, start = [], 0.0
    for number, phase in enumerate(part["phases"]):
        stop = start + phase["seconds"]
        if number % 2:
            low = start - part["phases"][number - 1]["seconds"]
            found.append(_high_phase(part, low, start, stop))
        start = stop
    return found


def _high_phase(part: dict[str, Any], low: float, start: float, stop: float) -> dict[str, Any]:
    seconds = part["by_second"]
    # The end of a low phase: in its first half the replicas of the one before may still end.
    calm = seconds[int((low + start) / 2) : int(start)]
    limit = max(_LEAST_MS, _AGAIN * max((one["p99_ms"] or 0 for one in calm), default=0))
    bad = [
        one["p99_ms"] is None
        or one["p99_ms"] > limit
        or any(count for status, count in one["statuses"].items() if status != "200")
        for one in seconds[int(start) : int(stop)]
    ]
    points = [(one["at"] - part["began_at"], one) for one in part["points"]]
    within = [(at, one) for at, one in points if start <= at < stop]
    most = part["declared"]["max"]
    return {
        "limit_ms": limit,
        "settled_s": _over_s(bad),
        "rise_s": next((at - start for at, one in within if one["up_to_date"] >= most), None),
        "reversals": reversals([one["wanted"] for _, one in within]),
    }


def beside(runs: list[dict[str, Any]]) -> dict[str, tuple[float, float, float]]:
    """By shadow: median, least and most of the 99th percentiles of its turns, ms."""
    found = {}
    for name in dict.fromkeys(run["shadow"] for run in runs):
        values = [run["p99_ms"] for run in runs if run["shadow"] == name]
        found[name] = (statistics.median(values), min(values), max(values))
    return found


def targets(parts: dict[str, Any]) -> list[Target]:
    """All that the measured parts say something about."""
    checks: dict[str, Callable[[dict[str, Any]], Iterator[Target]]] = {
        "in-process": _in_process,
        "peers": _peers,
        "linear": _linear,
        "capture": _capture,
        "swaps": _swaps,
        "kill": _kill,
        "overload": _overload,
        "refused": _refused,
        "large": _large,
        "burst": _burst,
        "steps": _steps,
        "shadow": _shadow,
        "batching": _batching,
    }
    return [target for part, of in checks.items() if part in parts for target in of(parts[part])]


def _in_process(part: dict[str, Any]) -> Iterator[Target]:
    for line in part["lines"]:
        if line["rows"] == 1:
            what = f"one row in process, {line['model']}"
            took, times = line["ours"], line["frame"] / line["ours"]
            yield Target(what, f"≤ {ROW_US:g} us", f"{took:.0f} us", took <= ROW_US)
            yield _times(f"{what}: as fast as the pipeline", times, TIMES_PIPELINE)


def _peers(part: dict[str, Any]) -> Iterator[Target]:
    cells = medians(part["runs"])
    yield from _against(cells, "one row", TIMES_PEER)
    bare = best(cells, OURS) / best(cells, BARE)
    yield Target("one row: of bare uvicorn", f"≥ {OF_BARE:.0%}", f"{bare:.0%}", bare >= OF_BARE)
    if (OURS, 1, 1) in cells:
        for name, limit in (("p50", P50_MS), ("p99", P99_MS)):
            took = cells[OURS, 1, 1][f"{name}_ms"]
            what = f"{name}, one connection"
            yield Target(what, f"≤ {limit:g} ms", f"{took:.2f} ms", took <= limit)
    lost = sum(int(cell["failed"]) for (name, _, _), cell in cells.items() if name == OURS)
    yield _none("failed requests of ours", lost)


def _linear(part: dict[str, Any]) -> Iterator[Target]:
    yield from _against(medians(part["runs"]), "one row, linear", TIMES_PEER)


def _against(
    cells: dict[tuple[str, int, int], dict[str, float]], what: str, wanted: float
) -> Iterator[Target]:
    for name in dict.fromkeys(name for name, _, _ in cells):
        if name not in {OURS, UNCAPTURED, BARE}:
            yield _times(
                f"{what}: as fast as {name}", best(cells, OURS) / best(cells, name), wanted
            )


def _capture(part: dict[str, Any]) -> Iterator[Target]:
    cost = 1 - _with(part, 1.0, "per_s") / _with(part, 0.0, "per_s")
    wanted = f"≤ {CAPTURE_COSTS:.0%}"
    yield Target(
        "capture of all: fewer answers a second", wanted, f"{cost:.1%}", cost <= CAPTURE_COSTS
    )


def _with(part: dict[str, Any], share: float, key: str) -> float:
    return statistics.median(float(run[key]) for run in part["runs"] if run["share"] == share)


def _swaps(part: dict[str, Any]) -> Iterator[Target]:
    what = f"{len(part['swap_seconds'])} swaps, a canary and a rollback"
    yield _none(f"{what}: failed", failed(part))
    yield _none(f"{what}: stalled over 250 ms", part["stalled"])
    slowest = max(part["swap_seconds"])
    yield Target("a swap", f"≤ {SWAP_S:g} s", f"{slowest:.1f} s", slowest <= SWAP_S)
    back = part["rollback_s"]
    yield Target("rollback", f"≤ {ROLLBACK_S:g} s", f"{back:.1f} s", back <= ROLLBACK_S)


def _kill(part: dict[str, Any]) -> Iterator[Target]:
    yield _none("replica killed, one retry: failed", sum(map(failed, part["kills"])))
    full = max(one["full_s"] for one in part["kills"])
    yield Target(
        "replica killed: full strength", f"≤ {FULL_S:g} s", f"{full:.1f} s", full <= FULL_S
    )


def _overload(part: dict[str, Any]) -> Iterator[Target]:
    yield _none("three times the load: neither answered nor 429 or 503", wrong(part))
    back = back_s(part)
    said = "never" if back is None else f"{back:.0f} s"
    met = back is not None and back <= BACK_S
    yield Target("three times the load: p99 back after", f"≤ {BACK_S:g} s", said, met)
    what = "three times the load: p99 of those answered, as where just all are"
    limit = round(at_full_load(part) or 0, 1)
    yield _within(what, median_of(during(part)), limit, "ms", "no answer")


def _refused(part: dict[str, Any]) -> Iterator[Target]:
    names = dict.fromkeys(run["name"] for run in part["runs"])
    counted = {name: undisturbed([r for r in part["runs"] if r["name"] == name]) for name in names}
    for name, runs in counted.items():
        times = [run["refused_p99_ms"] for run in runs]
        took = None if None in times else statistics.median(times)
        what = f"refused with {name}: p99"
        yield _within(what, took, REFUSED_MS, "ms", "nothing was refused")
    seconds = [settled(run["seconds_p99_ms"]) for run in counted.get(NO_TURN, [])]
    what = "answered beside 503, not compiled: p99, as of two calls where just all are answered"
    limit = round(CALLS * part["full_p99_ms"], 1)
    yield _within(what, median_of([*chain(*seconds)]), limit, "ms", "no answer")
    yield _none("refused: neither answered nor 429 or 503", sum(map(wrong, part["runs"])))


def _large(part: dict[str, Any]) -> Iterator[Target]:
    others = 0
    for name, way in part["ways"].items():
        took = p99(way["milliseconds"])
        yield _within(f"too large, {name}: p99 until 413", took, LARGE_MS, "ms", "no answer")
        others += sum(count for status, count in way["statuses"].items() if status != "413")
    yield _none("too large: not answered 413", others)


def _burst(part: dict[str, Any]) -> Iterator[Target]:
    most, after = part["declared"]["max"], float(part["declared"]["down_after"].rstrip("s"))
    yield _within(f"burst: {most} replicas live after", rise_s(part), RISE_S, "s", "never")
    yield _within(
        "burst over: one replica is left after", fall_s(part), after + _FALL_MORE_S, "s", "never"
    )
    lost = wrong(part["crowd"]) + wrong(part["alone"])
    yield _none("burst: neither answered nor 429 or 503", lost)


def _steps(part: dict[str, Any]) -> Iterator[Target]:
    found = high_phases(part)
    most = max(one["reversals"] for one in found)
    what = "steps: reversals of the wanted replicas in a high phase"
    yield Target(what, f"≤ {REVERSALS}", f"{most}", most <= REVERSALS)
    settled = [one["settled_s"] for one in found]
    slowest = None if None in settled else max(settled)
    yield _within("steps: p99 back to normal after", slowest, SETTLED_S, "s", "never")
    yield _none("steps: neither answered nor 429 or 503", wrong(part))


def _shadow(part: dict[str, Any]) -> Iterator[Target]:
    found = beside(part["runs"])
    alone = found[ALONE][0]
    for name, (took, _, _) in found.items():
        if name != ALONE:
            cost = took / alone - 1
            wanted = f"≤ {SHADOW_COSTS:.0%}"
            what = f"a shadow that {name}: p99 of callers higher by"
            yield Target(what, wanted, f"{cost:+.1%}", cost <= SHADOW_COSTS)
    yield _none("beside shadows: failed", sum(map(failed, part["runs"])))


def _batching(part: dict[str, Any]) -> Iterator[Target]:
    for run in part["runs"]:
        if run["batches"]:
            what = f"not compiled, {run['name']}"
            rows, took = run["mean_rows"], run["p99_ms"]
            yield Target(
                f"{what}: rows together", f"> {MEAN_ROWS:g}", f"{rows:.1f}", rows > MEAN_ROWS
            )
            yield _within(f"{what}: p99", took, part["wait_ms"], "ms", "no answer")
            share = run["answers"] / run["offered"]
            wanted = f"≥ {ANSWERED:.0%}"
            asked = f"{what}: answered of {part['rate']:g} a second"
            yield Target(asked, wanted, f"{share:.1%}", share >= ANSWERED)


def p99(values: Sequence[float]) -> float | None:
    """The value that 99 % of the sorted ones do not exceed; with fewer than 100, the largest."""
    return values[min(len(values) - 1, int(0.99 * len(values)))] if values else None


def median_of(values: Sequence[float]) -> float | None:
    """The median; None where there are none."""
    return statistics.median(values) if values else None


def _within(what: str, value: float | None, limit: float, unit: str, never: str) -> Target:
    """A time that has a limit; there may be none."""
    said = never if value is None else f"{value:.1f} {unit}"
    return Target(what, f"≤ {limit:g} {unit}", said, value is not None and value <= limit)


def _none(what: str, count: int) -> Target:
    return Target(what, "0", f"{count}", count == 0)


def _times(what: str, value: float, wanted: float) -> Target:
    return Target(what, f"≥ {wanted:g} times", f"{value:.1f} times", value >= wanted)
