"""What a store knows of its registry where that is not its own file."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from pydantic import ValidationError

from holdtrue.errors import FROM_BACKUP, ConfigError
from holdtrue.references import Reference
from holdtrue.store import locked, read_json, write_json

if TYPE_CHECKING:
    from holdtrue.store import Store

MARKER = "registry.json"


class Marker(Reference):
    """Who a store is, and where its registry is."""

    store: str
    """Identifier, by which a database knows whose registry it holds."""
    database: str | None = None
    """The database, without a password; None where it is the store's file, or nowhere yet."""


def read_marker(store: Store) -> Marker | None:
    """What the store knows; None where it never had to.

    Raises:
        ConfigError: It is damaged.
    """
    path = store.path(MARKER)
    try:
        content = read_json(path)
        return None if content is None else Marker.model_validate(content)
    except (ValidationError, ValueError):
        message = f"{path}, which says where the registry is, is damaged"
        raise ConfigError(message, hint=f"restore it {FROM_BACKUP}") from None


def identify(store: Store) -> str:
    """The store's identifier; of several who ask for the first time, all get the same."""
    if (marker := read_marker(store)) is not None:
        return marker.store
    with locked(store.path("registry.lock")):
        marker = read_marker(store) or Marker(store=uuid4().hex)
        write_marker(store, marker)
    return marker.store


def remember(store: Store, database: str | None) -> None:
    """Say in the store where its registry is from now on."""
    write_marker(store, Marker(store=identify(store), database=database))


def write_marker(store: Store, marker: Marker) -> None:
    """Have a store know this."""
    write_json(store.path(MARKER), marker.model_dump())
