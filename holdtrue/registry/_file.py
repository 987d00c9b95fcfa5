"""A registry in a file of SQLite, in the store."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event
from sqlalchemy.exc import DBAPIError

from holdtrue.errors import FROM_BACKUP, RegistryError
from holdtrue.registry._database import BUSY_TIMEOUT_S, Database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine


class File(Database):
    """A file with the tables of the registry.

    Args:
        path: Of the file; made when first written to.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._opened: Engine | None = None

    @property
    def exists(self) -> bool:
        return self._path.exists()

    def check(self) -> None:
        if self.exists:
            with self.transaction(write=False):
                pass

    def close(self) -> None:
        if self._opened is not None:
            self._opened.dispose()
            self._opened, self._ready = None, False

    @contextmanager
    def _begun(self, *, write: bool) -> Iterator[Connection]:
        del write  # who only reads waits for writers, too
        if self._opened is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            arguments = {"timeout": BUSY_TIMEOUT_S}
            self._opened = create_engine(f"sqlite:///{self._path}", connect_args=arguments)
            event.listen(self._opened, "connect", _no_implicit_begin)
            event.listen(self._opened, "begin", _begin_immediate)
        with self._opened.begin() as connection:
            yield connection

    def _claim(self, connection: Connection) -> None:
        """Nothing: what lies in a store is the store's."""

    def _unusable(self, err: Exception) -> RegistryError:
        why = err.orig if isinstance(err, DBAPIError) else err
        hint = f"see that its folder can be written, or restore the file {FROM_BACKUP}"
        if "full" in str(why):
            hint = "make room, and run the same command again"
        return RegistryError(f"the registry {self.name} cannot be used: {why}", hint=hint)


def _no_implicit_begin(connection: Any, _record: Any) -> None:
    # pysqlite begins transactions late and by itself; we begin them, at once and for writing.
    connection.isolation_level = None


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
