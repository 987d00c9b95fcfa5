"""Versions, champion, history."""

from holdtrue.registry._registry import (
    BY_ITSELF,
    Champion,
    Change,
    RegisteredVersion,
    Registry,
    stale,
)

__all__ = ["BY_ITSELF", "Champion", "Change", "RegisteredVersion", "Registry", "stale"]
