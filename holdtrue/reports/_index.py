"""The front page that leads to the other reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.reports._page import write_page

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from holdtrue.declaration import Declaration


def write_index(
    path: Path,
    declaration: Declaration,
    entries: Sequence[tuple[str, str, str]],
    headline: str,
) -> None:
    """Write the front page as one HTML file.

    Args:
        path: The file. The other reports link back to it where it is ``index.html`` in a folder
            that bears the system's name, and they lie in that folder or one below.
        declaration: Of the system.
        entries: Title, relative link and summary of each report.
        headline: What there is to know, in one or two sentences.
    """
    write_page(
        path,
        declaration,
        "index",
        title=declaration.name,
        entries=entries,
        headline=headline,
    )
