"""How soon a request is refused, where three times too many come."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks._pace import UNSTEADY, slow_share
from benchmarks.serving._measure import HOST, load
from benchmarks.serving._model import WAITS_S
from benchmarks.serving._ours import SYSTEM
from benchmarks.serving._process import Asking
from benchmarks.serving.client import Phase
from holdtrue.serving._scorer import SCORING_THREADS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.serving._ours import Ours
    from benchmarks.serving._parts import Place

RATE_LIMIT = "429: more than `requests_per_s`"
NO_TURN = "503: no turn in time, not compiled"
TOO_LATE = "503: compiled, 1 row"
TOO_LATE_MANY = "503: compiled, 10 rows"
TIMES = 3
# Of what the server can do, so that the load leaves it room for what is refused.
_ALLOWED = 0.15
_WAIT_S = 0.25
_CONNECTIONS = 500
_ROWS = 10
# Of this machine that its host may give to others while a load counts: more, and it says little
# about the server; nor does it where the machine was not steady before (`UNSTEADY`). Such a load is
# offered again, so many times at most.
HOST_TOOK = 0.05
_AGAIN = 6
_STEADY_S = 2.0
_CAPACITIES = 3


def refused(place: Place) -> dict[str, Any]:
    """Three times as much as is allowed, as a slow model can do, and as a compiled one can do."""
    with place.ours() as server:
        capacity = _capacity(place, server)
        allowed = _ALLOWED * capacity
        server.change(limits={"requests_per_s": allowed})
        server.deploy(champion=(1, 1.0))
        runs = _runs(place, server, RATE_LIMIT, allowed, _CONNECTIONS)
        server.change(limits={"wait": f"{_WAIT_S}s"})
        server.deploy(champion=(1, 1.0))
        runs += _runs(place, server, TOO_LATE, capacity, place.size.many)
        # To ask three times as often as one row can be answered takes all of this machine.
        able = _capacity(place, server, _ROWS)
        runs += _runs(place, server, TOO_LATE_MANY, able, place.size.many, _ROWS)
    with place.ours("waits") as server:
        full = place.measure(server.running(), server.fitted[1], 1, SCORING_THREADS)
        runs += _runs(place, server, NO_TURN, SCORING_THREADS / WAITS_S, _CONNECTIONS)
    return {"runs": runs, "wait_s": _WAIT_S, "waits_s": WAITS_S, "full_p99_ms": full["p99_ms"]}


def undisturbed(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The loads that count: those on a steady machine, or all where there is none such."""
    calm = [run for run in runs if _is_calm(run)]
    return calm or [*runs]


def _is_calm(run: Mapping[str, Any]) -> bool:
    return bool(run["stolen"] <= HOST_TOOK and run.get("slow", 0.0) <= UNSTEADY)


def _capacity(place: Place, server: Ours, rows: int = 1) -> float:
    """The most of a few measurements: a host that takes its part lowers them."""
    return max(place.capacity(server, rows) for _ in range(_CAPACITIES))


def _runs(place: Place, server: Ours, name: str, *load: Any) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = []
    calm = 0
    while calm < place.size.loads and len(runs) < place.size.loads + _AGAIN:
        runs.append(_run(place, server, name, *load))
        calm += _is_calm(runs[-1])
    return runs


def _run(
    place: Place, server: Ours, name: str, able: float, connections: int, rows: int = 1
) -> dict[str, Any]:
    """Offer three times what it is able to answer."""
    slow = slow_share(_STEADY_S)
    phase = Phase(place.size.offered_s, TIMES * able)
    wanted = load(server.running(), server.fitted[1], phase, rows=rows, connections=connections)
    greeting = f"GET /{SYSTEM}/live HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
    found = Asking(replace(wanted, newest_first=True, greeting=greeting)).found()
    counted = {key: value for key, value in found.items() if key not in {"by_second", "marks"}}
    place.say(f"  {name}: {found['statuses']}, p99 {found['refused_p99_ms'] or 0:.1f} ms")
    return counted | {
        "name": name,
        "able": able,
        "slow": slow,
        "connections": connections,
        "seconds_p99_ms": [second["p99_ms"] for second in found["by_second"]],
        "client_share": found["cpu_s"] / found["seconds"],
    }
