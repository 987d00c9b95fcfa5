"""Requests of one row to a model without a compiled form, scored together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from benchmarks.serving._measure import load, measure
from benchmarks.serving._process import Asking
from benchmarks.serving.client import Phase

if TYPE_CHECKING:
    from benchmarks.serving._ours import Ours
    from benchmarks.serving._parts import Place

RATE = 500.0
WAIT_MS = 250.0
"""Declared as `limits.wait`, and as the most that the 99th percentile may be."""
TOGETHER: dict[str, dict[str, Any]] = {
    "each alone": {},
    "64 rows, 10 ms": {"batch_rows": 64, "batch_wait_ms": 10},
    "64 rows, 20 ms": {"batch_rows": 64, "batch_wait_ms": 20},
}
# Half a second of requests: what is refused frees its connection sooner.
_CONNECTIONS = 250
_WRITTEN_S = 1.5


def batching(place: Place) -> dict[str, Any]:
    """500 requests of one row a second for a network, each alone and together."""
    runs = []
    with place.ours("network") as server:
        for name, limits in TOGETHER.items():
            server.change(limits={"wait": f"{WAIT_MS / 1000:g}s"} | limits)
            server.deploy(champion=(1, 1.0))
            runs.append(_run(place, server, name))
    return {"rate": RATE, "wait_ms": WAIT_MS, "runs": runs}


def _run(place: Place, server: Ours, name: str) -> dict[str, Any]:
    running, fitted = server.running(name), server.fitted[1]
    # The interpreter of the replica loads what it scores with when it is first asked.
    Asking(load(running, fitted, Phase(place.size.warm))).found()
    time.sleep(_WRITTEN_S)
    before = server.counted()
    found = measure(
        running,
        fitted,
        rows=1,
        connections=_CONNECTIONS,
        seconds=place.size.offered_s,
        warm=place.size.warm,
        rate=RATE,
    )
    time.sleep(_WRITTEN_S)
    after = server.counted()
    batches = after.batches - before.batches
    mean = (after.batched_rows - before.batched_rows) / batches if batches else 1.0
    place.say(
        f"  {name}: {found['per_s']:.0f}/s, {mean:.1f} rows together, "
        f"p99 {found['p99_ms'] or 0:.0f} ms, {found['statuses']}"
    )
    offered = RATE * place.size.offered_s
    return found | {"batches": batches, "mean_rows": mean, "offered": offered}
