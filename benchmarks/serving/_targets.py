"""What serving must reach, and whether it does."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks._markdown import Target
from benchmarks.serving._ours import OURS
from benchmarks.serving._parts import UNCAPTURED

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
ALLOWED = {"200", "429", "503"}
BARE = "bare uvicorn"
# Within so many times the worst second before the overload, the 99th percentile is back.
_AGAIN = 2.0
_LEAST_MS = 5.0


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
    bad = [number for number, value in enumerate(after) if value is None or value > limit]
    if not after or (bad and bad[-1] == len(after) - 1):
        return None
    return float(bad[-1] + 1) if bad else 0.0


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
    wrong = sum(int(cell["failed"]) for (name, _, _), cell in cells.items() if name == OURS)
    yield Target("failed requests of ours", "0", f"{wrong}", wrong == 0)


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
    others = {status: n for status, n in part["statuses"].items() if status not in ALLOWED}
    wrong = sum(others.values()) + sum(part["errors"].values())
    yield _none("three times the load: neither answered nor 429 or 503", wrong)
    back = back_s(part)
    said = "never" if back is None else f"{back:.0f} s"
    met = back is not None and back <= BACK_S
    yield Target("three times the load: p99 back after", f"≤ {BACK_S:g} s", said, met)


def _none(what: str, count: int) -> Target:
    return Target(what, "0", f"{count}", count == 0)


def _times(what: str, value: float, wanted: float) -> Target:
    return Target(what, f"≥ {wanted:g} times", f"{value:.1f} times", value >= wanted)
