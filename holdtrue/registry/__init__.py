"""Versions, champion, history."""

from holdtrue.registry._audit import Audit
from holdtrue.registry._move import Moved, copy_registry, move_registry
from holdtrue.registry._records import (
    BY_ITSELF,
    REFITTED,
    Champion,
    Change,
    RegisteredVersion,
    verdict_first,
)
from holdtrue.registry._registry import Registry, stale

__all__ = [
    "BY_ITSELF",
    "REFITTED",
    "Audit",
    "Champion",
    "Change",
    "Moved",
    "RegisteredVersion",
    "Registry",
    "copy_registry",
    "move_registry",
    "stale",
    "verdict_first",
]
