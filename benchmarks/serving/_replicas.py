"""Replicas that come and go with the load."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.serving._measure import load
from benchmarks.serving._model import WAITS_S
from benchmarks.serving._process import Asking
from benchmarks.serving.client import Phase
from holdtrue.serving._scorer import SCORING_THREADS

if TYPE_CHECKING:
    from benchmarks.serving._ours import Ours
    from benchmarks.serving._parts import Place

MOST = 2
"""Replicas: with the load there are three processes for two cores then."""
CROWD = 200
BURST: dict[str, Any] = {
    # What is declared by default: a sixth of the crowd, and far more than one client.
    **{"min": 1, "max": MOST, "target_ongoing_requests": 32},
    **{"up_after": "2s", "down_after": "5s"},
}
STEPS: dict[str, Any] = {
    # As many as a replica answers at a time: more of them wait.
    **{"min": 1, "max": MOST, "target_ongoing_requests": SCORING_THREADS},
    **{"up_after": "2s", "down_after": "3s"},
}
# Of what the waits of one replica allow: it cannot do the second, two can.
LOW, HIGH = 0.2, 1.2
STEP_CONNECTIONS = 64
_POLL_S = 0.5
_CALM_S = 5.0
_FALL_LIMIT_S = 45.0


class Watch:
    """Notes how many replicas there are, until the block ends.

    Args:
        server: Whose.
    """

    def __init__(self, server: Ours) -> None:
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.points: list[dict[str, Any]] = []
        """Of each look the moment ``at`` (seconds since 1970), and the replicas that were
        ``wanted``, that lived (``up_to_date``) and that Serve held to be ``ready``."""

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def until_calm(self, timeout_s: float) -> None:
        """Wait until one replica is left, or the time is over."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            last = self.points[-1]
            if last["wanted"] == last["up_to_date"] == last["ready"] == 1:
                return
            time.sleep(_POLL_S)

    def _run(self) -> None:
        while not self._over.wait(_POLL_S):
            counts = self._server.counts()
            if counts is not None:
                self.points.append({"at": time.time()} | counts.model_dump())


def burst(place: Place) -> dict[str, Any]:
    """One client, then 200 more at once, then one again: replicas follow."""
    with place.ours(replicas=BURST) as server, Watch(server) as watch:
        fitted, running = server.fitted[1], server.running()
        alone = Asking(load(running, fitted, Phase(600)))
        try:
            time.sleep(_CALM_S)
            wanted = load(running, fitted, Phase(place.size.burst_s), connections=CROWD)
            crowd = Asking(wanted).found()
            ended = time.time()
            watch.until_calm(_FALL_LIMIT_S)
            time.sleep(1)
            one = alone.end()
        finally:
            alone.kill()
    place.say(f"  {crowd['statuses']} and {one['statuses']}, {crowd['errors']} {one['errors']}")
    return {
        "declared": BURST,
        "began_at": crowd["began_at"],
        "ended_at": ended,
        "crowd": crowd,
        "alone": one,
        "points": watch.points,
    }


def steps(place: Place) -> dict[str, Any]:
    """A low load and a high one in turns, on a model that waits: a second replica is worth one."""
    able = SCORING_THREADS / WAITS_S
    phases = [
        Phase(seconds, able * (HIGH if number % 2 else LOW))
        for number, seconds in enumerate(place.size.steps_s)
    ]
    with place.ours("waits", replicas=STEPS) as server, Watch(server) as watch:
        wanted = load(server.running(), server.fitted[1], *phases, connections=STEP_CONNECTIONS)
        found = Asking(wanted).found()
    place.say(f"  {found['statuses']}, {found['errors']} failed")
    return found | {
        "declared": STEPS,
        "waits_s": WAITS_S,
        "phases": [asdict(phase) for phase in phases],
        "points": watch.points,
    }
