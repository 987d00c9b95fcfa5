"""What the project's own code did wrong, and where."""

from __future__ import annotations

import traceback
from pathlib import Path


def place_of(err: BaseException, project: Path) -> str:
    """The line of the project at which an error came up, such as `` (shop/rows.py:7)``.

    Args:
        err: What was raised.
        project: Folder of the project's code.

    Returns:
        It, with a blank before; empty where the error came up in no file of the project.
    """
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
