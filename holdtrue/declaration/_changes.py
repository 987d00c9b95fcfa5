"""Where two declarations, or parts of them, differ."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdtrue.declaration._data import without_password
from holdtrue.errors import spell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdtrue.errors import Key

_LONGEST = 60
# Of long values that begin alike, so many characters are shown before the first that differs.
_SHARED = 20
# What lets somebody write to a receiver.
HIDDEN = {("notify", "to"), ("notify", "secret")}


@dataclass(frozen=True)
class Change:
    """A place at which two declarations differ."""

    path: Key
    before: Any
    """None where nothing is said."""
    after: Any
    """None where nothing is said."""

    @property
    def key(self) -> str:
        """The place in words, such as ``tune.trials``."""
        return spell(self.path)

    @property
    def words(self) -> str:
        """Both values as short JSON, such as ``20 -> 30``; long ones from where they differ on."""
        both = [json.dumps(v, default=str, ensure_ascii=False) for v in (self.before, self.after)]
        # Secrets that differ are hidden, and alike.
        if both[0] != both[1] and _short(both[0]) == _short(both[1]):
            differ = (n for n, (old, new) in enumerate(zip(*both, strict=False)) if old != new)
            start = next(differ, 0) - _SHARED
            both = [f"...{text[start:]}" for text in both]
        return f"{_short(both[0])} -> {_short(both[1])}"

    def hidden(self) -> Change:
        """The same without passwords and addresses of receivers, to be shown."""
        return Change(
            self.path,
            _without_secrets(self.before, self.path),
            _without_secrets(self.after, self.path),
        )


def changes(old: Any, new: Any, path: Key = ()) -> Iterator[Change]:
    """Yield where two values, made of mappings, lists and scalars, differ; as deep as both go."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from changes(old.get(key), new.get(key), (*path, str(key)))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from changes(before, after, (*path, i))
    elif old != new:
        yield Change(path, old, new)


def _without_secrets(value: Any, path: Key) -> Any:
    if value is not None and path[:2] in HIDDEN:
        return "***"
    if isinstance(value, dict):
        return {key: _without_secrets(child, (*path, key)) for key, child in value.items()}
    if isinstance(value, list):
        return [_without_secrets(child, (*path, i)) for i, child in enumerate(value)]
    return without_password(value) if isinstance(value, str) else value


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
