"""Digests: what a step's result depends on."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdtrue.models import digest_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_PACKAGE = Path(__file__).parent.parent
DIGEST = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")
"""What a text that is a digest looks like."""


@cache
def code_digest(rooms: tuple[str, ...]) -> str:
    """Digest of the source of parts of this package.

    Args:
        rooms: Folders or files inside it, such as ``data`` or ``evaluation/_metrics.py``.
    """
    state = hashlib.blake2b(digest_size=16)
    for room in rooms:
        path = _PACKAGE / room
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            state.update(file.relative_to(_PACKAGE).as_posix().encode())
            state.update(file.read_bytes())
    return state.hexdigest()


def digest(components: Mapping[str, Any]) -> str:
    """Digest of everything that a step's result depends on, as JSON with sorted keys."""
    return digest_of(json.dumps(dict(components), sort_keys=True, default=str).encode())


def differences(old: Any, new: Any, place: str = "") -> list[str]:
    """Say where two declarations differ, such as ``tune.trials: 20 -> 30``."""
    if isinstance(old, dict) and isinstance(new, dict):
        said = []
        for key in sorted({*old, *new}):
            inner = f"{place}.{key}" if place else str(key)
            said.extend(differences(old.get(key), new.get(key), inner))
        return said
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        said = []
        for i, (before, after) in enumerate(zip(old, new, strict=True)):
            said.extend(differences(before, after, f"{place}[{i}]"))
        return said
    if old == new:
        return []
    if all(isinstance(value, str) and DIGEST.fullmatch(value) for value in (old, new)):
        return [f"{place}: changed"]  # what a digest is of, only a machine can read in it
    return [f"{place}: {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
