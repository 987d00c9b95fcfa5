"""The parts of `benchmarks.serve`: what is measured, and how much of it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.serving._beside import shadow
from benchmarks.serving._in_process import compare
from benchmarks.serving._large import large
from benchmarks.serving._measure import load, measure
from benchmarks.serving._model import MANY, fit
from benchmarks.serving._ours import ours
from benchmarks.serving._peers import PEERS, bare
from benchmarks.serving._process import Asking, BenchmarkError
from benchmarks.serving._refused import refused
from benchmarks.serving._replicas import burst, steps
from benchmarks.serving._together import batching
from benchmarks.serving.client import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from benchmarks.serving._model import Fitted
    from benchmarks.serving._ours import Ours
    from benchmarks.serving._peers import Running

UNCAPTURED = "holdtrue, nothing captured"
_MARKER = '"version":'
_POLL_S = 0.2
_FULL_LIMIT_S = 120.0


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    seconds: float = 3.0
    """Of one measurement."""
    warm: float = 1.0
    connections: tuple[int, ...] = (1, 8, 32)
    rounds: int = 2
    """How often each server is started and measured, in turns."""
    turns: int = 10
    """Of measurements with and without capture."""
    calls: int = 2_000
    """One row in process; those that are slow are called fewer times."""
    swaps: int = 20
    kills: int = 2
    overload_s: float = 20.0
    calm_s: float = 15.0
    """Before and after the overload."""
    many: int = 4_000
    """Connections of the overload."""
    burst_s: float = 20.0
    """How long there are many clients."""
    steps_s: tuple[float, ...] = (6.0, 30.0, 14.0, 30.0)
    """A low load, a high one, and so on."""
    beside: int = 10
    """Turns without a shadow and with each of those that fail or hang."""
    offered_s: float = 8.0
    """Of a load that is scored together, or mostly refused."""
    loads: int = 3
    """Times that a load which is mostly refused is offered."""
    tries: int = 50
    """Of each way to send a content that is too large."""


QUICK = Size(0.5, 0.3, (1, 8), rounds=1, turns=1, calls=50, swaps=2, kills=1, overload_s=2.0,
             calm_s=3.0, many=1_000, burst_s=8.0, steps_s=(4.0, 10.0), beside=1, offered_s=2.0,
             loads=1, tries=3)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where the parts run."""

    folder: Path
    size: Size
    say: Callable[[str], None]

    def fitted(self, kind: str, version: int = 1) -> Fitted:
        """A model; fitted when first asked for."""
        known = _fitted.get((self.folder, kind, version))
        if known is None:
            known = fit(kind, self.folder / f"{kind}-{version}", version)
            _fitted[self.folder, kind, version] = known
        return known

    @contextmanager
    def ours(
        self,
        kind: str = "trees",
        versions: int = 1,
        others: Mapping[int, str] | None = None,
        **serve: Any,
    ) -> Iterator[Ours]:
        """Our server with some versions of a model at hand, and with other models by number."""
        models = {number: self.fitted(kind, number) for number in range(1, versions + 1)}
        models |= {number: self.fitted(other) for number, other in (others or {}).items()}
        with ours(self.folder / f"ours-{time.time_ns()}", models, **serve) as found:
            yield found

    def measure(
        self,
        running: Running,
        fitted: Fitted,
        rows: int,
        connections: int,
        rate: float | None = None,
    ) -> Any:
        """Measure a server, and say how it went."""
        size = self.size
        found = measure(
            running,
            fitted,
            rows=rows,
            connections=connections,
            seconds=size.seconds,
            warm=size.warm,
            rate=rate,
        )
        self.say(
            f"  {running.name}, {connections} x {rows} rows: {found['per_s']:,.0f}/s, "
            f"p99 {found['p99_ms'] or 0:.1f} ms, {found['cpu_us']:,.0f} us of CPU, "
            f"others {found['foreign']:.0%}"
        )
        return found

    def capacity(self, server: Ours, rows: int = 1) -> float:
        """Requests of so many rows that it answers in a second."""
        most = self.size.connections[-1]
        found = self.measure(server.running(), server.fitted[1], rows, most)
        return float(found["per_s"])


_fitted: dict[tuple[Path, str, int], Fitted] = {}


def peers(place: Place) -> dict[str, Any]:
    """All servers with the trees: one row and a hundred, few connections and many."""
    return _side_by_side(place, "trees", (1, MANY), place.size.connections)


def linear(place: Place) -> dict[str, Any]:
    """All servers with a linear model, one row."""
    return _side_by_side(place, "linear", (1,), place.size.connections[1:2])


def in_process(place: Place) -> dict[str, Any]:
    """What a row costs without a server, ours and the pipeline."""
    kinds = ("trees", "linear")
    return {"lines": [one for kind in kinds for one in compare(place.fitted(kind), place.size)]}


def capture(place: Place) -> dict[str, Any]:
    """What it costs to keep every answer."""
    runs = []
    most = place.size.connections[-1]
    with place.ours() as server:
        for turn in range(place.size.turns):
            for share in (0.0, 1.0) if turn % 2 == 0 else (1.0, 0.0):
                server.change(capture=share)
                server.deploy(champion=(1, 1.0))
                running = server.running(f"{share:.0%} captured")
                runs.append(
                    place.measure(running, place.fitted("trees"), 1, most) | {"share": share}
                )
    return {"runs": runs}


