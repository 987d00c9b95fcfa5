"""Rows that a database gives for a query, by SQLAlchemy."""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
from contextlib import closing, contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from holdtrue.databases import (
    AMBIGUOUS,
    AMBIGUOUS_HINT,
    CONNECT_TIMEOUT_S,
    is_ambiguous,
    package_of,
    said,
)
from holdtrue.errors import ConfigError, DataError, Key, NoSourceError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    from sqlalchemy import Connection, Engine

    from holdtrue.declaration import Database

# Rows that are in memory as Python objects at a time.
_URL: Key = ("data", "source", "database", "url")
_QUERY: Key = ("data", "source", "database", "query")
_ROWS = 50_000
_FIRST, _LAST = dt.datetime(1, 1, 1, tzinfo=dt.UTC), dt.datetime(9999, 12, 31, tzinfo=dt.UTC)
# Said at the start of the transaction: the zone in which a database reads times that have none,
# and that what may follow the transaction changes nothing either.
_SETTINGS = {
    "postgresql": (
        "SET TIME ZONE 'UTC'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    ),
    "mysql": ("SET time_zone = '+00:00'",),
}
# Drivers of PostgreSQL that take the arguments of its own library.
_LIBPQ = {"psycopg2", "psycopg"}
_BUSY = re.compile("locked|busy")


def read_database(
    source: Database,
    name: str,
    project: Path,
    start: dt.datetime | None,
    end: dt.datetime | None,
) -> pa.Table:
    """Put the query to the database; nothing is changed there.

    Args:
        source: URL and query.
        name: Of the database, for messages.
        project: Folder that relative paths of SQLite start from.
        start: First moment of the window; the first there is where left out.
        end: End of the window; the last there is where left out.

    Raises:
        ConfigError: The URL is none, or its driver is not installed.
        NoSourceError: There is no such file of SQLite.
        SourceError: The database does not answer.
        DataError: It refuses the query, or gives values that no table holds.
    """
    import pyarrow as pa
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    with _connected(source, name, project) as connection:
        query = text(source.query)
        # Other databases keep times without a zone, and compare them as they are.
        zoned = connection.dialect.name == "postgresql"
        window = {"start": start or _FIRST, "end": end or _LAST}
        named = {
            key: moment if zoned else moment.replace(tzinfo=None)
            for key, moment in window.items()
            if key in query.compile().params
        }
        try:
            # Closed whatever happens: half read, it would go on locking a file of SQLite.
            with closing(connection.execute(query, named)) as found:
                names = list(found.keys())
                parts = [_part(rows, names, name) for rows in found.partitions(_ROWS)]
        except SQLAlchemyError as err:
            if getattr(err, "connection_invalidated", False):
                raise _silent(source, name, err) from None
            if connection.dialect.name == "sqlite" and _BUSY.search(str(err)):
                raise _silent(source, name, err) from None
            raise _refused(source, name, err) from None
        except (ValueError, OverflowError) as err:  # a date before the year 1, say
            raise _refused(source, name, err) from None
    if not parts or len({*names}) < len(names):  # which is refused, as for every source
        return pa.Table.from_arrays([pa.nulls(0)] * len(names), names)
    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as err:
        message = f"{name}: a column mixes kinds of values: {err}"
        raise DataError(message, hint="CAST it in the query") from err


def _refused(source: Database, name: str, err: Exception) -> DataError:
    from sqlalchemy.exc import ResourceClosedError

    message = f"{name} refuses the query: {said(source.url, err)}"
    if isinstance(err, ResourceClosedError):
        message = f"{name} gives no table for the query: it is no SELECT"
    hint = None
    if "bind parameter" in message:
        hint = "there are :start and :end, and a colon that is no parameter is written \\:"
    return DataError(message, hint=hint, key=_QUERY)


def check_database(source: Database, name: str, project: Path) -> None:
    """Refuse a database that does not answer; the query is not put to it.

    Raises:
        ConfigError: As `read_database`.
        NoSourceError: As `read_database`.
        SourceError: As `read_database`.
    """
    with _connected(source, name, project):
        pass


@contextmanager
def _connected(source: Database, name: str, project: Path) -> Iterator[Connection]:
    """A connection whose transaction is rolled back at its end."""
    from sqlalchemy.exc import SQLAlchemyError

    engine = _engine(source, name, project)
    try:
        try:
            connection = engine.connect()
            if engine.dialect.name == "postgresql":
                connection = connection.execution_options(postgresql_readonly=True)
            for setting in _SETTINGS.get(engine.dialect.name, ()):
                connection.exec_driver_sql(setting)
            connection = connection.execution_options(stream_results=True)
        except (SQLAlchemyError, TypeError) as err:
            raise _silent(source, name, err) from None
        with connection:
            yield connection
    finally:
        engine.dispose()


def _engine(source: Database, name: str, project: Path) -> Engine:
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError
    from sqlalchemy.pool import NullPool

    try:
        url = make_url(source.url)
        backend = url.get_backend_name()
        if is_ambiguous(source.url):
            raise ConfigError(AMBIGUOUS, hint=AMBIGUOUS_HINT, key=_URL)
        if backend == "sqlite":
            path = project / (url.database or "")
            if not path.is_file():
                message = f"{path} does not exist"
                raise NoSourceError(message, key=_URL)
            return create_engine("sqlite://", poolclass=NullPool, creator=lambda: _opened(path))
        arguments: dict[str, Any] = {}
        takes = backend == "postgresql" and url.get_driver_name() in _LIBPQ
        if takes and "connect_timeout" not in url.query:
            arguments = {"connect_timeout": CONNECT_TIMEOUT_S}
        return create_engine(url, poolclass=NullPool, connect_args=arguments)
    except (ArgumentError, NoSuchModuleError, ValueError):
        message = f"{name} is no URL that SQLAlchemy knows"
        hint = "such as postgresql://user:password@host:5432/name or sqlite:///orders.db"
        if source.url.startswith("postgres:"):
            hint = "write postgresql:// in place of postgres://"
        raise ConfigError(message, hint=hint, key=_URL) from None
    except ModuleNotFoundError as err:
        message = f"{name} needs the package {err.name}"
        hint = f"install it, such as by `pip install {package_of(err)}`"
        raise ConfigError(message, hint=hint, key=_URL) from None


def _opened(path: Path) -> sqlite3.Connection:
    """A file of SQLite, only to be read; a query makes no other file either."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)

    def allowed(action: int, *_: object) -> int:
        return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_ATTACH else sqlite3.SQLITE_OK

    connection.set_authorizer(allowed)
    return connection


def _silent(source: Database, name: str, err: Exception) -> SourceError:
    return SourceError(f"{name} does not answer: {said(source.url, err)}", key=_URL)


def _part(rows: Sequence[Sequence[Any]], names: list[str], name: str) -> pa.Table:
    import pyarrow as pa

    columns = zip(*rows, strict=True)
    arrays = [
        _array(values, f"{name}: column {column}")
        for column, values in zip(names, columns, strict=True)
    ]
    return pa.Table.from_arrays(arrays, names)


def _array(values: Sequence[Any], place: str) -> pa.Array:
    import pyarrow as pa

    first = next((value for value in values if value is not None), None)
    if isinstance(first, Decimal):
        values = [None if value is None else float(value) for value in values]
    elif isinstance(first, UUID | dt.time):
        values = [None if value is None else str(value) for value in values]
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as err:
        kinds = sorted({type(value).__name__ for value in values if value is not None})
        message = f"{place} has values that no column holds together ({', '.join(kinds)}): {err}"
        raise DataError(message, hint="CAST it in the query, or leave it out") from err
