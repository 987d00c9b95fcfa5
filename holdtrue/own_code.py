"""What the project's own code did wrong, and where."""

from __future__ import annotations

import traceback
from pathlib import Path


def said_of(err: BaseException, project: Path) -> str:
    """What an error says, with the line of the project at which it came up.

    Args:
        err: What was raised.
        project: Folder of the project's code.

    Returns:
        Such as ``ValueError: no rows (shop/rows.py:7)``; where it says more than a line, the others
        follow. Without a line where it came up in no file of the project.
    """
    first, _, rest = str(err).strip().partition("\n")
    said = f"{type(err).__name__}{f': {first}' if first else ''}{_place_of(err, project)}"
    return f"{said}\n{rest}" if rest else said


def _place_of(err: BaseException, project: Path) -> str:
    frames = traceback.extract_tb(err.__traceback__)
    inside = [
        (path, frame.lineno)
        for frame in frames
        if (path := Path(frame.filename)).is_relative_to(project)
        and "site-packages" not in path.parts
    ]
    if not inside:
        return ""
    path, line = inside[-1]
    return f" ({path.relative_to(project)}:{line})"
