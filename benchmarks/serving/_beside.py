"""What callers notice of a shadow that fails or hangs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.serving._ours import Ours
    from benchmarks.serving._parts import Place

ALONE, RAISES, SLEEPS = "none", "raises", "sleeps 10 s"
_MODELS = {2: "raises", 3: "sleeps"}
_SHADOWS: dict[str, int | None] = {ALONE: None, RAISES: 2, SLEEPS: 3}
CONNECTIONS = 8
# Of what the server can do: where it is busy all the time, whatever takes a core is noticed.
OF_CAPACITY = 0.25
# What a shadow's process takes to import its libraries, with what is measured meanwhile.
_STARTS_S = 3.0
_WRITTEN_S = 1.2


def shadow(place: Place) -> dict[str, Any]:
    """The same load with no shadow, and with one that raises or sleeps, in turns."""
    runs, starting = [], []
    with place.ours(others=_MODELS) as server:
        rate = OF_CAPACITY * place.capacity(server)
        for turn in range(place.size.beside):
            names = [*_SHADOWS]
            # Who is first changes, and so does who follows whom.
            order = names[turn % 3 :] + names[: turn % 3]
            order = order if turn % 2 == 0 else order[::-1]
            for name in order:
                first, then = _turn(place, server, name, rate)
                starting.append(first)
                runs.append(then)
    return {"rate": rate, "connections": CONNECTIONS, "runs": runs, "starting": starting}


def _turn(
    place: Place, server: Ours, name: str, rate: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measured while the shadow's process starts, and afterwards."""
    version = _SHADOWS[name]
    other = {} if version is None else {"shadow": (version, 0.0)}
    server.deploy(champion=(1, 1.0), **other)
    running = server.running(f"shadow: {name}")
    first = place.measure(running, server.fitted[1], 1, CONNECTIONS, rate)
    time.sleep(_STARTS_S)
    before = server.counted()
    found = place.measure(running, server.fitted[1], 1, CONNECTIONS, rate)
    time.sleep(_WRITTEN_S)
    after = server.counted()
    failed = 0
    if version is not None:
        then, now = (sum(seen.of(version, "shadow").errors.values()) for seen in (before, after))
        failed = now - then
    return dict(first) | {"shadow": name}, dict(found) | {
        "shadow": name,
        "shadow_failed": failed,
        "shadow_dropped": after.shadow_dropped - before.shadow_dropped,
    }
