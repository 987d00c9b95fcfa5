"""The figure of the page about a backtest."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.reports._drift_figures import over_time
from holdtrue.reports._figures import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, draw

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    import numpy.typing as npt
    from markupsafe import Markup
    from matplotlib.axes import Axes

    from holdtrue.backtest import Backtest, Played

# The shape of the line tells the policies apart without the colour.
_LINES = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."))


def periods_figure(found: Backtest) -> Markup:
    """Draw the searched metric of each policy by period, and when the declared one trained."""
    title = f"{found.metric} of the answers, by period"
    with draw(title, "start of the period (UTC)", found.metric, width=11, height=4.2) as drawing:
        axes = drawing.axes
        for played, (colour, line) in zip(found.policies, _LINES, strict=False):
            _line(axes, played, colour, line)
        declared = found.declared
        for outcome, colour, line in (("promoted", INK, "-"), ("refused", MUTED, ":")):
            moments = [t.as_of for t in declared.again if t.outcome == outcome]
            for number, moment in enumerate(_times(moments)):
                label = f"trained, {outcome}" if number == 0 else None
                axes.axvline(moment, color=colour, linestyle=line, linewidth=1, label=label)
        _windows(axes, declared.suspect, "^", ORANGE, "suspect window")
        _windows(axes, declared.alarmed, "X", PURPLE, "alarmed window")
        over_time(axes)
    return drawing.svg


def _line(axes: Axes, played: Played, colour: str, line: str) -> None:
    shown = [(period.start, period.value) for period in played.periods if period.value is not None]
    times = _times(start for start, _ in shown)
    low, high = [value.low for _, value in shown], [value.high for _, value in shown]
    axes.fill_between(times, low, high, color=colour, alpha=0.12, linewidth=0)
    values = [value.value for _, value in shown]
    axes.plot(times, values, color=colour, linestyle=line, label=played.policy)


def _windows(axes: Axes, starts: Iterable[datetime], marker: str, colour: str, label: str) -> None:
    """Mark windows at the foot of the figure."""
    times = _times(starts)
    if len(times):
        place = axes.get_xaxis_transform()
        foot = np.full(len(times), 0.02)
        axes.scatter(times, foot, s=26, color=colour, marker=marker, transform=place, label=label)


def _times(moments: Iterable[datetime]) -> npt.NDArray[Any]:
    return np.array([one.astimezone(UTC).replace(tzinfo=None) for one in moments], "M8[us]")
