"""The figures of the evaluation report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.reports._figures import BLUE, GREEN, INK, MUTED, ORANGE, cut, draw
from holdtrue.reports._format import number, share

if TYPE_CHECKING:
    from markupsafe import Markup

    from holdtrue.references import Difference, Evaluation

_VALUES = 25
_FEATURES = 20
_DATES = 5


def quality_figures(evaluation: Evaluation) -> list[Markup]:
    """Draw what the task allows: ROC, precision and calibration, or predicted against true."""
    curves = evaluation.curves
    figures = []
    if curves.roc:
        figures.append(_roc(evaluation))
    if curves.precision_recall:
        figures.append(_precision_recall(evaluation))
    if curves.calibration:
        figures.append(_calibration(evaluation))
    if curves.residuals:
        figures += [_predicted(evaluation), _errors(evaluation)]
    return figures


def _positive(evaluation: Evaluation) -> str:
    return evaluation.classes[1] if evaluation.classes else ""


def _roc(evaluation: Evaluation) -> Markup:
    found = evaluation.metrics.get("roc_auc")
    area = f", area {number(found.value)}" if found else ""
    title = f"ROC curve{area}"
    with draw(title, "false positive rate", "true positive rate") as drawing:
        x, y = zip(*evaluation.curves.roc, strict=True)
        drawing.axes.plot(
            [0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1, label="by chance"
        )
        drawing.axes.plot(x, y, color=BLUE, label="this model")
        drawing.figure.legend(loc="outside lower center", ncols=3)
    return drawing.svg


def _precision_recall(evaluation: Evaluation) -> Markup:
    confusion = evaluation.curves.confusion
    base = sum(confusion[1]) / max(sum(map(sum, confusion)), 1)
    title = f"Precision and recall of “{_positive(evaluation)}”"
    with draw(title, "recall", "precision") as drawing:
        x, y = zip(*evaluation.curves.precision_recall, strict=True)
        drawing.axes.axhline(
            base, color=MUTED, linestyle=":", linewidth=1, label=f"by chance {share(base)}"
        )
        drawing.axes.plot(x, y, color=BLUE, label="this model")
        drawing.axes.set_ylim(0, 1.03)
        drawing.figure.legend(loc="outside lower center", ncols=3)
    return drawing.svg


def _calibration(evaluation: Evaluation) -> Markup:
    title = "Calibration: predicted against observed, by tenths of the rows"
    two = len(evaluation.classes or ()) == 2
    whose = f"of “{_positive(evaluation)}”" if two else "of each class"
    with draw(title, f"mean predicted probability {whose}", "observed share") as drawing:
        x, y, _ = zip(*evaluation.curves.calibration, strict=True)
        top = max(*x, *y) * 1.05
        if evaluation.calibrated is not None:
            before_x, before_y, _ = zip(*evaluation.calibrated.curve, strict=True)
            top = max(top, *before_x, *before_y)
            drawing.axes.plot(
                before_x, before_y, color=ORANGE, marker="o", markersize=3, label="before"
            )
        drawing.axes.plot(
            [0, top], [0, top], color=MUTED, linestyle=":", linewidth=1, label="perfect"
        )
        drawing.axes.plot(x, y, color=BLUE, marker="o", markersize=4.5, label="this model")
        drawing.figure.legend(loc="outside lower center", ncols=3)
    return drawing.svg


def _predicted(evaluation: Evaluation) -> Markup:
    x, y = zip(*evaluation.curves.residuals, strict=True)
    title = f"Predicted against true, {len(x):,} rows"
    with draw(title, "predicted", "true") as drawing:
        ends = [min(*x, *y), max(*x, *y)]
        drawing.axes.plot(ends, ends, color=MUTED, linestyle=":", linewidth=1, label="perfect")
        drawing.axes.scatter(x, y, s=8, color=BLUE, alpha=0.45, linewidth=0, label="a row")
        drawing.figure.legend(loc="outside lower center", ncols=3)
    return drawing.svg


def _errors(evaluation: Evaluation) -> Markup:
    errors = [predicted - true for predicted, true in evaluation.curves.residuals]
    title = f"Errors of {len(errors):,} rows"
    with draw(title, "predicted minus true", "rows") as drawing:
        drawing.axes.hist(errors, bins=40, color=BLUE)
        drawing.axes.axvline(0, color=INK, linewidth=0.8)
    return drawing.svg


def slice_figure(column: str, metric: str, evaluation: Evaluation) -> Markup:
    """Draw one metric with its interval for the values of a column, those with most rows."""
    found = [
        (value, result.metrics[metric])
        for value, result in evaluation.slices[column].items()
        if metric in result.metrics
    ][:_VALUES]
    title = f"{metric} by {column}, {share(evaluation.confidence)} intervals"
    height = 1.5 + 0.24 * len(found)
    with draw(title, metric, "", height=height) as drawing:
        axes = drawing.axes
        overall = evaluation.metrics[metric].value
        label = f"all rows {number(overall)}"
        axes.axvline(overall, color=ORANGE, linestyle="--", linewidth=1.2, label=label)
        places = range(len(found))
        axes.hlines(places, [e.low for _, e in found], [e.high for _, e in found], color=BLUE)
        axes.scatter([e.value for _, e in found], places, color=BLUE, s=24, zorder=3)
        axes.set_yticks(places, [cut(value) for value, _ in found])
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        drawing.figure.legend(loc="outside lower center")
    return drawing.svg


def parts_figure(evaluation: Evaluation, metric: str) -> Markup | None:
    """Draw a metric of the parts of the test rows, in order of time; None without parts."""
    found = [(part, part.metrics[metric]) for part in evaluation.parts if metric in part.metrics]
    if not found:
        return None
    title = f"{metric} as time went by, {share(evaluation.confidence)} intervals"
    with draw(title, "part of the test rows, from", metric) as drawing:
        axes, places = drawing.axes, range(len(found))
        axes.vlines(places, [e.low for _, e in found], [e.high for _, e in found], color=BLUE)
        values = [e.value for _, e in found]
        axes.plot(places, values, color=BLUE, marker="o", markersize=4.5, label="this model")
        theirs = [
            (place, part.champion[metric])
            for place, (part, _) in enumerate(found)
            if metric in part.champion
        ]
        if theirs:
            x, y = zip(*theirs, strict=True)
            label = f"champion, version {evaluation.champion}"
            axes.plot(x, y, color=ORANGE, marker="s", markersize=4, linestyle="--", label=label)
        every = range(0, len(found), -(-len(found) // _DATES))
        axes.set_xticks(every, [f"{found[place][0].since:%m-%d %H:%M}" for place in every])
        axes.set_xlim(-0.5, len(found) - 0.5)
        axes.grid(visible=False, axis="x")
        drawing.figure.legend(loc="outside lower center", ncols=2)
    return drawing.svg


def importance_figure(evaluation: Evaluation, metric: str) -> Markup | None:
    """Draw the most important features; None where nothing was measured."""
    found = list(evaluation.importance.items())[:_FEATURES]
    if not found:
        return None
    title = f"Loss of {metric} by shuffled feature"
    height = 1.2 + 0.24 * len(found)
    with draw(title, f"how much worse {metric} gets", "", height=height) as drawing:
        places = range(len(found))
        drawing.axes.barh(places, [loss for _, loss in found], color=BLUE, height=0.65)
        drawing.axes.set_yticks(places, [cut(name) for name, _ in found])
        drawing.axes.set_ylim(len(found) - 0.4, -0.6)
        drawing.axes.axvline(0, color=INK, linewidth=0.8)
        drawing.axes.grid(visible=False, axis="y")
    return drawing.svg


def difference_figures(evaluation: Evaluation) -> list[Markup]:
    """Draw the gain over the champion in each metric with its interval."""
    return [_difference(found, evaluation) for found in evaluation.differences.values()]


def _difference(found: Difference, evaluation: Evaluation) -> Markup:
    title = f"Gain in {found.metric}"
    with draw(title, "gain over the champion (right is better)", "", height=1.5) as drawing:
        axes = drawing.axes
        colour = GREEN if found.low > 0 else ORANGE if found.high < 0 else BLUE
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.hlines([0], [found.low], [found.high], color=colour, linewidth=2.4)
        axes.scatter([found.gain], [0], color=colour, s=44, zorder=3)
        reach = max(abs(found.low), abs(found.high)) * 1.15 or 1.0
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-1, 1)
        axes.set_yticks([0], [share(evaluation.confidence)])
        axes.grid(visible=False, axis="y")
    return drawing.svg
