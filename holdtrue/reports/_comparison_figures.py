"""The figures of the page about versions side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.reports._figures import BLUE, GREEN, INK, MUTED, ORANGE, SERIES, cut, draw
from holdtrue.reports._format import share

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from markupsafe import Markup

    from holdtrue.references import Evaluation, Gain
    from holdtrue.side_by_side import SameRows

_FEATURES = 12


def metric_figures(evaluations: Mapping[int, Evaluation]) -> list[Markup]:
    """Draw each metric of the versions with its interval, on test rows of each one's own."""
    metrics = dict.fromkeys(name for found in evaluations.values() for name in found.metrics)
    return [_metric(name, evaluations) for name in metrics]


def _metric(name: str, evaluations: Mapping[int, Evaluation]) -> Markup:
    found = {n: one.metrics[name] for n, one in evaluations.items() if name in one.metrics}
    confidence = next(iter(evaluations.values())).confidence
    title = f"{name}, {share(confidence)} intervals"
    with draw(title, name, "version", height=1.2 + 0.3 * len(found)) as drawing:
        places = range(len(found))
        estimates = list(found.values())
        drawing.axes.hlines(places, [e.low for e in estimates], [e.high for e in estimates], BLUE)
        drawing.axes.scatter([e.value for e in estimates], places, color=BLUE, s=28, zorder=3)
        drawing.axes.set_yticks(places, [str(number) for number in found])
        drawing.axes.set_ylim(len(found) - 0.4, -0.6)
        drawing.axes.grid(visible=False, axis="y")
    return drawing.svg


def gain_figures(same: SameRows, first: int) -> list[Markup]:
    """Draw by metric how much better than the first the other versions are on the same rows."""
    metrics = dict.fromkeys(name for gains in same.gains.values() for name in gains)
    return [
        _gain(name, {n: gains[name] for n, gains in same.gains.items() if name in gains}, first)
        for name in metrics
    ]


def _gain(metric: str, found: Mapping[int, Gain], first: int) -> Markup:
    title = f"Gain in {metric} over version {first}"
    with draw(title, "right is better", "version", height=1.2 + 0.3 * len(found)) as drawing:
        axes = drawing.axes
        axes.axvline(0, color=INK, linewidth=0.8)
        for place, gain in enumerate(found.values()):
            colour = GREEN if gain.low > 0 else ORANGE if gain.high < 0 else BLUE
            axes.hlines([place], [gain.low], [gain.high], color=colour, linewidth=2.4)
            axes.scatter([gain.gain], [place], color=colour, s=44, zorder=3)
        reach = max(max(abs(g.low), abs(g.high)) for g in found.values()) * 1.15 or 1.0
        axes.set_xlim(-reach, reach)
        axes.set_yticks(range(len(found)), [str(number) for number in found])
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
    return drawing.svg


def curve_figures(evaluations: Mapping[int, Evaluation]) -> list[Markup]:
    """Draw what the task allows over each other: ROC and calibration."""
    roc = {number: one.curves.roc for number, one in evaluations.items() if one.curves.roc}
    calibration = {
        number: [(x, y) for x, y, _ in one.curves.calibration]
        for number, one in evaluations.items()
        if one.curves.calibration
    }
    figures = []
    if roc:
        figures.append(
            _lines("ROC curves", "false positive rate", "true positive rate", roc, "by chance")
        )
    if calibration:
        title = "Calibration, by tenths of the rows"
        x, y = "mean predicted probability", "observed share"
        figures.append(_lines(title, x, y, calibration, "perfect"))
    return figures


def _lines(
    title: str,
    x: str,
    y: str,
    found: Mapping[int, Iterable[tuple[float, float]]],
    diagonal: str,
) -> Markup:
    with draw(title, x, y) as drawing:
        axes = drawing.axes
        top = 0.0
        for place, (number, points) in enumerate(found.items()):
            xs, ys = zip(*points, strict=True)
            top = max(top, *xs, *ys)
            style = "-" if place < len(SERIES) else "--"
            colour = SERIES[place % len(SERIES)]
            axes.plot(xs, ys, color=colour, linestyle=style, label=f"version {number}")
        axes.plot([0, top], [0, top], color=MUTED, linestyle=":", linewidth=1, label=diagonal)
        drawing.figure.legend(loc="outside lower center", ncols=4)
    return drawing.svg


def importance_figure(evaluations: Mapping[int, Evaluation]) -> Markup | None:
    """Draw what the most important features of any version matter to each; None for none."""
    found = {number: one.importance for number, one in evaluations.items() if one.importance}
    most = {
        name: max(one.get(name, 0.0) for one in found.values())
        for each in found.values()
        for name in each
    }
    names = sorted(most, key=lambda name: -most[name])[:_FEATURES]
    if not names:
        return None
    height = 0.8 / len(found)
    size = 1.4 + 0.14 * len(names) * (len(found) + 1)
    title, axis = "Loss by shuffled feature", "how much worse it gets"
    with draw(title, axis, "", height=size, width=11) as drawing:
        axes = drawing.axes
        for place, (number, importance) in enumerate(found.items()):
            at = [row - 0.4 + height * (place + 0.5) for row in range(len(names))]
            values = [importance.get(name, 0.0) for name in names]
            colour = SERIES[place % len(SERIES)]
            axes.barh(at, values, color=colour, height=height * 0.9, label=f"version {number}")
        axes.set_yticks(range(len(names)), [cut(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.grid(visible=False, axis="y")
        drawing.figure.legend(loc="outside lower center", ncols=4)
    return drawing.svg
