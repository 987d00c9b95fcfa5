"""Figures as inline SVG that takes its colours and its font from the page."""

from __future__ import annotations

import io
import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

# Stand-ins that become variables of the page's style, so that figures follow light and dark.
INK, MUTED, GRID, SURFACE = "#010101", "#010102", "#010103", "#010104"
BLUE, ORANGE, GREEN, PURPLE, YELLOW = "#010105", "#010106", "#010107", "#010108", "#010109"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, YELLOW)
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    SURFACE: "surface",
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    PURPLE: "purple",
    YELLOW: "yellow",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "holdtrue",
    # Names of users' columns and values are text, never formulas.
    "text.parse_math": False,
    "font.size": 10,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlepad": 10,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "savefig.facecolor": "none",
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}
# The style of Matplotlib is global to the process; reports may be written by several threads.
_LOCK = threading.Lock()


class Drawing:
    """A figure that is being drawn; `svg` is set when its `with` block ends."""

    def __init__(self, figure: Any, axes: Any, label: str) -> None:
        self.figure = figure
        self.axes: Axes = axes
        self.label = label
        self.svg = Markup("")


@contextmanager
def draw(
    title: str, x: str, y: str, *, height: float = 3.4, width: float = 6.2
) -> Iterator[Drawing]:
    """Draw one figure.

    Args:
        title: Says what is seen.
        x: Label of the horizontal axis, with its unit.
        y: Label of the vertical axis, with its unit.
        height: In inches.
        width: In inches.

    Yields:
        The drawing with its axes.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with _LOCK, mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set(title=title, xlabel=x, ylabel=y)
        drawing = Drawing(figure, axes, title)
        yield drawing
        file = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        # Not `savefig`, which draws twice: the first time only to lay out, as drawing does anyway.
        FigureCanvasSVG(figure).print_svg(file, metadata=metadata)  # type: ignore[no-untyped-call]
    drawing.svg = _inline(file.getvalue(), title)


def plain_log(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers instead of formulas."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _inline(svg: str, label: str) -> Markup:
    """Strip what only a file of its own needs, and hand the colours over to the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r" font-family: [^;]*;| transform=\"rotate\(-0 [^)]*\)\"", "", svg)
    svg = re.sub(r"\s*\n\s*", " ", svg).replace("xlink:href", "href")
    box = re.search(r'viewBox="([^"]+)"', svg)
    head = f'<svg viewBox="{box[1] if box else ""}" role="img" aria-label="{escape(label)}">'
    svg = re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1)
    for stand_in, name in _VARIABLES.items():
        svg = svg.replace(stand_in, f"var(--{name})")
    return Markup(svg)  # noqa: S704  Matplotlib escapes every text that it writes.


def sparkline(heights: Sequence[float], label: str) -> Markup:
    """Draw a row of bars as small as a word.

    Args:
        heights: Of the bars, from 0.
        label: What is seen, for those who cannot see it.
    """
    top = max(heights, default=0) or 1
    width = min(120 / max(len(heights), 1), 10)
    bars = Markup("").join(
        Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
            i * width, 28 - 28 * height / top, width * 0.86, 28 * height / top
        )
        for i, height in enumerate(heights)
    )
    return Markup(
        '<svg class="spark" viewBox="0 0 120 28" role="img" aria-label="{}">{}</svg>'
    ).format(label, bars)


def cut(name: str) -> str:
    """Shorten a name so that it leaves room for what is drawn."""
    return name if len(name) <= 28 else f"{name[:27]}…"
