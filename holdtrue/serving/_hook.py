"""Keep pandas out of replicas: Ray Serve imports it for an encoder that nobody here uses."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import FrameType, ModuleType

_IMPORTER = "ray.serve._private.utils"


class _NoPandasForServe(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "pandas" and _importer() == _IMPORTER:
            message = "not needed"
            raise ModuleNotFoundError(message, name=name)
        return None


def prepare() -> None:
    """Have Ray Serve believe that pandas is not installed; everybody else finds it.

    It costs each replica half a second when it starts, and 60 MB.
    """
    if not any(isinstance(finder, _NoPandasForServe) for finder in sys.meta_path):
        sys.meta_path.insert(0, _NoPandasForServe())


def _importer() -> str | None:
    """Name of the module whose import statement is being run."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name: str = frame.f_globals.get("__name__", "")
        if name != __name__ and not name.startswith("importlib") and "frozen" not in name:
            return name
        frame = frame.f_back
    return None
