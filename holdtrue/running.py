"""What runs now: the training, also one that was killed on its way, and a look."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from holdtrue.references import Reference
from holdtrue.store import is_locked

if TYPE_CHECKING:
    from pathlib import Path

    from holdtrue.store import Store


class Training(Reference):
    """A training that has begun, and has not ended."""

    began: datetime
    step: str | None
    """What it is or was at; None before the first step that was not done already."""
    runs: bool
    """Whether its process is still there."""

    def __str__(self) -> str:
        began, at = f"{self.began:%Y-%m-%d %H:%M} UTC", self.step
        if self.runs:
            return f"running since {began}" + (f", at {at}" if at else "")
        did_not = f"did not end (at {at})" if at else "did not end"
        return f"began {began}, {did_not}: its process is gone; the next one goes on from there"


def training_lock(store: Store, system: str) -> Path:
    """The file that a training of a system holds alone, and that is gone when it has ended."""
    return store.path("systems", f"{system}.lock")


def look_lock(store: Store, system: str) -> Path:
    """The file that a look of the monitor holds while it runs."""
    return store.path("systems", f"{system}.monitor.lock")


def held_since(lock: Path) -> datetime | None:
    """Since when a process holds a file by `alone`; None where none does."""
    try:
        if is_locked(lock):
            return datetime.fromisoformat(lock.read_text().splitlines()[0])
    except (FileNotFoundError, ValueError, IndexError):  # it begins or ends just now
        pass
    return None


def began_step(store: Store, system: str, step: str) -> None:
    """Say which step the training that runs is at; does nothing where none runs."""
    with suppress(FileNotFoundError), training_lock(store, system).open("r+") as file:
        file.seek(0, os.SEEK_END)
        file.write(f"{step}\n")


def training_of(store: Store, system: str) -> Training | None:
    """The training that runs, or whose process was killed; None where the last one has ended."""
    lock = training_lock(store, system)
    try:
        runs = is_locked(lock)
        began, *steps = lock.read_text().splitlines()
        return Training(
            began=datetime.fromisoformat(began), step=steps[-1] if steps else None, runs=runs
        )
    except (FileNotFoundError, ValueError):  # it has just begun, and has written nothing yet
        return None
