"""What holds a registry: opened when it is first needed, and written by one at a time."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import delete, insert, inspect, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from holdtrue.errors import RegistryError
from holdtrue.registry import _schema as t

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Row, Select

    from holdtrue.errors import HoldtrueError

# How long a writer waits for another one, in seconds.
BUSY_TIMEOUT_S = 30


@dataclass(frozen=True)
class Owner:
    """Whose registry it is."""

    store: str
    """Identifier of the store."""
    root: str
    """Its folder, as it was called where this was written."""
    state: Literal["live", "filling", "moved"]
    """``filling``: a move to here has not ended; ``moved``: it is elsewhere now."""
    place: str | None = None
    """Where it was moved to."""


class Database(ABC):
    """Tables of the registry, in a file or on a server.

    Args:
        name: For messages, without a password.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._ready = False

    @property
    @abstractmethod
    def exists(self) -> bool:
        """Whether anything was ever written.

        Raises:
            HoldtrueError: That cannot be found out, or it is the registry of another store.
        """

    @abstractmethod
    def check(self) -> None:
        """Refuse what cannot be read and written, and make nothing; raises as `exists`."""

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[Connection]:
        """All that is done in it, or nothing.

        Args:
            write: Whether anything is to be changed; then no other writer comes between.

        Raises:
            IntegrityError: What is written cannot be beside what is there.
            RegistryAwayError: The server does not answer.
            RegistryError: It cannot be used, or holds what is another store's or was moved.
        """
        self.open()
        with self.connected(write=write) as connection:
            self._check_owner(owner_of(connection))
            yield connection

    @contextmanager
    def connected(self, *, write: bool = True) -> Iterator[Connection]:
        """As `transaction`, whosever it is and also where there are no tables yet."""
        try:
            with self._begun(write=write) as connection:
                yield connection
        except IntegrityError:
            raise
        except (DBAPIError, sqlite3.Error, OSError) as err:
            raise self._unusable(err) from None

    def rows(self, wanted: Select[Any]) -> Sequence[Row[Any]]:
        """What a query finds; nothing where nothing was ever written. Raises as `transaction`."""
        if not self.exists:
            return []
        with self.transaction(write=False) as connection:
            return connection.execute(wanted).all()

    def open(self) -> None:
        """Make the tables where there are none, and add what older ones lack.

        Raises:
            RegistryError: It cannot be used, or a newer holdtrue wrote it.
        """
        if self._ready:
            return
        with self.connected() as connection:
            self.prepare(connection)
            self._claim(connection)
        self._ready = True

    def prepare(self, connection: Connection) -> None:
        """Make the tables, add what older ones lack; refuse those of a newer holdtrue."""
        t.schema_version.create(connection, checkfirst=True)
        found = connection.execute(select(t.schema_version.c.version)).scalar()
        if found is None:
            t.metadata.create_all(connection)
            connection.execute(insert(t.schema_version).values(version=t.SCHEMA))
        elif found < t.SCHEMA:
            # Up to now a newer schema only has more tables, and columns that may be null.
            t.metadata.create_all(connection)
            _add_columns(connection)
            connection.execute(update(t.schema_version).values(version=t.SCHEMA))
        else:
            self._check_version(found)

    @abstractmethod
    def close(self) -> None:
        """Let go of it."""

    @abstractmethod
    @contextmanager
    def _begun(self, *, write: bool) -> Iterator[Connection]:
        """A connection in a transaction; of writers there is one at a time."""

    @abstractmethod
    def _claim(self, connection: Connection) -> None:
        """See that it is the registry of this store, or make it that."""

    @abstractmethod
    def _unusable(self, err: Exception) -> HoldtrueError:
        """What is to be told of an error of the driver."""

    def _check_version(self, found: int) -> None:
        if found > t.SCHEMA:
            message = f"the registry {self.name} was written by a newer holdtrue (schema {found})"
            raise RegistryError(message, hint="upgrade holdtrue")

    def _check_owner(self, owner: Owner | None) -> None:
        """Refuse what is not, or not any more, the registry of this store."""
        if owner is None or owner.state == "live":
            return
        if owner.state == "filling":
            message = f"moving the registry to {self.name} has not ended"
            raise RegistryError(message, hint="run the same `holdtrue registry move` again")
        message = f"the registry was moved from {self.name} to {owner.place}"
        hint = "run the command again; HOLDTRUE_REGISTRY is to name a database, or not to be set"
        raise RegistryError(message, hint=hint)


def owner_of(connection: Connection) -> Owner | None:
    """Whose registry it is; None where that is not said."""
    row = connection.execute(select(t.owners)).first()
    return None if row is None else Owner(row.store, row.root, row.state, row.place)


def set_owner(connection: Connection, owner: Owner) -> None:
    """Say whose registry it is from now on."""
    connection.execute(delete(t.owners))
    values = {"root": owner.root, "state": owner.state, "place": owner.place}
    connection.execute(insert(t.owners).values(store=owner.store, **values))


def _add_columns(connection: Connection) -> None:
    found = inspect(connection)
    quote = connection.dialect.identifier_preparer.quote
    for table in t.metadata.sorted_tables:
        known = {column["name"] for column in found.get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                kind = column.type.compile(connection.dialect)
                connection.exec_driver_sql(
                    f"ALTER TABLE {table.name} ADD COLUMN {quote(column.name)} {kind}"
                )
