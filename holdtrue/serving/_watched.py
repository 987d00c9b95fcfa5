"""What the monitor saw last, where the replicas find it: `/metrics` tells it."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from holdtrue.references import (
    AttributionCheck,
    ColumnDrift,
    EstimatedQuality,
    PerformanceCheck,
    Reference,
)
from holdtrue.store import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from holdtrue.store import Store

_FILE = "watched.json"


class LastWindow(Reference):
    """The newest window that was compared."""

    end: datetime
    effect_limit: float
    in_a_row: int
    """Suspect windows in a row up to this one."""
    columns: tuple[ColumnDrift, ...]
    """All that were compared."""


class Watched(Reference):
    """What the last look of the monitor left."""

    at: datetime
    version: int
    trained_as_of: datetime
    action: Literal["none", "warn", "retrain", "fix_data"]
    window: LastWindow | None
    """Of an earlier look at the same version, where this one compared none."""
    performance: tuple[PerformanceCheck, ...]
    estimated: tuple[EstimatedQuality, ...] = ()
    """The newest one of a window, and of rows without labels."""
    attribution: AttributionCheck | None = None
    """Of the newest window that was compared."""


def write_watched(store: Store, system: str, seen: Watched) -> None:
    """Leave what was seen for the replicas."""
    write_atomically(_place(store, system), seen.model_dump_json().encode())


def last_watched(store: Store, system: str) -> Watched | None:
    """What the last look left; None where there was none, or its file is damaged."""
    return read_watched(_place(store, system).parent / "stats")


def read_watched(statistics: Path) -> Watched | None:
    """The same, for a replica.

    Args:
        statistics: The folder beside it, in which replicas write what they count.
    """
    with suppress(OSError, ValueError):
        return Watched.model_validate_json((statistics.parent / _FILE).read_bytes())
    return None


def _place(store: Store, system: str) -> Path:
    return store.path("serving", system, _FILE)
