"""What a store knows of its registry where that is not its own file."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from pydantic import ValidationError

from holdtrue.errors import ConfigError
from holdtrue.references import Reference
from holdtrue.store import read_json, write_json

if TYPE_CHECKING:
    from holdtrue.store import Store

_FILE = "registry.json"


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
    path = store.path(_FILE)
    try:
        content = read_json(path)
        return None if content is None else Marker.model_validate(content)
    except (ValidationError, ValueError):
        message = f"{path}, which says where the registry is, is damaged"
        raise ConfigError(message, hint="restore it from a backup") from None


def identify(store: Store) -> str:
    """The store's identifier; of several who ask for the first time, all get the same."""
    marker = read_marker(store)
    if marker is None:
        path = store.path(_FILE)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".registry-") as folder:
            made = Path(folder) / _FILE
            write_json(made, Marker(store=uuid4().hex).model_dump())
            with suppress(FileExistsError):
                os.link(made, path)
        marker = read_marker(store)
        assert marker is not None  # noqa: S101 - there is one now, whose ever it is
    return marker.store


def remember(store: Store, database: str | None) -> None:
    """Say in the store where its registry is from now on."""
    write_json(store.path(_FILE), Marker(store=identify(store), database=database).model_dump())
