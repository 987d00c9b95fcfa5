"""The tuning report: how the search went, and which setting won."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from holdtrue.reports._figures import BLUE, INK, MUTED, ORANGE, SERIES, draw, plain_log
from holdtrue.reports._format import number, span, table
from holdtrue.reports._page import write_page

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from markupsafe import Markup

    from holdtrue.declaration import Declaration
    from holdtrue.declaration._models import Range
    from holdtrue.references import Study, Trial

_RANKED = 15
_RANKED_SHORT = 5


def write_tuning_report(path: Path, declaration: Declaration, study: Study) -> None:
    """Write the tuning report as one HTML file.

    Args:
        path: The file.
        declaration: Of the system; its search spaces say which axes are logarithmic.
        study: The search.
    """
    ranked = _ranked(study)
    write_page(
        path,
        declaration,
        "tuning",
        title="Tuning",
        study=study,
        best=study.best_trial,
        headline=_headline(study),
        ranked=ranked[:_RANKED],
        failed=_failed(study),
        warm=sum(trial.warm for trial in study.trials),
        work=sum(trial.seconds for trial in study.trials),
        history=_history(study),
        parameters=_parameters(declaration, study, ranked),
    )


def tuning_markdown(declaration: Declaration, study: Study) -> str:
    """Write the short form of the tuning report; arguments as for `write_tuning_report`."""
    rows = [
        [trial.number, number(trial.value), _short(trial.candidate), _setting(trial)]
        for trial in _ranked(study)[:_RANKED_SHORT]
    ]
    parts = [
        f"# Tuning of {declaration.name}",
        f"**{study.metric} {number(study.best_trial.value)}** {_headline(study)}",
        table(["Trial", study.metric, "Estimator", "Setting"], rows),
    ]
    failed = [[trial.number, _short(trial.candidate), trial.reason] for trial in _failed(study)]
    if failed:
        parts += ["## Failed trials", table(["Trial", "Estimator", "Reason"], failed)]
    return "\n\n".join(parts)


def _ranked(study: Study) -> list[Trial]:
    """The trials with a value, best first; the one that was chosen wins a draw."""
    sign = -1.0 if study.direction == "higher" else 1.0
    found = [(trial.value, trial) for trial in study.trials if trial.value is not None]
    found.sort(key=lambda pair: (sign * pair[0], pair[1].number != study.best, pair[1].number))
    return [trial for _, trial in found]


def _failed(study: Study) -> list[Trial]:
    return [trial for trial in study.trials if trial.state == "failed"]


def _headline(study: Study) -> str:
    best = study.best_trial
    others: dict[str, Trial] = {}
    for trial in _ranked(study):
        others.setdefault(trial.candidate, trial)
    others.pop(best.candidate, None)
    said = f"by {_short(best.candidate)} in trial {best.number} of {len(study.trials):,}"
    for candidate, trial in others.items():
        said += f"; the best {_short(candidate)} reached {number(trial.value)}"
    return f"{said}. {study.workers:,} at a time, {span(study.seconds)} in all."


def _short(candidate: str) -> str:
    return candidate.rsplit(".", 1)[-1]


def _setting(trial: Trial) -> str:
    return ", ".join(f"{name}={number(value)}" for name, value in trial.params.items())


def _colours(trials: Sequence[Trial]) -> dict[str, str]:
    names = sorted({trial.candidate for trial in trials})
    return {name: SERIES[i % len(SERIES)] for i, name in enumerate(names)}


def _history(study: Study) -> Markup:
    from matplotlib.ticker import MaxNLocator

    done = [(t.number, t.value, t) for t in study.trials if t.value is not None]
    done.sort(key=lambda item: item[0])
    colours = _colours(study.trials)
    better = max if study.direction == "higher" else min
    label = f"{study.metric} ({study.direction} is better)"
    with draw("Every trial, and the best so far", "trial", label, width=11) as drawing:
        axes = drawing.axes
        for candidate, colour in colours.items():
            points = [(n, value) for n, value, trial in done if trial.candidate == candidate]
            if points:
                x, y = zip(*points, strict=True)
                axes.scatter(x, y, s=26, color=colour, label=_short(candidate))
        so_far: list[float] = []
        for _, value, _ in done:
            so_far.append(better(so_far[-1], value) if so_far else value)
        axes.step([n for n, *_ in done], so_far, where="post", color=INK, label="best so far")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        drawing.figure.legend(loc="outside lower center", ncols=6)
    return drawing.svg


def _parameters(
    declaration: Declaration, study: Study, ranked: Sequence[Trial]
) -> dict[str, list[Markup]]:
    figures: dict[str, list[Markup]] = {}
    for candidate in declaration.model.candidates:
        trials = [trial for trial in ranked if trial.candidate == candidate.estimator]
        shown = figures.setdefault(candidate.estimator, [])
        for name, space in candidate.space.items():
            known = [trial for trial in trials if name in trial.params]
            if known:
                shown.append(_parameter(name, space, known, study))
    return figures


def _parameter(name: str, space: Range, trials: Sequence[Trial], study: Study) -> Markup:
    from matplotlib.ticker import LogLocator

    values: list[Any] = [trial.params[name] for trial in trials]
    heights = [math.nan if trial.value is None else trial.value for trial in trials]
    scale = " (logarithmic)" if space.log else ""
    with draw(f"{study.metric} by {name}", f"{name}{scale}", study.metric, height=2.8) as drawing:
        axes = drawing.axes
        if space.choice is not None:
            names = [number(value) for value in space.choice]
            places = [
                names.index(number(value)) if number(value) in names else -1 for value in values
            ]
            axes.set_xticks(range(len(names)), names)
            axes.set_xlim(-0.5, len(names) - 0.5)
            values = places
        elif space.log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            plain_log(axes.xaxis)
        axes.scatter(values, heights, s=26, color=BLUE, alpha=0.75)
        chosen = [i for i, trial in enumerate(trials) if trial.number == study.best]
        for i in chosen:
            axes.scatter([values[i]], [heights[i]], s=110, facecolor="none", edgecolor=ORANGE)
            axes.axvline(values[i], color=MUTED, linewidth=0.7, linestyle=":")
    return drawing.svg
