"""The figures of the tuning report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from holdtrue.reports._figures import BLUE, INK, MUTED, ORANGE, SERIES, SURFACE, draw, plain_log
from holdtrue.reports._format import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup
    from matplotlib.axes import Axes

    from holdtrue.declaration import Range
    from holdtrue.references import Study, Trial
    from holdtrue.tuning._space import Space

_WIDE = 11.0
# Beyond so many times the middle half of all values, a trial is drawn at the edge: one that failed
# to learn would press all others into a line.
_FAR = 3.0
# Places of ticks where the distance to 1 is on a logarithmic scale.
_NEAR_ONE = (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999, 0.99999)
_LADDERS = {"rounds": "boosting rounds", "folds": "folds", "steps": "steps"}


def short(candidate: str) -> str:
    """The name of a candidate without its package: ``XGBClassifier#2``."""
    return candidate.rsplit(".", 1)[-1]


class _View:
    """The heights that a figure shows; far worse values are moved to its edge."""

    def __init__(self, study: Study, values: Sequence[float]) -> None:
        from numpy import quantile

        self.better = max if study.direction == "higher" else min
        self._worse = min if study.direction == "higher" else max
        self.marker = "v" if study.direction == "higher" else "^"
        low, high = quantile(values, [0.25, 0.75])
        reach = _FAR * (high - low)
        self.edge = float(low - reach if study.direction == "higher" else high + reach)
        self.cut = bool(reach) and any(self.is_far(value) for value in values)
        self.far = sum(self.is_far(value) for value in values) if self.cut else 0

    def is_far(self, value: float) -> bool:
        return self._worse(value, self.edge) != self.edge

    def at(self, value: float) -> float:
        return self.edge if self.cut and self.is_far(value) else value

    def scatter(self, axes: Axes, x: Sequence[Any], y: Sequence[float], **style: Any) -> None:
        """Draw points; those that are far away as arrows at the edge."""
        near = [not self.cut or not self.is_far(value) for value in y]
        for marker, wanted in (("o", True), (self.marker, False)):
            places = [place for place, is_near in zip(x, near, strict=True) if is_near == wanted]
            heights = [
                self.at(value) for value, is_near in zip(y, near, strict=True) if is_near == wanted
            ]
            if places:
                axes.scatter(places, heights, marker=marker, **style)
                style.pop("label", None)

    @property
    def said(self) -> str:
        """What the title adds."""
        return f" ({self.far} far worse at the edge)" if self.far else ""


def _measured(study: Study) -> list[tuple[Trial, float]]:
    """The trials with a value, and where they are drawn.

    A trial that was ended between folds has a mean over fewer folds, which may be easier ones: it
    is moved by what the folds that it lacks made of the best trial.
    """
    best = study.best_trial
    found = []
    for trial in study.trials:
        if trial.value is None:
            continue
        value, n_folds = trial.value, len(trial.fold_values)
        if (
            trial.state == "pruned"
            and trial.ladder == "folds"
            and n_folds
            and best.value is not None
        ):
            value += best.value - sum(best.fold_values[:n_folds]) / n_folds
        found.append((trial, value))
    return found


