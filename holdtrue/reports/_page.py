"""Pages of one file each: templates, style and numbers, without scripts and without the network."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from holdtrue.reports import _format
from holdtrue.store import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from jinja2 import Environment

    from holdtrue.declaration import Declaration


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("holdtrue.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("number", "share", "moment", "span", "probability"):
        environment.filters[name] = getattr(_format, name)
    return environment


def _home(path: Path, system: str) -> str | None:
    """The link to the front page, which lies in a folder that is named like the system."""
    if path.name == "index.html":
        return None
    links = zip(("index.html", "../index.html"), path.parents, strict=False)
    return next((link for link, folder in links if folder.name == system), None)


def write_page(path: Path, declaration: Declaration, template: str, **values: Any) -> None:
    """Render a template into one file, at once or not at all.

    Args:
        path: The HTML file; missing folders are made.
        declaration: Of the system that the page is about.
        template: Name of a file in ``templates`` without its ending.
        values: What the template shows; text is escaped.
    """
    page = (
        _environment()
        .get_template(f"{template}.html.j2")
        .render(system=declaration, home=_home(path, declaration.name), **values)
    )
    write_atomically(path, page.encode())
