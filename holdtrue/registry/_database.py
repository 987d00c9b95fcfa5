"""The file of a registry: opened when it is first needed, and written by one at a time."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event, insert, inspect, select, update
from sqlalchemy.exc import DatabaseError, IntegrityError

from holdtrue.errors import RegistryError
from holdtrue.registry import _schema as t

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sqlalchemy import Connection, Engine, Row, Select

# How long a writer waits for another one, in seconds.
_BUSY_TIMEOUT_S = 30


class Database:
    """A file of SQLite with the tables of the registry.

    Args:
        path: Of the file; made when first written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: Engine | None = None

    @property
    def exists(self) -> bool:
        """Whether anything was ever written."""
        return self.path.exists()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All that is done in it, or nothing.

        Raises:
            IntegrityError: What is written cannot be beside what is there.
            RegistryError: The file cannot be used.
        """
        try:
            with self.open().begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except DatabaseError as err:
            raise self._unusable(err.orig) from err

    def rows(self, wanted: Select[Any]) -> Sequence[Row[Any]]:
        """What a query finds; nothing where nothing was ever written.

        Raises:
            RegistryError: The file cannot be used.
        """
        if not self.exists:
            return []
        with self.transaction() as connection:
            return connection.execute(wanted).all()

    def open(self) -> Engine:
        """Make the file where there is none, and in an older one the tables that it lacks.

        Raises:
            RegistryError: It cannot be used, or a newer holdtrue wrote it.
        """
        if self._opened is not None:
            return self._opened
        engine = create_engine(f"sqlite:///{self.path}", connect_args={"timeout": _BUSY_TIMEOUT_S})
        event.listen(engine, "connect", _no_implicit_begin)
        event.listen(engine, "begin", _begin_immediate)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with engine.begin() as connection:
                self._prepare(connection)
        except (OSError, sqlite3.DatabaseError, DatabaseError) as err:
            raise self._unusable(err.orig if isinstance(err, DatabaseError) else err) from err
        self._opened = engine
        return engine

    def close(self) -> None:
        """Let go of the file."""
        if self._opened is not None:
            self._opened.dispose()
            self._opened = None

    def _prepare(self, connection: Connection) -> None:
        """Make the tables of a new file, add what an older one lacks; refuse those of a newer."""
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
        elif found > t.SCHEMA:
            message = f"the registry {self.path} was written by a newer holdtrue (schema {found})"
            raise RegistryError(message, hint="upgrade holdtrue")

    def _unusable(self, why: BaseException | None) -> RegistryError:
        hint = "see that its folder can be written, or restore the file from a backup"
        if "full" in str(why):
            hint = "make room, and run the same command again"
        return RegistryError(f"the registry {self.path} cannot be used: {why}", hint=hint)


def _add_columns(connection: Connection) -> None:
    found = inspect(connection)
    for table in t.metadata.sorted_tables:
        known = {column["name"] for column in found.get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                kind = column.type.compile(connection.dialect)
                connection.exec_driver_sql(
                    f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}"
                )


def _no_implicit_begin(connection: Any, _record: Any) -> None:
    # pysqlite begins transactions late and by itself; we begin them, at once and for writing.
    connection.isolation_level = None


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