def history_figure(study: Study, labels: Sequence[str]) -> Markup:
    """Draw every trial with a value by its number, and the best so far.

    Args:
        study: The search; at least one trial is complete.
        labels: Candidates in the order of their colours.
    """
    from matplotlib.ticker import MaxNLocator

    done = _measured(study)
    view = _View(study, [value for _, value in done])
    heading = f"Every trial, and the best so far{view.said}"
    label = f"{study.metric} ({study.direction} is better)"
    with draw(heading, "trial", label, width=_WIDE) as drawing:
        axes = drawing.axes
        for i, candidate in enumerate(labels):
            colour = SERIES[i % len(SERIES)]
            for state, face, said in (
                ("complete", colour, short(candidate)),
                ("pruned", "none", f"{short(candidate)}, ended early"),
            ):
                points = [
                    (t.number, v) for t, v in done if (t.candidate, t.state) == (candidate, state)
                ]
                if points:
                    x, y = zip(*points, strict=True)
                    view.scatter(axes, x, y, s=26, facecolor=face, edgecolor=colour, label=said)
        complete = [
            (trial.number, value)
            for trial, value in done
            if trial.state == "complete" and trial.within_limits
        ]
        so_far: list[float] = []
        for _, value in complete:
            so_far.append(view.better(so_far[-1], value) if so_far else value)
        x_line, y_line = [n for n, _ in complete], [view.at(value) for value in so_far]
        if study.trials[-1].number > x_line[-1]:
            x_line, y_line = [*x_line, study.trials[-1].number], [*y_line, y_line[-1]]
        axes.step(x_line, y_line, where="post", color=INK, label="best so far")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        drawing.figure.legend(loc="outside lower center", ncols=4)
    return drawing.svg


def front_figure(study: Study, cost: str, limit: float | None) -> Markup:
    """Draw the metric against what models cost, and those that no other beats in both.

    Args:
        study: The search; its complete trials have that cost.
        cost: Its name.
        limit: What is allowed.
    """
    from holdtrue.tuning._choice import front

    done = [(t, v) for t, v in _measured(study) if t.state == "complete" and cost in t.costs]
    view = _View(study, [value for _, value in done])
    best = front([trial for trial, _ in done], cost, higher=study.direction == "higher")
    label = f"{study.metric} ({study.direction} is better)"
    with draw(f"{study.metric} against {cost}{view.said}", cost, label, width=_WIDE) as drawing:
        axes = drawing.axes
        x, y = zip(*((trial.costs[cost], value) for trial, value in done), strict=True)
        view.scatter(axes, x, y, s=26, color=BLUE, label="complete")
        x_line = [trial.costs[cost] for trial in best]
        y_line = [view.at(trial.value or 0.0) for trial in best]
        axes.step(x_line, y_line, where="post", color=INK, label="the best for what they cost")
        chosen = study.best_trial
        place = [chosen.costs[cost]], [view.at(chosen.value or 0.0)]
        axes.scatter(*place, s=110, facecolor="none", edgecolor=ORANGE, label="chosen")
        if min(x) > 0:
            axes.set_xscale("log")
            plain_log(axes.xaxis)
        if limit is not None:
            axes.axvline(limit, color=MUTED, linestyle="--", label="limit")
        drawing.figure.legend(loc="outside lower center", ncols=4)
    return drawing.svg


def curve_figures(study: Study) -> list[Markup]:
    """Draw how good each trial was on its way, a figure for each way of counting."""
    by_ladder: dict[str, list[Trial]] = {}
    for trial in study.trials:
        if len(trial.reports) > 1 or (trial.reports and trial.state == "pruned"):
            by_ladder.setdefault(trial.ladder or "steps", []).append(trial)
    return [_curves(study, ladder, by_ladder[ladder]) for ladder in _LADDERS if ladder in by_ladder]


def _curves(study: Study, ladder: str, trials: Sequence[Trial]) -> Markup:
    from matplotlib.ticker import MaxNLocator

    view = _View(study, [value for trial in trials for _, value in trial.reports])
    what, shown = _LADDERS[ladder], set()
    edge = " (what is far worse at the edge)" if view.cut else ""
    heading = f"How good each trial was on its way, by {what}{edge}"
    with draw(heading, what, f"mean {study.metric} of the folds", width=_WIDE) as drawing:
        axes = drawing.axes
        for trial in sorted(trials, key=lambda t: (t.number == study.best, t.state == "complete")):
            if trial.number == study.best:
                kind, colour, width, alpha = "the best", ORANGE, 2.4, 1.0
            elif trial.state == "complete":
                kind, colour, width, alpha = "complete", BLUE, 1.0, 0.45
            else:
                kind, colour, width, alpha = "ended early", MUTED, 0.9, 0.55
            x = [step for step, _ in trial.reports]
            y = [view.at(value) for _, value in trial.reports]
            label = None if kind in shown else kind
            axes.plot(x, y, color=colour, linewidth=width, alpha=alpha, label=label)
            if trial.state == "pruned":
                axes.scatter(x[-1:], y[-1:], s=14, facecolor=SURFACE, edgecolor=MUTED, zorder=3)
            shown.add(kind)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        drawing.figure.legend(loc="outside lower center", ncols=3)
    return drawing.svg


