"""Declare a machine-learning system in one file; holdtrue makes it so, and keeps it true."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from holdtrue.system import System

__all__ = ["__version__", "load"]
__version__ = "0.1.0"


def load(path: str | Path) -> System:
    """Read a declaration.

    Args:
        path: The YAML file.

    Returns:
        An object with the verbs that the command has: check, plan, apply, status, monitor,
        predict and rollback.

    Raises:
        ConfigError: The file is not an acceptable declaration; says where and why.
    """
    from holdtrue.system import System

    return System(path)
