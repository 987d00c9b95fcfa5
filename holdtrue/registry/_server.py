"""A registry in a database of PostgreSQL, for those who share a store."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import URL, create_engine, false, inspect, make_url, select, update
from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.pool import NullPool

from holdtrue.databases import (
    AMBIGUOUS,
    AMBIGUOUS_HINT,
    CONNECT_TIMEOUT_S,
    is_ambiguous,
    package_of,
    said,
)
from holdtrue.errors import ConfigError, HoldtrueError, RegistryAwayError, RegistryError
from holdtrue.registry import _schema as t
from holdtrue.registry._database import BUSY_TIMEOUT_S, Database, Owner, owner_of, set_owner
from holdtrue.registry._marker import identify, read_marker, remember
from holdtrue.store import REGISTRY_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from holdtrue.store import Store

_SHAPE = "such as postgresql://user:password@host:5432/name"
# One lock for every registry of a database: writes are few, and take milliseconds.
_LOCK = 0x686F6C64
# Of one statement, and between two of a transaction: a machine that vanishes in the middle of one
# must not keep the others waiting.
_LONGEST_S = 60
_LIMITS = {
    "lock_timeout": BUSY_TIMEOUT_S,
    "statement_timeout": _LONGEST_S,
    "idle_in_transaction_session_timeout": _LONGEST_S,
}
# So that a server that vanishes is noticed, too.
_CONNECTION = {
    "application_name": "holdtrue",
    "client_encoding": "utf8",
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives_idle": 10,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
# Parts of a URL's query that tell databases apart and hold no password.
_TELLING = {"host", "port", "options"}
_NO_RIGHT = "42501"


class Server(Database):
    """A database with the tables of the registry of one store.

    Args:
        url: With the password, where one is needed. It is never shown.
        store: That the registry is of.

    Raises:
        ConfigError: It is no URL of PostgreSQL, or there is no driver.
    """

    def __init__(self, url: str, store: Store) -> None:
        self._url = url
        self._engine = _engine(url)
        self._store = store
        super().__init__(_name(self._engine.url))

    @property
    def exists(self) -> bool:
        return self._ready or self._look()

    def check(self) -> None:
        there = self._look()
        with suppress(_Tried), self.connected() as connection:
            # A training must not find out at its end that it may not write.
            if there:
                connection.execute(update(t.champions).where(false()).values(reason=""))
            else:
                self.prepare(connection)
            raise _Tried

    def open(self) -> None:
        if self._ready or (self._look() and self._ready):
            return
        identify(self._store)
        super().open()
        remember(self._store, self.name)

    def prepare(self, connection: Connection) -> None:
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
        if encoding != "UTF8":
            message = f"{self.name} keeps text as {encoding}, which cannot hold every name"
            raise ConfigError(message, hint="give a database with the encoding UTF8")
        super().prepare(connection)

    def close(self) -> None:
        self._ready = False

    def _look(self) -> bool:
        """Whether the tables are there, those of now and this store's; makes nothing.

        Raises:
            RegistryError: They are another store's or a newer holdtrue's, or they are gone.
        """
        with self.connected(write=False) as connection:
            found = None
            if inspect(connection).has_table(t.schema_version.name):
                found = connection.execute(select(t.schema_version.c.version)).scalar()
            if found is not None:
                self._check_version(found)
            if found == t.SCHEMA:
                self._check_owner(owner_of(connection))
        marker = read_marker(self._store)
        known = None if marker is None else marker.database
        if found is None and known is not None:
            message = f"{self.name} holds no registry, and that of {self._store.root} is in {known}"
            hint = (
                f"correct {REGISTRY_VARIABLE}, or restore the database from a backup; without "
                f"{self._store.path('registry.json')} an empty registry begins"
            )
            raise RegistryError(message, hint=hint)
        self._ready = found == t.SCHEMA
        if self._ready and known is None:
            remember(self._store, self.name)  # who wrote first was cut short
        return found is not None

    @contextmanager
    def _begun(self, *, write: bool) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            # Whatever the server's default is: who has waited for the lock sees what was written.
            isolation = "READ COMMITTED" if write else "REPEATABLE READ"
            connection.execution_options(isolation_level=isolation, postgresql_readonly=not write)
            with connection.begin():
                limits = (f"set_config('{name}', '{s}s', true)" for name, s in _LIMITS.items())
                connection.exec_driver_sql(f"SELECT {', '.join(limits)}")
                if write:
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
                yield connection

    def _claim(self, connection: Connection) -> None:
        owner = owner_of(connection)
        if owner is None:
            owner = Owner(identify(self._store), str(self._store.root), "live")
            set_owner(connection, owner)
        self._check_owner(owner)

    def _check_owner(self, owner: Owner | None) -> None:
        marker = read_marker(self._store)
        if owner is not None and (marker is None or marker.store != owner.store):
            message = (
                f"{self.name} holds the registry of another store, {owner.root}, "
                f"not that of {self._store.root}"
            )
            hint = (
                "each store needs a database, or a schema, of its own: "
                "postgresql://.../name?options=-csearch_path%3DSCHEMA"
            )
            raise RegistryError(message, hint=hint)
        super()._check_owner(owner)

    def _unusable(self, err: Exception) -> HoldtrueError:
        told = said(self._url, err)
        if isinstance(err, (OperationalError, InterfaceError)):
            message = f"the registry {self.name} does not answer: {told}"
            return RegistryAwayError(
                message, hint=f"see that it runs, and what {REGISTRY_VARIABLE} says"
            )
        hint = f"see what its server and {REGISTRY_VARIABLE} say, or restore it from a backup"
        if getattr(getattr(err, "orig", None), "pgcode", None) == _NO_RIGHT:
            hint = "its user needs the right to make tables, and to read and write them"
        return RegistryError(f"the registry {self.name} cannot be used: {told}", hint=hint)


class _Tried(Exception):  # noqa: N818 - nothing is wrong
    """Undoes what was only tried."""


@cache
def _engine(url: str) -> Engine:
    """What connects to a database; holds no connection, which a long training would find dead.

    Raises:
        ConfigError: It is no URL of PostgreSQL, or there is no driver.
    """
    try:
        known = make_url(url)
        if known.drivername not in ("postgresql", "postgresql+psycopg2") or not known.database:
            raise ArgumentError
        if is_ambiguous(url):
            message = f"{REGISTRY_VARIABLE}: {AMBIGUOUS}"
            raise ConfigError(message, hint=AMBIGUOUS_HINT)
        arguments = {name: value for name, value in _CONNECTION.items() if name not in known.query}
        return create_engine(known, poolclass=NullPool, connect_args=arguments)
    except (ArgumentError, NoSuchModuleError, ValueError):
        message = f"{REGISTRY_VARIABLE} is no URL of a PostgreSQL database"
        raise ConfigError(message, hint=_SHAPE) from None
    except ModuleNotFoundError as err:
        message = f"{REGISTRY_VARIABLE}: the registry in PostgreSQL needs the package {err.name}"
        hint = f"install it: `pip install holdtrue[postgres]`, or `pip install {package_of(err)}`"
        raise ConfigError(message, hint=hint) from None


def _name(url: URL) -> str:
    """What a database is called in messages: its URL without what may be secret."""
    query = {name: value for name, value in url.query.items() if name in _TELLING}
    shown = url.set(drivername="postgresql", query=query)._replace(password=None)
    return shown.render_as_string()
