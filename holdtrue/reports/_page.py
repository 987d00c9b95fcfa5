"""Pages of one file each: templates, style and numbers, without scripts and without the network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdtrue.reports import _format
from holdtrue.store import write_atomically

if TYPE_CHECKING:
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


@dataclass(frozen=True)
class Page:
    """A report that is looked at where it is made: a notebook shows it as it stands."""

    html: str

    def _repr_html_(self) -> str:
        # A frame of its own: its style and a notebook's leave each other alone.
        return (
            f'<iframe srcdoc="{escape(self.html, quote=True)}" sandbox="" '
            'style="width: 100%; height: 45em; border: 0"></iframe>'
        )

    def save(self, path: str | Path) -> None:
        """Write it as one HTML file; missing folders are made."""
        write_atomically(Path(path), self.html.encode())


def render(
    declaration: Declaration, template: str, *, home: str | None = None, **values: Any
) -> str:
    """Render a template.

    Args:
        declaration: Of the system that the page is about.
        template: Name of a file in ``templates`` without its ending.
        home: The link to the front page.
        values: What the template shows; text is escaped.
    """
    found = _environment().get_template(f"{template}.html.j2")
    return found.render(system=declaration, home=home, **values)


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
        declaration: As for `render`, like the others.
        template: Name of a file in ``templates`` without its ending.
        values: What the template shows.
    """
    home = _home(path, declaration.name)
    write_atomically(path, render(declaration, template, home=home, **values).encode())
