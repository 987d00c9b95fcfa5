"""Versions, champion, history."""

from holdtrue.registry._registry import Champion, Change, RegisteredVersion, Registry, stale

__all__ = ["Champion", "Change", "RegisteredVersion", "Registry", "stale"]
