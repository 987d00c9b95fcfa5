"""Whether retention removed the rows that a version has learnt from, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.plan import Journal

if TYPE_CHECKING:
    from datetime import datetime

    from holdtrue.registry import RegisteredVersion
    from holdtrue.store import Store

# Steps whose files are rows; the earlier one of two here is of fewer versions.
HOLDS_ROWS = ("split", "check", "extract")


def pruned_at(store: Store, version: RegisteredVersion) -> datetime | None:
    """When retention removed rows that a version learnt from; None where all are there."""
    journal = Journal(store, version.system)
    found = (journal.find(step, version.lineage.get(step, "")) for step in HOLDS_ROWS)
    return next((one.pruned for one in found if one and one.pruned), None)


def pruned_note(store: Store, version: RegisteredVersion) -> str | None:
    """Say of a version whose rows were removed when that was, and what is still known of it."""
    at = pruned_at(store, version)
    if at is None:
        return None
    return (
        f"the rows that version {version.number} learnt from were removed by retention on "
        f"{at:%Y-%m-%d %H:%M} UTC; its model, records and reports are kept"
    )
