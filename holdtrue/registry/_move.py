"""Take the registry of a store from its file to a database, or back."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal, get_args

from sqlalchemy import column, delete, func, insert, inspect, select, table, type_coerce

from holdtrue.errors import ConfigError, RegistryError
from holdtrue.references import Reference
from holdtrue.registry import _schema as t
from holdtrue.registry._audit import raw
from holdtrue.registry._database import Owner, owner_of, set_owner
from holdtrue.registry._file import File
from holdtrue.registry._marker import Marker, identify, read_marker, remember, write_marker
from holdtrue.registry._place import database_of, file_of, server_of
from holdtrue.store import REGISTRY_VARIABLE, Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sqlalchemy import Connection, Row, Table

    from holdtrue.registry._database import Database

Kind = Literal["postgresql", "sqlite"]
# What is moved; in this order.
_TABLES = [one for one in t.metadata.sorted_tables if one not in (t.schema_version, t.owners)]
_AT_A_TIME = 500


class Moved(Reference):
    """What came of moving a registry."""

    source: str
    """Where it was: the path of a file, or a URL without a password."""
    target: str
    """Where it is."""
    systems: tuple[str, ...]
    versions: int
    rows: int
    """Of all tables."""


def move_registry(store: Store, to: str, *, dry_run: bool = False) -> Moved:
    """Copy the registry of a store to the other kind of place, prove the copy equal, and go there.

    Nobody writes meanwhile, and whoever still has the old place open is refused there afterwards.
    What was moved stays in the old place, as a copy of that moment that nothing reads. A move that
    was killed is finished by the next.

    Args:
        store: Whose registry it is.
        to: ``postgresql``, to the database that HOLDTRUE_REGISTRY names; ``sqlite``, from there to
            the file in the store.
        dry_run: Only say what would be moved.

    Raises:
        ConfigError: There is no such kind, no database is named, or it is there already.
        RegistryAwayError: The database does not answer.
        RegistryError: There is nothing to move, or the new place holds a registry already.
    """
    if to not in get_args(Kind):
        message = f"--to {to}: expected {' or '.join(get_args(Kind))}"
        raise ConfigError(message)
    file, server, marker = file_of(store), server_of(store), read_marker(store)
    if server is None:
        message = f"{REGISTRY_VARIABLE} names no database"
        raise ConfigError(message, hint="such as postgresql://user:password@host:5432/name")
    source, target = (file, server) if to == "postgresql" else (server, file)
    there = marker is not None and marker.database is not None
    if there == (to == "postgresql"):
        message = f"the registry of {store.root} is in {target.name} already"
        raise ConfigError(message)
    if source is file and not file.exists:
        message = f"there is no registry in {source.name} to move"
        raise RegistryError(message, hint=f"the first training makes one in {target.name}")
    try:
        if dry_run:
            with source.connected(write=False) as old:
                return _look(old, source, target, None if marker is None else marker.store)
        moved = _move(store, source, target)
    finally:
        file.close()
    remember(store, target.name if target is server else None)
    return moved


def copy_registry(store: Store, folder: Path) -> bool:
    """Copy a registry that is in a database into files, as they lie in a store that has its own.

    Nobody writes meanwhile.

    Args:
        store: Whose registry it is.
        folder: That gets the files.

    Returns:
        Whether it was copied; not where it is a file of the store, or nowhere yet.

    Raises:
        ConfigError: The environment and the store do not say the same.
        RegistryAwayError: The database does not answer.
        RegistryError: It cannot be used, or is that of another store.
    """
    source = database_of(store)
    if isinstance(source, File) or not source.exists:
        return False
    alone = Store(folder)
    target = file_of(alone)
    try:
        with source.transaction() as old, target.connected() as new:
            target.prepare(new)
            _copy(old, new)
    finally:
        target.close()
    write_marker(alone, Marker(store=identify(store)))
    return True


def _move(store: Store, source: Database, target: Database) -> Moved:
    identity, root = identify(store), str(store.root)
    with source.connected() as old:
        moved = _look(old, source, target, identity)
        source.prepare(old)
        if not _is_gone(owner_of(old)):
            with target.connected() as new:
                target.prepare(new)
                _check_free(new, target, source, identity, gone=False)
                _copy(old, new)
                set_owner(new, Owner(identity, root, "filling"))
            # From here on both refuse, until the move has ended: never do both answer.
            set_owner(old, Owner(identity, root, "moved", target.name))
    with target.connected() as new:
        set_owner(new, Owner(identity, root, "live"))
    return moved


def _look(old: Connection, source: Database, target: Database, identity: str | None) -> Moved:
    """What is to be moved.

    Raises:
        RegistryError: It cannot be, for what there is in either place.
    """
    owner = owner_of(old) if _has_tables(old, t.owners) else None
    # A database is ours where it says so; a file in the store is.
    if not _has_tables(old) or (owner is None and not isinstance(source, File)):
        message = f"there is no registry in {source.name} to move"
        raise RegistryError(
            message, hint=f"restore it from a backup, or correct {REGISTRY_VARIABLE}"
        )
    if owner is not None and owner.store != identity:
        message = f"{source.name} holds the registry of another store, {owner.root}"
        raise RegistryError(message, hint=f"correct {REGISTRY_VARIABLE}")
    if not isinstance(target, File) or target.exists:
        with target.connected(write=False) as new:
            _check_free(new, target, source, identity, gone=_is_gone(owner))
    systems = select(t.versions.c.system).distinct().order_by(t.versions.c.system)
    return Moved(
        source=source.name,
        target=target.name,
        systems=tuple(old.execute(systems).scalars()),
        versions=_count(old, t.versions),
        rows=sum(_count(old, one) for one in _TABLES if _has_tables(old, one)),
    )


def _check_free(
    new: Connection, target: Database, source: Database, identity: str | None, *, gone: bool
) -> None:
    """Refuse a place that holds what must not be lost, or of a move to finish what it lacks."""
    owner = owner_of(new) if _has_tables(new, t.owners) else None
    if owner is not None and owner.store != identity:
        message = f"{target.name} holds the registry of another store, {owner.root}"
        raise RegistryError(message, hint="give each store a database, or a schema, of its own")
    if gone and (owner is None or owner.state == "moved"):
        message = f"{source.name} says that its registry was moved, and {target.name} lacks it"
        raise RegistryError(message, hint="restore either from a backup")
    if gone or (owner is not None and owner.state != "live"):
        return
    versions = _count(new, t.versions) if _has_tables(new, t.versions) else 0
    if owner is not None or versions:
        message = f"{target.name} holds a registry already, with {versions} versions"
        hint = f"where that is the right one, put {source.name} aside; else its tables, holdtrue_*"
        raise RegistryError(message, hint=hint)


def _copy(old: Connection, new: Connection) -> None:
    """Replace all rows, and prove that they are those of the other place.

    Raises:
        RegistryError: They are not.
    """
    for one in _TABLES:
        new.execute(delete(one))
        # As text: what is written is what was read, to the last character.
        rows_of = table(one.name, *(column(c.name, raw(c)) for c in one.columns))
        for rows in _rows(old, one):
            new.execute(insert(rows_of), [row._asdict() for row in rows])
        if _digest(old, one) != _digest(new, one):
            message = f"the rows of {one.name} are others after they were moved; nothing is changed"
            raise RegistryError(message, hint="run the same command again")
        if new.dialect.name == "postgresql" and "id" in one.columns:
            # It counts by itself: from what was written on.
            serial = func.pg_get_serial_sequence(one.name, "id")
            highest = func.max(one.columns["id"])
            new.execute(select(func.setval(serial, highest)).having(highest.is_not(None)))


def _rows(connection: Connection, one: Table) -> Iterator[Sequence[Row[Any]]]:
    """The rows of a table by their key, some at a time, with JSON as it is written."""
    columns = [type_coerce(c, raw(c)).label(c.name) for c in one.columns]
    wanted = select(*columns).order_by(*one.primary_key.columns)
    found = connection.execute(wanted.execution_options(yield_per=_AT_A_TIME))
    yield from found.partitions()


def _digest(connection: Connection, one: Table) -> str:
    digest = hashlib.sha256()
    for rows in _rows(connection, one):
        digest.update(repr([tuple(row) for row in rows]).encode())
    return digest.hexdigest()


def _count(connection: Connection, one: Table) -> int:
    return connection.execute(select(func.count()).select_from(one)).scalar_one()


def _has_tables(connection: Connection, one: Table = t.versions) -> bool:
    return inspect(connection).has_table(one.name)


def _is_gone(owner: Owner | None) -> bool:
    return owner is not None and owner.state == "moved"