def parallel_figure(study: Study, space: Space, label: str) -> Markup | None:
    """Draw each complete trial of a candidate as a line through its parameters and its value.

    None where there are fewer than two parameters or two trials.
    """
    trials = [
        (trial, value)
        for trial, value in _measured(study)
        if trial.candidate == label and trial.state == "complete"
    ]
    spans = {
        name: span
        for name, span in space.spans(label).items()
        if any(name in trial.params for trial, _ in trials)
    }
    if len(spans) < 2 or len(trials) < 2:
        return None
    view = _View(study, [value for _, value in trials])
    order = sorted(trials, key=lambda pair: pair[1], reverse=study.direction == "lower")
    heights = [view.at(value) for _, value in trials]
    low, high = min(heights), max(heights)
    heading = f"{short(label)}: each complete trial as a line; the better, the darker"
    with draw(heading, "", "", width=_WIDE, height=3.8) as drawing:
        axes = drawing.axes
        places = range(len(spans) + 1)
        axes.set_xticks(places, [*spans, study.metric])
        axes.tick_params(axis="both", length=0)
        if len(spans) > 5:
            axes.tick_params(axis="x", labelrotation=18)
        axes.set_yticks([])
        axes.set_ylim(-0.1, 1.1)
        axes.spines[["left", "bottom"]].set_visible(False)
        for rank, (trial, value) in enumerate(order):
            end = (view.at(value) - low) / (high - low) if high > low else 0.5
            y = [_height(name, span, trial) for name, span in spans.items()]
            chosen = trial.number == study.best
            fade = 0.07 + 0.6 * ((rank + 1) / len(order)) ** 2
            axes.plot(
                places,
                [*y, end],
                color=ORANGE if chosen else BLUE,
                alpha=1.0 if chosen else fade,
                linewidth=2.4 if chosen else 1.3,
                zorder=3 if chosen else 2,
                # So that it is seen beside a parameter that it has no value of.
                marker="o" if chosen else None,
                markersize=4.5,
            )
        ends = [
            *(_ticks(span) for span in spans.values()),
            [(0.0, number(low)), (1.0, number(high))],
        ]
        for place, ticks in enumerate(ends):
            axes.axvline(place, 0.083, 0.917, color=MUTED, linewidth=0.8)
            _label_axis(axes, place, ticks)
    return drawing.svg