def swaps(place: Place) -> dict[str, Any]:
    """Another version twenty times, then a canary and the way back, under half of the load."""
    size = place.size
    with place.ours(versions=3) as server:
        rate = place.capacity(server) / 2
        asking = _ask(server, Phase(600, rate))
        try:
            time.sleep(2)
            seconds = []
            for number in range(size.swaps):
                began = time.monotonic()
                server.deploy(champion=(2 - number % 2, 1.0))
                seconds.append(time.monotonic() - began)
            for weight in (0.05, 0.25):
                server.deploy(champion=(1, 1 - weight), challenger=(3, weight))
                time.sleep(2)
            server.deploy(champion=(3, 1.0))
            time.sleep(2)
            asked, began = time.time(), time.monotonic()
            server.deploy(champion=(1, 1.0))
            back = time.monotonic() - began
            time.sleep(2)
            found = asking.end()
        finally:
            asking.kill()
    last = found["marks"]["3"]["last"]
    place.say(f"  {found['errors']} failed, {found['stalled']} stalled, back in {back:.1f} s")
    return found | {
        "rate": rate,
        "swap_seconds": seconds,
        "rollback_s": back,
        "last_answer_s": last - asked,
    }


def kill(place: Place) -> dict[str, Any]:
    """One of two replicas is killed, under half of the load."""
    kills = []
    with place.ours(replicas={"min": 2, "max": 2}) as server:
        rate = place.capacity(server) / 2
        for _ in range(place.size.kills):
            asking = _ask(server, Phase(600, rate), retry=True)
            try:
                time.sleep(2)
                before = server.replicas()
                began = time.monotonic()
                os.kill(next(iter(before.values())), signal.SIGKILL)
                _wait_for(server, before)
                full = time.monotonic() - began
                time.sleep(2)
                found = asking.end()
            finally:
                asking.kill()
            place.say(f"  {found['errors']} failed, full again after {full:.1f} s")
            kills.append(found | {"full_s": full})
    return {"rate": rate, "kills": kills}


def overload(place: Place) -> dict[str, Any]:
    """Three times what it can do, then half of it."""
    size = place.size
    with place.ours() as server:
        capacity = place.capacity(server)
        most = size.connections[-1]
        asked = load(server.running(), server.fitted[1], Phase(size.offered_s), connections=most)
        full = {"connections": most, "by_second": Asking(asked).found()["by_second"]}
        calm = Phase(size.calm_s, capacity / 2)
        storm = Phase(size.overload_s, 3 * capacity)
        wanted = load(server.running(), server.fitted[1], calm, storm, calm, connections=size.many)
        found = Asking(replace(wanted, newest_first=True)).found()
    place.say(f"  {found['statuses']}, {found['errors']} failed")
    declared = {"calm_s": size.calm_s, "overload_s": size.overload_s}
    return found | declared | {"capacity": capacity, "full": full}


def _side_by_side(
    place: Place, kind: str, rows: tuple[int, ...], connections: tuple[int, ...]
) -> dict[str, Any]:
    fitted = place.fitted(kind)
    runs, failed = [], {}
    for _ in range(place.size.rounds):
        for name, start in {"bare uvicorn": bare, **PEERS}.items():
            try:
                runs += _cells(place, start(fitted), fitted, rows, connections)
            except BenchmarkError as err:  # one that does not start must not end the others
                failed[name] = str(err)[-600:]
                place.say(f"  {name} failed: {str(err)[:200]}")
        with place.ours(kind) as server:
            runs += _cells_of_ours(place, server, fitted, rows, connections)
    return {"runs": runs, "failed": failed}


def _cells(
    place: Place,
    starting: AbstractContextManager[Running],
    fitted: Fitted,
    rows: tuple[int, ...],
    connections: tuple[int, ...],
) -> list[dict[str, Any]]:
    with starting as running:
        running.check(fitted)
        return [place.measure(running, fitted, many, c) for many in rows for c in connections]


def _cells_of_ours(
    place: Place,
    server: Ours,
    fitted: Fitted,
    rows: tuple[int, ...],
    connections: tuple[int, ...],
) -> list[dict[str, Any]]:
    """As it is declared by default; then one row again where nothing is captured."""
    running = server.running()
    running.check(fitted)
    runs = []
    for many in rows:
        for c in connections:
            found = place.measure(running, fitted, many, c)
            replicas = sum(
                psutil.Process(pid).memory_full_info().pss for pid in server.replicas().values()
            )
            runs.append(found | {"replica_bytes": replicas})
    server.change(capture=0.0)
    server.deploy(champion=(1, 1.0))
    other = replace(running, name=UNCAPTURED)
    return [*runs, *(place.measure(other, fitted, 1, c) for c in connections)]


def _ask(server: Ours, phase: Phase, *, retry: bool = False) -> Asking:
    wanted = load(server.running(), server.fitted[1], phase, connections=32)
    return Asking(replace(wanted, retry=retry, marker=_MARKER))


def _wait_for(server: Ours, before: dict[str, int]) -> None:
    """Wait until as many replicas run as before, without the one that was killed."""
    until = time.monotonic() + _FULL_LIMIT_S
    killed = next(iter(before))
    while time.monotonic() < until:
        now = server.replicas()
        if killed not in now and len(now) >= len(before):
            return
        time.sleep(_POLL_S)
    message = f"a replica was not replaced within {_FULL_LIMIT_S:g} s"
    raise BenchmarkError(message)


PARTS: dict[str, Callable[[Place], dict[str, Any]]] = {
    "peers": peers,
    "in-process": in_process,
    "capture": capture,
    "swaps": swaps,
    "kill": kill,
    "overload": overload,
    "refused": refused,
    "large": large,
    "burst": burst,
    "steps": steps,
    "shadow": shadow,
    "batching": batching,
    "linear": linear,
}
