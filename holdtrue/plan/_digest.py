"""Digests: what a step's result depends on."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdtrue.declaration import changes
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


def differences(old: Any, new: Any) -> list[str]:
    """Say where two declarations differ, such as ``tune.trials: 20 -> 30``."""
    said = []
    for change in changes(old, new):
        both = (change.before, change.after)
        # What a digest is of, only a machine can read in it.
        opaque = all(isinstance(value, str) and DIGEST.fullmatch(value) for value in both)
        said.append(f"{change.key}: {'changed' if opaque else change.words}")
    return said
