"""The registered versions as a table that can be searched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdtrue.registry import Registry
from holdtrue.removed import listed_as_pruned

if TYPE_CHECKING:
    from holdtrue.store import Store


def list_versions(
    store: Store, system: str, *, where: str | None = None, sort: str | None = None
) -> list[dict[str, Any]]:
    """Say of versions what they reached and what became of them.

    Args:
        store: Of the project.
        system: Name of the system.
        where: A condition of SQL (SQLite's) on the keys of what is returned and on metrics, such
            as ``roc_auc > 0.7 AND passed AND created > '2026-06'``; all where left out.
        sort: One of these names: the best, newest or largest first; oldest first where left out.

    Raises:
        ConfigError: The condition is none, or a name is not known.
    """
    registry = Registry(store)
    if where is None and sort is None:
        found = registry.versions(system)
    else:
        found = registry.search(system, where=where, sort=sort)
    champion = registry.champion(system)
    present = None if champion is None else champion.version.number
    champions = {change.number for change in registry.history(system)}
    origins = registry.origins(system)
    pruned = listed_as_pruned(store, system)
    return [
        {
            "version": version.number,
            "champion": version.number == present,
            "was_champion": version.number in champions,
            "passed": version.passed,
            "reason": version.reason,
            "metrics": {name: found.value for name, found in version.metrics.items()},
            "as_of": version.as_of.isoformat(),
            "created": version.created.isoformat(),
            "git_commit": origins[version.number].commit if version.number in origins else None,
            "pruned": pruned.get(version.number),
            "bundle": version.bundle,
            "digest": version.digest,
            "refitted": version.refitted,
            "measured_bundle": version.measured_bundle,
        }
        for version in found
    ]
