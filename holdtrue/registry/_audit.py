"""A chain of digests over all that the registry records: an edit by other hands shows."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, and_, insert, select, type_coerce

from holdtrue.errors import ConfigError
from holdtrue.references import Reference
from holdtrue.registry import _schema as t

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import Column, Connection, Row, Select, Table
    from sqlalchemy.types import TypeEngine

    Key = tuple[Any, ...]

# What is sealed, and what its rows are called by the last value of their primary keys.
_CALLED = {
    t.versions: "version {}",
    t.origins: "the commit of version {}",
    t.history: "change {} of the champion",
    t.champions: "the champion of {}",
    t.reports: "look {} of the monitor",
    t.rollouts: "rollout {}",
    t.verdicts: "verdict {} of a rollout",
    t.intervals: "the scored interval from {}",
}
_BY_NAME = {table.name: table for table in _CALLED}
# Before the first entry.
_NOTHING = "0" * 64
_HEAD = re.compile(r"[1-9][0-9]*:[0-9a-f]{64}")


class Audit(Reference):
    """The chain of a system, and what is not as it was written."""

    entries: int
    """One for each time that a row was written; 0 before holdtrue kept it."""
    head: str | None
    """``NUMBER:HASH`` of the last one: whoever keeps it elsewhere can prove all before it."""
    faults: tuple[str, ...]
    """What was changed, removed or added besides, in words."""


def raw(one: Column[Any]) -> TypeEngine[Any]:
    """The type by which a column is read to the last character: JSON as it is written."""
    return Text() if one.type is t.Json else one.type


def seal(connection: Connection, system: str, *written: tuple[Table, Key]) -> None:
    """Add to the chain that rows were written; in the transaction that wrote them.

    Writers come one after the other, so that numbers have no gaps. What was there before a chain is
    taken as it is.

    Args:
        connection: In a writing transaction.
        system: Whose rows.
        *written: Their tables and primary keys.
    """
    last = _last(connection, system)
    rows: Iterable[tuple[Table, Key, Row[Any]]] = (
        (table, key, connection.execute(_raw_rows(table).where(_is(table, key))).one())
        for table, key in written
    )
    if last is None:
        rows, last = _rows(connection, system), (0, _NOTHING)
    highest, before = last
    at, entries = datetime.now(UTC).isoformat(), []
    for number, (table, key, row) in enumerate(rows, start=highest + 1):
        entry = {
            "system": system,
            "number": number,
            "at": at,
            "of": table.name,
            "key": json.dumps(key),
            "content": _digest(row),
        }
        before = _hash(before, entry)
        entries.append({**entry, "hash": before})
    connection.execute(insert(t.audit), entries)


def audit(connection: Connection, system: str, head: str | None = None) -> Audit:
    """Hold what there is against the chain.

    Args:
        connection: In a transaction.
        system: Whose.
        head: ``NUMBER:HASH`` of an entry as it was told once; it must still be there.

    Raises:
        ConfigError: `head` is none.
    """
    if head is not None and not _HEAD.fullmatch(head):
        message = f"--head {head}: expected NUMBER:HASH"
        raise ConfigError(message, hint="as `holdtrue verify` told it before")
    faults: list[str] = []
    sealed: dict[tuple[str, str], str] = {}
    before, expected, known = _NOTHING, 1, {}
    wanted = select(t.audit).where(t.audit.c.system == system).order_by(t.audit.c.number)
    for row in connection.execute(wanted):
        entry = {name: value for name, value in row._asdict().items() if name != "hash"}
        if row.number != expected:
            faults.append(f"{_entries(expected, row.number - 1)} removed")
        elif row.hash != _hash(before, entry):
            faults.append(f"entry {row.number} of the audit was changed")
        before, expected = row.hash, row.number + 1
        known[row.number] = row.hash
        sealed[row.of, row.key] = row.content
    if known:
        faults += _beside(connection, system, sealed)
    if head is not None:
        number, _, told = head.partition(":")
        if known.get(int(number)) != told:
            faults.append(f"entry {number} of the audit is not the one that was told as {head}")
    last = f"{expected - 1}:{before}" if known else None
    return Audit(entries=len(known), head=last, faults=tuple(faults))


def _beside(
    connection: Connection, system: str, sealed: dict[tuple[str, str], str]
) -> Iterator[str]:
    """What rows say otherwise than the chain."""
    left = dict(sealed)
    for table, key, row in _rows(connection, system):
        content = left.pop((table.name, json.dumps(key)), None)
        if content is None:
            yield f"{_name(table, key)} was added by other hands"
        elif content != _digest(row):
            yield f"{_name(table, key)} was changed by other hands"
    for name, key_of in left:
        yield f"{_name(_BY_NAME[name], tuple(json.loads(key_of)))} was removed by other hands"


def _last(connection: Connection, system: str) -> tuple[int, str] | None:
    known = t.audit.c
    wanted = select(known.number, known.hash).where(known.system == system)
    row = connection.execute(wanted.order_by(known.number.desc()).limit(1)).first()
    return None if row is None else (row.number, row.hash)


def _rows(connection: Connection, system: str) -> Iterator[tuple[Table, Key, Row[Any]]]:
    """All rows of a system, with their keys, in order."""
    for table in _CALLED:
        wanted = _raw_rows(table).order_by(*table.primary_key.columns)
        if "system" in table.columns:
            wanted = wanted.where(table.c.system == system)
        else:
            of_system = select(t.rollouts.c.id).where(t.rollouts.c.system == system)
            wanted = wanted.where(table.c.rollout.in_(of_system))
        for row in connection.execute(wanted):
            named = row._mapping
            yield table, tuple(named[one.name] for one in table.primary_key.columns), row


def _raw_rows(table: Table) -> Select[Any]:
    return select(*(type_coerce(one, raw(one)).label(one.name) for one in table.columns))


def _is(table: Table, key: Sequence[Any]) -> Any:
    columns = table.primary_key.columns
    return and_(*(one == value for one, value in zip(columns, key, strict=True)))


def _digest(row: Row[Any]) -> str:
    return hashlib.sha256(repr(tuple(row)).encode()).hexdigest()


def _hash(before: str, entry: dict[str, Any]) -> str:
    content = json.dumps({"before": before, **entry}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _entries(first: int, last: int) -> str:
    if first == last:
        return f"entry {first} of the audit was"
    return f"entries {first} to {last} of the audit were"


def _name(table: Table, key: Key) -> str:
    return _CALLED[table].format(key[-1])
