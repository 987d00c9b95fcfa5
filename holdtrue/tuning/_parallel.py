"""How many trials a search that is running has at a time, changed by another process."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from holdtrue.errors import ConfigError
from holdtrue.store import is_locked, write_atomically

if TYPE_CHECKING:
    from pathlib import Path


def change_parallel(logs: Path, at_a_time: int) -> Path:
    """Have the search that is running try so many settings at a time from now on.

    It heeds that within two seconds, until it ends: more begin as soon as there is room for them on
    the cluster; where they are fewer, none is ended for that, and the next ones begin later.

    Args:
        logs: Folder of the logs of its system.
        at_a_time: 1 or more.

    Returns:
        Its log.

    Raises:
        ConfigError: No search is running.
    """
    held = next((log for log in sorted(logs.glob("*.log")) if is_locked(log)), None)
    if held is None:
        message = "no search is running whose trials at a time could be changed"
        hint = "tune.parallel in the declaration is for the next one"
        raise ConfigError(message, hint=hint)
    write_atomically(_beside(held), f"{at_a_time}\n".encode())
    return held


def wanted_parallel(log: Path) -> int | None:
    """What `change_parallel` asked of the search that has a log; None where nobody asked."""
    with suppress(OSError, ValueError):
        return max(1, int(_beside(log).read_bytes()))
    return None


def forget_parallel(log: Path) -> None:
    """Ask nothing of the search any more: it begins, or has ended."""
    with suppress(OSError):
        _beside(log).unlink()


def _beside(log: Path) -> Path:
    return log.with_name(f"{log.name}.parallel")
