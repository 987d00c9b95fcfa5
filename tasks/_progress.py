"""How far a step is, in the terminal and as an artifact in the Prefect UI."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from contextvars import copy_context
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, cast

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from holdtrue.progress import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from holdtrue.progress import Progress, Reporter

# The shortest time between two updates, and how long the end of a step waits for the last one.
_EVERY_S = 2.0
_LAST_S = 5.0
_log = logging.getLogger(__name__)


class Shown:
    """Shows steps in the terminal; those that know how long they are also in the Prefect UI.

    Args:
        system: Name of the system; the artifact's key is ``<system>-<step>-progress``.
    """

    def __init__(self, system: str) -> None:
        self._system = system
        self._terminal: Reporter = Terminal()

    @contextmanager
    def step(self, name: str) -> Iterator[Progress]:
        """Show a step for as long as the context lasts."""
        # Prefect takes small letters, digits and dashes.
        artifact = _Artifact(re.sub(r"[^a-z0-9]+", "-", f"{self._system}-{name}-progress"))
        said: list[str] = []
        with self._terminal.step(name) as shown:

            def show(done: int, total: int, words: str) -> None:
                shown(done, total, words)
                if total:
                    said[:] = [words]
                    artifact.show(100 * min(done / total, 1), words)

            try:
                yield show
                # What ends before its last part was counted, as a search that is good enough does.
                for words in said:
                    artifact.show(100, words)
            finally:
                artifact.close()


class _Artifact:
    """A progress artifact that a thread keeps up to date: the step never waits for the server."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._id: UUID | None = None
        self._newest: tuple[float, str] | None = None
        self._lock = Lock()
        self._news, self._ending = Event(), Event()
        self._thread: Thread | None = None

    def show(self, percent: float, words: str) -> None:
        """Show this soon, unless something newer comes first."""
        with self._lock:
            self._newest = (percent, words)
        self._news.set()
        if self._thread is None:
            # The run that the artifact belongs to is known to the context alone.
            context = copy_context()
            self._thread = Thread(
                target=context.run, args=(self._run,), name="progress-artifact", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Show what was said last."""
        self._ending.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join(_LAST_S)

    def _run(self) -> None:
        last = False
        while not last:
            self._news.wait()
            self._news.clear()
            last = self._ending.is_set()
            with self._lock:
                newest, self._newest = self._newest, None
            if newest is not None:
                self._send(*newest)
            self._ending.wait(_EVERY_S)

    def _send(self, percent: float, words: str) -> None:
        try:
            if self._id is None:
                made = create_progress_artifact(percent, key=self._key, description=words)
                self._id = cast("UUID", made)  # in a thread without an event loop it is no promise
            else:
                update_progress_artifact(self._id, percent, description=words)
        except Exception:  # noqa: BLE001 - whatever is wrong with the server, the step goes on
            _log.debug("the progress artifact %s was not updated", self._key, exc_info=True)
