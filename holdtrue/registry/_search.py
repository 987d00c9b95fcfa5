"""Versions by a condition of SQL, which a database in memory answers that holds nothing else."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, select, type_coerce

from holdtrue.declaration import METRICS
from holdtrue.errors import ConfigError
from holdtrue.registry import _schema as t

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence, Set

    from sqlalchemy import Row, Select

# What a condition may name, beside the metrics: as `holdtrue.versions` writes it.
_NAMES = {
    **dict.fromkeys(("version", "champion", "was_champion", "passed"), "INTEGER"),
    **dict.fromkeys(("reason", "as_of", "created", "git_commit", "bundle", "digest"), "TEXT"),
    **{"refitted": "INTEGER", "measured_bundle": "TEXT"},
}
_METRIC = "json_extract(metrics, '$.{0}.value')"
_LONGEST_S = 10.0
# Steps of SQLite's machine between two looks at the clock; a hundred thousand take some ms.
_STEPS = 100_000
_ALLOWED = {
    *(sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION),
    sqlite3.SQLITE_RECURSIVE,
}


def searched(system: str) -> Select[Any]:
    """The query for what `search` is given; JSON as it is written, which is not all read."""
    v = t.versions.c
    columns = (v.number, v.passed, v.reason, v.as_of, v.created, v.bundle, v.digest)
    metrics = type_coerce(v.metrics, Text).label("metrics")
    return select(*columns, v.measured_bundle, metrics).where(v.system == system)


def named(system: str, numbers: Sequence[int]) -> Select[Any]:
    """The query for versions by their numbers, of which a query takes some thousands."""
    known = t.versions.c
    return select(t.versions).where(known.system == system, known.number.in_(numbers))


def asks_for_commits(where: str | None, sort: str | None) -> bool:
    """Whether commits must be known, which have to be read from between patches."""
    return "git_commit" in f"{where} {sort}".lower()


def search(
    rows: Iterable[Row[Any]],
    *,
    champion: int | None,
    champions: Set[int],
    commits: Mapping[int, str],
    where: str | None,
    sort: str | None,
) -> list[int]:
    """Numbers of the versions that a condition holds for.

    Args:
        rows: Of all versions of a system, as `searched` asks for them.
        champion: The present one, by number.
        champions: That one, and those before it.
        commits: By number; those that are asked for.
        where: The condition; any version where left out.
        sort: A metric, the best first, or another name, the newest or largest first; by number
            where left out. Versions that have none come last.

    Raises:
        ConfigError: The condition is none, takes longer than 10 s, or a name is not known.
    """
    known = (*_NAMES, *METRICS)
    if sort is not None and sort not in known:
        message = f"--sort {sort}: expected a metric or another of these names"
        raise ConfigError(message, hint=", ".join(known))
    order = "version"
    if sort is not None:
        smaller = METRICS.get(sort, ("higher",))[0] == "lower"
        order = f"{sort} {'ASC' if smaller else 'DESC'} NULLS LAST, version"
    columns = ", ".join((*_NAMES, *(f"{_METRIC.format(name)} AS {name}" for name in METRICS)))
    query = (
        f"SELECT version FROM (SELECT {columns} FROM versions) "  # noqa: S608 - see _only_reads
        f"WHERE {'1' if where is None else where}\nORDER BY {order}"
    )
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            kinds = ", ".join(f"{name} {kind}" for name, kind in _NAMES.items())
            database.execute(f"CREATE TABLE versions ({kinds}, metrics TEXT)")
            facts = (_facts(row, champion, champions, commits) for row in rows)
            places = ", ".join("?" * (len(_NAMES) + 1))
            database.executemany(f"INSERT INTO versions VALUES ({places})", facts)  # noqa: S608
            database.commit()
            _only_reads(database)
            return [number for (number,) in database.execute(query)]
    except sqlite3.Error as err:
        why = f"takes longer than {_LONGEST_S:g} s" if str(err) == "interrupted" else err
        message = f"--where {where}: {why}"
        raise ConfigError(message, hint=f"a condition of SQL on: {', '.join(known)}") from err


def _facts(
    row: Row[Any], champion: int | None, champions: Set[int], commits: Mapping[int, str]
) -> tuple[Any, ...]:
    """What is known of a version, in the order of its columns."""
    return (
        *(row.number, row.number == champion, row.number in champions, row.passed),
        *(row.reason, row.as_of, row.created, commits.get(row.number), row.bundle, row.digest),
        *(row.measured_bundle is not None, row.measured_bundle or row.bundle, row.metrics),
    )


def _only_reads(database: sqlite3.Connection) -> None:
    """Let what follows read what is there, for a while; no file, and nothing is changed."""
    until = time.monotonic() + _LONGEST_S

    def allowed(action: int, *_: object) -> int:
        return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY

    database.set_authorizer(allowed)
    database.set_progress_handler(lambda: int(time.monotonic() > until), _STEPS)
