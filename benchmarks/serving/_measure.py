"""One server under one load, and what both take of the machine."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks.serving._process import Asking
from benchmarks.serving.client import Load, Phase
from benchmarks.tuning._load import Meter

if TYPE_CHECKING:
    from benchmarks.serving._model import Fitted
    from benchmarks.serving._peers import Running

HOST = "127.0.0.1"
_SHIFT = 7
_LARGE_REQUESTS = 20


def requests(running: Running, fitted: Fitted, rows: int) -> list[str]:
    """Requests of so many rows each, as the load takes them."""
    pool = fitted.rows
    if rows == 1:
        chosen = [[row] for row in pool]
    else:
        chosen = [
            [pool[(number * _SHIFT + row) % len(pool)] for row in range(rows)]
            for number in range(_LARGE_REQUESTS)
        ]
    return [running.request(each).decode("latin-1") for each in chosen]


def load(
    running: Running, fitted: Fitted, *phases: Phase, rows: int = 1, connections: int = 1
) -> Load:
    """A load for a server."""
    return Load(HOST, running.port, requests(running, fitted, rows), connections, list(phases))


def measure(
    running: Running,
    fitted: Fitted,
    *,
    rows: int,
    connections: int,
    seconds: float,
    warm: float,
    rate: float | None = None,
) -> dict[str, Any]:
    """Measure a server.

    Args:
        running: It answers.
        fitted: Whose rows are asked for.
        rows: Of a request: 1 or more.
        connections: At a time.
        seconds: How long.
        warm: Seconds of the same load before, which do not count.
        rate: Requests a second; left out, each connection asks again as soon as it has its answer.

    Returns:
        What `client.Client.found` returns, with ``per_s`` answers, ``cpu_us`` that all processes
        of the server took for one, ``memory_bytes`` of them (each page divided by the number of
        processes that share it), ``foreign``, the share of the machine that neither the server nor
        the load had, and ``client_share``, of one core, that the load had.
    """
    wanted = load(running, fitted, Phase(warm, rate), rows=rows, connections=connections)
    Asking(wanted).found()
    meter = Meter(running.pid)
    meter.begin()
    try:
        found = Asking(replace(wanted, phases=[Phase(seconds, rate)])).found()
        taken = meter.end()
    finally:
        meter.stop()
    answers = max(1, found["answers"])
    room = (os.cpu_count() or 1) * taken.wall_s
    return {
        **{key: value for key, value in found.items() if key not in {"by_second", "marks"}},
        "name": running.name,
        "rows": rows,
        "connections": connections,
        "per_s": found["answers"] / found["seconds"],
        "cpu_us": 1e6 * taken.own_cpu_s / answers,
        "memory_bytes": taken.peak_bytes,
        "foreign": max(0.0, taken.foreign - found["cpu_s"] / room),
        "client_share": found["cpu_s"] / found["seconds"],
    }
