"""The figures of the drift report."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.reports._figures import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    cut,
    draw,
    plain_log,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from markupsafe import Markup
    from matplotlib.axes import Axes

    from holdtrue.references import (
        AttributionCheck,
        EstimatedQuality,
        PerformanceCheck,
        SliceQuality,
        WindowCheck,
    )

_SMALLEST_P = 1e-12
# State, colour, marker: the shape tells them apart without the colour.
_MARKS = (
    ("quiet", BLUE, "o"),
    ("suspect", ORANGE, "^"),
    ("alarm", PURPLE, "X"),
    ("too_few_rows", MUTED, "."),
)


def _times(
    found: Sequence[WindowCheck | PerformanceCheck | EstimatedQuality],
) -> npt.NDArray[Any]:
    return np.array([one.start.astimezone(UTC).replace(tzinfo=None) for one in found], "M8[us]")


def _compared(windows: Sequence[WindowCheck]) -> Sequence[WindowCheck]:
    """Those that were: what had too few rows has no effect, and is part of a later one."""
    return [window for window in windows if window.state != "too_few_rows"] or windows


def effect_figure(windows: Sequence[WindowCheck]) -> Markup:
    """Draw the largest effect of each window that was compared against its limit."""
    windows = _compared(windows)
    title = "Largest effect over the columns, by window"
    with draw(title, "start of the window (UTC)", "standardised effect", width=11) as drawing:
        axes = drawing.axes
        starts = _times(windows)
        limits = [window.effect_limit for window in windows]
        effects = [window.effect for window in windows]
        _points(axes, windows, effects)
        axes.step(
            starts, limits, where="mid", color=INK, linestyle="--", linewidth=1, label="limit"
        )
        if max(effects) > 10 * max(*limits, 1e-9):
            axes.set_yscale("symlog", linthresh=max(*limits, 1e-9))
            plain_log(axes.yaxis)
        axes.set_ylim(bottom=0)
        over_time(axes)
    return drawing.svg


def p_value_figure(windows: Sequence[WindowCheck]) -> Markup:
    """Draw the smallest p-value of each window that was compared against its limit."""
    windows = _compared(windows)
    title = "Smallest p-value over the columns, by window"
    y = "p-value (logarithmic)"
    with draw(title, "start of the window (UTC)", y, width=11) as drawing:
        axes = drawing.axes
        starts = _times(windows)
        _points(axes, windows, [max(window.p_value, _SMALLEST_P) for window in windows])
        limits = [max(window.p_limit, _SMALLEST_P) for window in windows]
        axes.step(
            starts, limits, where="mid", color=INK, linestyle="--", linewidth=1, label="limit"
        )
        axes.set_yscale("log")
        plain_log(axes.yaxis)
        axes.set_ylim(_SMALLEST_P / 3, 2)
        over_time(axes)
    return drawing.svg


def _points(axes: Axes, windows: Sequence[WindowCheck], heights: Sequence[float]) -> None:
    starts = _times(windows)
    axes.plot(starts, heights, color=MUTED, linewidth=0.8, zorder=1)
    for state, colour, marker in _MARKS:
        shown = [i for i, window in enumerate(windows) if window.state == state]
        if shown:
            axes.scatter(
                starts[shown],
                [heights[i] for i in shown],
                s=34,
                color=colour,
                marker=marker,
                label=state.replace("_", " "),
                zorder=3,
            )


def performance_figure(
    metric: str, checks: Sequence[PerformanceCheck], estimated: Sequence[EstimatedQuality]
) -> Markup:
    """Draw one metric of served predictions over time, with its intervals and limit.

    Args:
        metric: Its name.
        checks: Of it, on rows with labels.
        estimated: Of it, by window, before there are labels.
    """
    title = f"{metric} of served predictions"
    with draw(title, "start of the rows (UTC)", metric, width=11) as drawing:
        axes = drawing.axes
        if estimated:
            starts = _times(estimated)
            low = [one.value.low for one in estimated]
            high = [one.value.high for one in estimated]
            axes.vlines(starts, low, high, color=MUTED, linewidth=0.7)
            values = [one.value.value for one in estimated]
            label = "estimated without labels"
            axes.scatter(starts, values, s=24, facecolor="none", edgecolor=BLUE, label=label)
        for worse, colour, marker, label in (
            (False, GREEN, "o", "as expected"),
            (True, ORANGE, "^", "worse"),
        ):
            shown = [check for check in checks if check.worse == worse]
            if not shown:
                continue
            starts = _times(shown)
            low, high = [c.value.low for c in shown], [c.value.high for c in shown]
            axes.vlines(starts, low, high, color=colour, linewidth=1.4)
            values = [check.value.value for check in shown]
            axes.scatter(starts, values, s=34, color=colour, marker=marker, label=label, zorder=3)
        known: list[PerformanceCheck | EstimatedQuality] = [*checks, *estimated]
        known.sort(key=lambda one: one.start)
        starts, expected = _times(known), [one.expected for one in known]
        axes.step(starts, expected, where="mid", color=MUTED, linewidth=1, label="expected")
        if checks:
            starts, limit = _times(checks), [check.limit for check in checks]
            axes.step(
                starts, limit, where="mid", color=INK, linestyle="--", linewidth=1, label="limit"
            )
        over_time(axes)
    return drawing.svg


def slices_figure(slices: Sequence[SliceQuality]) -> Markup:
    """Draw one metric of slices with its interval, beside the limit of each; first as given."""
    metric = slices[0].metric
    title = f"{metric} by slice, on rows with labels"
    with draw(title, metric, "", width=11, height=1.6 + 0.26 * len(slices)) as drawing:
        axes, places = drawing.axes, np.arange(len(slices))
        for worse, colour, marker, label in (
            (False, GREEN, "o", "as expected"),
            (True, ORANGE, "^", "worse"),
        ):
            shown = [i for i, one in enumerate(slices) if one.worse == worse]
            if not shown:
                continue
            found = [slices[i] for i in shown]
            low, high = [one.value.low for one in found], [one.value.high for one in found]
            axes.hlines(places[shown], low, high, color=colour, linewidth=1.4)
            values = [one.value.value for one in found]
            axes.scatter(
                values, places[shown], s=34, color=colour, marker=marker, label=label, zorder=3
            )
        for numbers, colour, label in (
            ([one.expected for one in slices], MUTED, "when evaluated"),
            ([one.limit for one in slices], INK, "limit"),
        ):
            axes.scatter(
                numbers, places, color=colour, label=label, marker="|", s=90, linewidth=1.2
            )
        axes.set_yticks(places, [cut(f"{one.column} {one.slice}") for one in slices])
        axes.set_ylim(len(slices) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        drawing.figure.legend(loc="outside lower center", ncols=4)
    return drawing.svg


def attribution_figure(check: AttributionCheck) -> Markup:
    """Draw by how much each column moves the mean score of a window from that of the test rows."""
    title = f"Shift of the mean score, window from {check.start:%Y-%m-%d %H:%M}"
    height = 1.6 + 0.26 * len(check.columns)
    with draw(title, check.unit, "", width=11, height=height) as drawing:
        axes, places = drawing.axes, np.arange(len(check.columns))
        for beyond, colour, label in (
            (False, BLUE, "as in stretches of the test rows"),
            (True, ORANGE, "by more than in any of them"),
        ):
            shown = [i for i, c in enumerate(check.columns) if (c.effect > check.limit) == beyond]
            if shown:
                shifts = [check.columns[i].shift for i in shown]
                axes.barh(places[shown], shifts, height=0.6, color=colour, label=label)
        axes.axvline(0, color=INK, linewidth=0.8)
        many = len(check.scores) > 1
        axes.set_yticks(
            places,
            [cut(f"{c.column}, {c.output}" if many else c.column) for c in check.columns],
        )
        axes.set_ylim(len(check.columns) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        drawing.figure.legend(loc="outside lower center", ncols=2)
    return drawing.svg


def over_time(axes: Axes) -> None:
    """Label a horizontal axis with dates, and put the legend under the figure."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=2, maxticks=12)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=6)
