"""Flights sent to the endpoint as HTTP requests, in order of time."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

from holdtrue.access import own_key
from holdtrue.data import as_frame, kind_of
from holdtrue.errors import HoldtrueError
from holdtrue.plan import read_rows
from holdtrue.serving import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import pandas as pd

    from holdtrue.progress import Reporter
    from holdtrue.system import System


# Pause between two requests that are sent beside something else, so that some meet the swap.
PAUSE_S = 0.5


class Replay:
    """Sends the rows of a system's source to its endpoint, one request for each hour of event time.

    Args:
        system: A served system.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._endpoint = Endpoint(system.declaration.endpoint, key=own_key(system.store))
        self._sent_until: datetime | None = None
        self._hurry = threading.Event()
        self.requests = 0
        self.rows = 0
        self.failures: list[str] = []
        self.slowest_s = 0.0
        self.versions: dict[int, int] = {}
        """Rows answered, by version."""

    def close(self) -> None:
        """Close the connection to the endpoint."""
        self._endpoint.close()

    def send(self, start: datetime, end: datetime, reporter: Reporter | None = None) -> None:
        """Send the rows with event time in [start, end), without those that were sent already."""
        if self._sent_until is not None:
            start = max(start, self._sent_until)
        if start >= end:
            return
        hours = list(self._hours(start, end))
        if reporter is None:
            self._send_all(hours, lambda *_: self._hurry.wait(PAUSE_S))
        else:
            with reporter.step("replay") as progress:
                self._send_all(hours, progress)
        self._sent_until = end

    @contextmanager
    def in_background(self, start: datetime, end: datetime) -> Iterator[None]:
        """Send rows slowly while something else goes on; the rest at its end, at full speed."""
        thread = threading.Thread(target=self.send, args=(start, end), name="replay")
        self._hurry.clear()
        thread.start()
        try:
            yield
        finally:
            self._hurry.set()
            thread.join()

    def _send_all(self, hours: list[list[dict[str, Any]]], progress: Any) -> None:
        for number, rows in enumerate(hours):
            self._send_one(rows)
            progress(number + 1, len(hours), f"{self.rows:,} flights, {len(self.failures)} failed")

    def _send_one(self, rows: list[dict[str, Any]]) -> None:
        started = perf_counter()
        self.requests += 1
        try:
            answer = self._endpoint.predict(rows)
        except HoldtrueError as err:
            self.failures.append(err.message)
            return
        self.slowest_s = max(self.slowest_s, perf_counter() - started)
        self.rows += len(rows)
        version = int(answer["version"])
        self.versions[version] = self.versions.get(version, 0) + len(rows)

    def _hours(self, start: datetime, end: datetime) -> Iterator[list[dict[str, Any]]]:
        data = self._system.declaration.data
        table = read_rows(self._system.context(as_of=end), start, end)
        names = [*self._features(), *data.key, str(data.time)]
        frame = as_frame(
            table, {name: kind_of(table.schema.field(name).type) or "number" for name in names}
        )
        for _, hour in frame.groupby(frame[str(data.time)].dt.floor("h"), sort=True):
            yield records(hour)

    def _features(self) -> list[str]:
        declared = self._system.declaration.features
        return [*declared.numeric, *declared.categorical]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON-able records; missing is None."""
    content: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", date_format="iso"))
    return content