def _label_axis(axes: Axes, place: int, ticks: Sequence[tuple[float, str]]) -> None:
    """Write the ends of a scale below and above its axis, and what is between beside it."""
    for height, text in ticks:
        side = {0.0: "top", 1.0: "bottom"}.get(height, "center")
        shift = {"top": -0.03, "bottom": 0.03}.get(side, 0.0)
        axes.text(
            place, height + shift, text, ha="center", va=side, fontsize=8, color=MUTED, zorder=4,
            bbox={"facecolor": SURFACE, "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )  # fmt: skip


def _height(name: str, span: Range, trial: Trial) -> float:
    """Where a value lies on its axis, 0..1; not a number where it was not searched."""
    if name not in trial.params:
        return math.nan
    value: Any = trial.params[name]
    if span.choice is not None:
        places = [i for i, known in enumerate(span.choice) if known == value]
        return places[0] / max(len(span.choice) - 1, 1) if places else math.nan
    low, high = (_scaled(span, end) for end in span.int or span.float or (0, 1))
    return (_scaled(span, value) - low) / (high - low) if high > low else 0.5


def _scaled(span: Range, value: float) -> float:
    if span.log == "reverse":
        return -math.log10(1 - value)
    return math.log10(value) if span.log else float(value)


def _ticks(span: Range) -> list[tuple[float, str]]:
    if span.choice is not None:
        last = max(len(span.choice) - 1, 1)
        return [(i / last, number(value)) for i, value in enumerate(span.choice)]
    low, high = span.int or span.float or (0, 1)
    return [(0.0, number(low)), (1.0, number(high))]


def importance_figure(label: str, metric: str, found: dict[str, float]) -> Markup:
    """Draw how much each parameter explains of the differences between trials.

    Args:
        label: The candidate.
        metric: What was searched for.
        found: By parameter, most important first; shares that add up to 1.
    """
    height = 1.2 + 0.26 * len(found)
    heading = f"{short(label)}: what {metric} depends on"
    with draw(heading, "share of the importance", "", height=height) as drawing:
        places = range(len(found))
        drawing.axes.barh(places, list(found.values()), color=BLUE, height=0.65)
        drawing.axes.set_yticks(places, list(found))
        drawing.axes.set_ylim(len(found) - 0.4, -0.6)
        drawing.axes.set_xlim(0, max(max(found.values()) * 1.05, 1e-9))
        drawing.axes.grid(visible=False, axis="y")
    return drawing.svg


def slice_figures(study: Study, space: Space, label: str) -> list[Markup]:
    """Draw the metric by each parameter of a candidate."""
    trials = [(trial, value) for trial, value in _measured(study) if trial.candidate == label]
    figures = []
    for name, span in space.spans(label).items():
        known = [(trial, value) for trial, value in trials if name in trial.params]
        if known:
            figures.append(_slice(study, name, span, known))
    return figures


def _slice(study: Study, name: str, span: Range, known: Sequence[tuple[Trial, float]]) -> Markup:
    view = _View(study, [value for _, value in known])
    scale = " (logarithmic)" if span.log is True else " (nearness to 1)" if span.log else ""
    title = f"{study.metric} by {name}"
    with draw(title, f"{name}{scale}", study.metric, height=2.8) as drawing:
        axes = drawing.axes
        place = _prepare(axes, span)
        for state, style in (
            ("pruned", {"facecolor": "none", "edgecolor": MUTED}),
            ("complete", {"color": BLUE, "alpha": 0.75}),
        ):
            points = [(place(t.params[name]), v) for t, v in known if t.state == state]
            if points:
                x, y = zip(*points, strict=True)
                view.scatter(axes, x, y, s=26, **style)
        for trial, value in known:
            if trial.number == study.best:
                x_best = place(trial.params[name])
                axes.scatter([x_best], [value], s=110, facecolor="none", edgecolor=ORANGE)
                axes.axvline(x_best, color=MUTED, linewidth=0.7, linestyle=":")
    return drawing.svg


def _prepare(axes: Axes, span: Range) -> Any:
    """Give the horizontal axis the scale of a parameter; returns where a value is drawn."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if span.choice is not None:
        names = [number(value) for value in span.choice]
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
        return lambda value: names.index(number(value)) if number(value) in names else -1
    if span.log == "reverse" and span.float is not None:
        low, high = (_scaled(span, end) for end in span.float)
        ticks = [value for value in _NEAR_ONE if span.float[0] <= value <= span.float[1]]
        axes.set_xticks([_scaled(span, value) for value in ticks], [f"{v:g}" for v in ticks])
        margin = 0.05 * (high - low) or 0.1
        axes.set_xlim(low - margin, high + margin)
        return lambda value: _scaled(span, value)
    if span.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        plain_log(axes.xaxis)
    elif span.int is not None:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return lambda value: value
