"""Whether retention removed the rows that a version has learnt from, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.plan import Journal
from holdtrue.registry import Registry
from holdtrue.store import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from pathlib import Path

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


def list_pruned(store: Store, system: str, numbers: Iterable[int], at: datetime) -> None:
    """Put versions on the list of those whose rows are removed.

    Args:
        store: Of the project.
        system: Name of the system.
        numbers: The versions.
        at: When.
    """
    listed = {str(number): at.isoformat() for number in numbers}
    if listed:
        write_json(_list(store, system), _read(store, system) | listed)


def unlist(store: Store, system: str) -> None:
    """Take versions off that list whose rows the last training has read, and made, again."""
    listed = _read(store, system)
    used = Journal(store, system).state().get("steps", {}).items()
    back = {
        str(version.number)
        for version in (Registry(store).versions(system) if listed else ())
        if str(version.number) in listed
        and not used.isdisjoint(version.lineage.items())
        and pruned_at(store, version) is None
    }
    if back:
        write_json(_list(store, system), {n: at for n, at in listed.items() if n not in back})


def listed_as_pruned(store: Store, system: str) -> dict[int, str]:
    """When rows of versions were removed, by version, at a glance: `pruned_at` reads their records.

    Rows that another system has read again since are listed all the same.
    """
    return {int(number): at for number, at in _read(store, system).items()}


def _list(store: Store, system: str) -> Path:
    return store.path("systems", f"{system}.pruned.json")


def _read(store: Store, system: str) -> dict[str, str]:
    try:
        return read_json(_list(store, system)) or {}
    except ValueError:  # damaged: the records still know
        return {}
