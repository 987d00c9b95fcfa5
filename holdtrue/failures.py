"""What runs by itself: whether it worked the last time, and when it did."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, get_args

from pydantic import ValidationError

from holdtrue.references import Reference
from holdtrue.store import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from holdtrue.store import Store

What = Literal["training", "monitor", "batch", "backup", "stack"]
"""The last training, look of the monitor, batch and backup, and the processes of `holdtrue up`."""


class Failure(Reference):
    """That something did not work the last time."""

    at: datetime
    reason: str


def failed(store: Store, system: str, what: What, reason: str) -> None:
    """Remember that something did not work, and why."""
    failure = Failure(at=datetime.now(UTC), reason=reason)
    write_json(_file(store, system, what), failure.model_dump(mode="json"))


def worked(store: Store, system: str, what: What) -> None:
    """Forget that something did not work: now it does."""
    _file(store, system, what).unlink(missing_ok=True)
    write_json(_worked_file(store, system, what), {"at": datetime.now(UTC).isoformat()})


def last_worked(store: Store, system: str, what: What) -> datetime | None:
    """When something worked last, by the clock; None where it never did, or that is not known."""
    try:
        content = read_json(_worked_file(store, system, what))
        return None if content is None else datetime.fromisoformat(content["at"])
    except (KeyError, TypeError, ValueError):  # damaged
        return None


def failures_of(store: Store, system: str) -> dict[What, Failure]:
    """What did not work the last time."""
    found: dict[What, Failure] = {}
    for what in get_args(What):
        with suppress(ValueError, ValidationError):  # a damaged file says nothing
            content = read_json(_file(store, system, what))
            if content is not None:
                found[what] = Failure.model_validate(content)
    return found


def _file(store: Store, system: str, what: What) -> Path:
    """One for each, since a look and a training may end at the same time."""
    return store.path("systems", f"{system}.{what}-failed.json")


def _worked_file(store: Store, system: str, what: What) -> Path:
    return store.path("systems", f"{system}.{what}-worked.json")
