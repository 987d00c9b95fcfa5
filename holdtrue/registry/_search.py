"""Versions by a condition of SQL, which the file of the registry answers itself."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from holdtrue.declaration import METRICS
from holdtrue.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

# What a condition may name, beside the metrics: as `holdtrue.versions` writes it.
_NAMES = {
    "version": "number",
    "champion": "number = (SELECT number FROM holdtrue_champions c WHERE c.system = v.system)",
    "was_champion": "number IN (SELECT number FROM holdtrue_history h WHERE h.system = v.system)",
    "passed": "passed",
    "reason": "reason",
    "as_of": "as_of",
    "created": "created",
    "git_commit": "(SELECT json_extract(origin, '$.commit') FROM holdtrue_origins o"
    " WHERE o.system = v.system AND o.number = v.number)",
    "bundle": "bundle",
    "digest": "digest",
    "refitted": "measured_bundle IS NOT NULL",
    "measured_bundle": "coalesce(measured_bundle, bundle)",
}
_METRIC = "json_extract(metrics, '$.{0}.value')"


def search(path: Path, system: str, where: str | None, sort: str | None) -> list[int]:
    """Numbers of the versions that a condition holds for.

    Args:
        path: Of the registry.
        system: Name of the system.
        where: The condition; any version where left out.
        sort: A metric, the best first, or another name, the newest or largest first; by number
            where left out. Versions that have none come last.

    Raises:
        ConfigError: The condition is none, or a name is not known.
    """
    known = _NAMES | {metric: _METRIC.format(metric) for metric in METRICS}
    if sort is not None and sort not in known:
        message = f"--sort {sort}: expected a metric or another of these names"
        raise ConfigError(message, hint=", ".join(known))
    order = "version"
    if sort is not None:
        smaller = METRICS.get(sort, ("higher",))[0] == "lower"
        order = f"{sort} {'ASC' if smaller else 'DESC'} NULLS LAST, version"
    columns = ", ".join(f"{value} AS {name}" for name, value in known.items())
    # The condition is one of the caller, who may read the file; the connection cannot write.
    query = (
        f"SELECT version FROM (SELECT {columns} FROM holdtrue_versions v WHERE system = ?) "  # noqa: S608
        f"WHERE {'1' if where is None else where}\nORDER BY {order}"
    )
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            return [number for (number,) in database.execute(query, (system,))]
    except sqlite3.Error as err:
        message = f"--where {where}: {err}"
        raise ConfigError(message, hint=f"a condition of SQL on: {', '.join(known)}") from err
