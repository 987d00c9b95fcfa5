"""The figures of the page about rollouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.reports._figures import BLUE, GREEN, INK, MUTED, ORANGE, draw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup
    from matplotlib.axes import Axes

    from holdtrue.rollout._rollout import Point


def evidence_figure(trail: Sequence[Point], limit: float) -> Markup:
    """Draw the evidence against the challenger over time.

    Args:
        trail: At least two looks.
        limit: Logarithm to base 10 at which the challenger goes back.
    """
    title = "Evidence against the new version"
    with draw(title, "minutes since it began", "evidence, 10 to the power of", width=11) as drawing:
        axes = drawing.axes
        minutes = [point.seconds / 60 for point in trail]
        axes.plot(minutes, [p.errors for p in trail], color=BLUE, label="it fails more often")
        axes.plot(
            minutes, [p.latency for p in trail], color=ORANGE, linestyle="-.", label="it is slower"
        )
        axes.axhline(limit, color=INK, linestyle="--", linewidth=1, label="limit: it goes back")
        _steps(axes, trail)
        drawing.figure.legend(loc="outside lower center", ncols=3)
    return drawing.svg


def shift_figure(trail: Sequence[Point]) -> Markup:
    """Draw the score shift beyond the expected one, with its interval."""
    title = "Shift of the scores beyond that on the test rows"
    with draw(title, "minutes since it began", "standard deviations", width=11) as drawing:
        axes = drawing.axes
        seen = [(p.seconds / 60, *p.shift) for p in trail if p.shift is not None]
        minutes, middle, low, high = zip(*seen, strict=True)
        axes.fill_between(minutes, low, high, color=GREEN, alpha=0.2, linewidth=0)
        axes.plot(minutes, middle, color=GREEN, label="shift, with an interval that always holds")
        axes.axhline(0, color=MUTED, linewidth=1)
        _steps(axes, trail)
        drawing.figure.legend(loc="outside lower center")
    return drawing.svg


def _steps(axes: Axes, trail: Sequence[Point]) -> None:
    """Mark where a step began, with its share."""
    axes.set_title(axes.get_title(loc="left"), pad=20)  # above the shares
    before: float | None = None
    for point in trail:
        if point.share != before:
            minutes = point.seconds / 60
            axes.axvline(minutes, color=MUTED, linestyle=":", linewidth=1)
            label = f"{point.share * 100:g} %" if point.share else "shadow"
            axes.annotate(
                label, (minutes, 1), xycoords=("data", "axes fraction"), color=MUTED, va="bottom"
            )
            before = point.share
