"""Where the registry of a store is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from holdtrue.errors import ConfigError
from holdtrue.registry._file import File
from holdtrue.registry._marker import read_marker
from holdtrue.registry._server import Server
from holdtrue.store import REGISTRY_VARIABLE

if TYPE_CHECKING:
    from holdtrue.registry._database import Database
    from holdtrue.store import Store


def file_of(store: Store) -> File:
    """The registry in the store's own file."""
    return File(store.path("registry.db"))


def server_of(store: Store) -> Server | None:
    """The registry in the database that the environment names; None where it names none.

    Raises:
        ConfigError: It is no URL of PostgreSQL, or there is no driver.
    """
    url = os.environ.get(REGISTRY_VARIABLE)
    return Server(url, store) if url and not store.lone else None


def database_of(store: Store) -> Database:
    """What holds the registry of a store.

    Raises:
        ConfigError: The environment and the store do not say the same.
    """
    file, server, marker = file_of(store), server_of(store), read_marker(store)
    known = None if marker is None else marker.database
    if server is None:
        if known is not None and not store.lone:
            message = (
                f"the registry of {store.root} is in {known}, and {REGISTRY_VARIABLE} is not set"
            )
            hint = "set it to that address, with the password, wherever something of it runs"
            raise ConfigError(message, hint=hint)
        return file
    if known is None and file.exists:
        message = (
            f"the registry of {store.root} is its file, and {REGISTRY_VARIABLE} names {server.name}"
        )
        hint = (
            "`holdtrue registry move FILE --to postgresql` takes it there; "
            f"without {REGISTRY_VARIABLE} it stays where it is"
        )
        raise ConfigError(message, hint=hint)
    return server
