"""All that a replica captures: what it answered in one turn of its event loop by one write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from holdtrue.serving._capture import Capture
from holdtrue.serving._record import lines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from holdtrue.serving._asked import Answered, Asked
    from holdtrue.serving._live import Held, Live
    from holdtrue.serving._slate import CaptureSettings

    # A plain tuple, as it is made for each request: one with names takes as long as its line.
    Kept = tuple[Live, Held, Asked, Answered, datetime]


class Captures:
    """The captures of a replica, one for each folder that a slate has named."""

    def __init__(self) -> None:
        self._captures: dict[str, Capture] = {}
        self._later: list[Kept] = []

    def all(self) -> list[Capture]:
        """Those up to now."""
        return [*self._captures.values()]

    @property
    def written(self) -> int:
        """Lines, in all."""
        return sum(capture.written for capture in self.all())

    @property
    def failed(self) -> int:
        """Lines that could not be written."""
        return sum(capture.failed for capture in self.all())

    @property
    def last_error(self) -> str | None:
        """Why, the last time; of the first capture that has failed."""
        return next((c.last_error for c in self.all() if c.last_error), None)

    def of(self, settings: CaptureSettings) -> Capture:
        """The one that a slate declares; in any thread."""
        capture = self._captures.get(settings.folder)
        if capture is None:
            made = Capture(Path(settings.folder), durable=settings.durable)
            capture = self._captures.setdefault(settings.folder, made)
        return capture

    def keep(
        self, live: Live, held: Held, question: Asked, given: Answered, received: datetime
    ) -> None:
        """Write the lines of an answer; in any thread."""
        self._write([(live, held, question, given, received)])

    def keep_later(
        self, live: Live, held: Held, question: Asked, given: Answered, received: datetime
    ) -> None:
        """Have the lines of an answer written by the next `catch_up`; in the event loop.

        They are made there too, one after the other: between other work, which takes their code and
        data out of the caches each time, they cost half as much again.
        """
        self._later.append((live, held, question, given, received))

    def catch_up(self) -> None:
        """Write the lines that are due; in the event loop, before any of the answers is sent."""
        if self._later:
            later, self._later = self._later, []
            self._write(later)

    def _write(self, answers: Sequence[Kept]) -> None:
        capture: Capture | None = None
        made: list[bytes] = []
        for live, held, question, given, received in answers:
            settings = live.slate.capture
            if settings is None:
                continue
            wanted = self.of(settings)
            if wanted is not capture:
                if capture is not None:  # another slate is served since
                    capture.append(made)
                capture, made = wanted, []
            try:
                made += lines(live.slate, held.arm, question, given, received)
            except Exception as err:  # noqa: BLE001 - those of the other answers must be written
                capture.not_made(len(given.ids), err)
        if capture is not None:
            capture.append(made)
