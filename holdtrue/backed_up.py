"""Where the last backup of a store is, and since when: what its status says."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from holdtrue.references import Reference
from holdtrue.store import read_json, write_json

if TYPE_CHECKING:
    from holdtrue.store import Store

LAST = "backed-up.json"
"""The file with it; of no use on another machine."""


class LastBackup(Reference):
    """The last backup of a store that was completed."""

    at: datetime
    target: str
    name: str

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} UTC, to {self.target}"


def last_backup(store: Store) -> LastBackup | None:
    """The last backup of a store; None where there was none, or the note of it is damaged."""
    try:
        return LastBackup.model_validate(read_json(store.path(LAST)))
    except ValueError:
        return None


def note_backup(store: Store, last: LastBackup) -> None:
    """Remember the last backup."""
    write_json(store.path(LAST), last.model_dump(mode="json"))
