"""The figure of the page about a run: its steps in time, and the trials of its search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.reports._figures import BLUE, GREEN, MUTED, ORANGE, YELLOW, draw

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from markupsafe import Markup

    from holdtrue.references import PlanRun, RanStep
    from holdtrue.trial_times import TrialTime

_COLOURS = {"done": BLUE, "found": MUTED, "failed": ORANGE, "running": ORANGE}
_TRIAL_COLOURS = {"complete": GREEN, "pruned": YELLOW, "failed": ORANGE}
_TRIAL_LABELS = {
    "complete": "trial, complete",
    "pruned": "trial, ended early",
    "failed": "trial, failed",
}
# Height of a lane of trials, where a step's row has 1; of all lanes together at most so much.
_LANE, _LANES = 0.35, 4.0
# Trials that are drawn, the longest of them: others are narrower than a line.
DRAWN = 2_000
_WIDE = 11.0
# Of its length, so that a trial and the next one of its lane are seen as two.
_GAP = 0.97
# Beyond so many seconds the axis counts minutes.
_LONG_S = 300.0


def timeline_figure(run: PlanRun, until: datetime, trials: Sequence[TrialTime]) -> Markup:
    """Draw when each step ran, and below the search its trials.

    Args:
        run: It has at least one step.
        until: Its end; the last moment that is known of one that did not end.
        trials: Of its search, by when they began.
    """
    whole_s = max((until - run.began).total_seconds(), 1e-3)
    unit, unit_s = ("minutes", 60.0) if whole_s > _LONG_S else ("seconds", 1.0)
    shown = sorted(sorted(trials, key=lambda one: one.began - one.ended)[:DRAWN], key=_began)
    n_lanes = max((one.lane for one in shown), default=-1) + 1
    lane = min(_LANE, _LANES / max(n_lanes, 1))

    def at(moment: datetime) -> float:
        return (moment - run.began).total_seconds() / unit_s

    places, y = [], 0.0
    for step in run.steps:
        places.append(y)
        y += 1.0 + (n_lanes * lane + 0.2 if _searched(step) and n_lanes else 0.0)
    title = "When each step ran" + (", and the trials of the search" if n_lanes else "")
    height = 1.3 + 0.27 * y
    with draw(title, f"{unit} since the run began", "", height=height, width=_WIDE) as drawing:
        axes = drawing.axes
        # What is found takes milliseconds: it is to be seen all the same.
        least = whole_s / unit_s / 500
        for place, step in zip(places, run.steps, strict=True):
            begin, end = at(step.began), at(step.ended or until)
            hollow = step.state == "running"
            axes.broken_barh(
                [(begin, max(end - begin, least))],
                (place - 0.35, 0.7),
                facecolor="none" if hollow else _COLOURS[step.state],
                edgecolor=_COLOURS[step.state],
            )
            if not (_searched(step) and n_lanes):
                continue
            for state, colour in _TRIAL_COLOURS.items():
                some = [one for one in shown if one.state == state]
                label: str | None = _TRIAL_LABELS[state]
                for number in sorted({one.lane for one in some}):
                    spans = [
                        (at(one.began), max(_GAP * (at(one.ended) - at(one.began)), least / 4))
                        for one in some
                        if one.lane == number
                    ]
                    top = place + 0.5 + number * lane
                    axes.broken_barh(
                        spans,
                        (top, lane * 0.8),
                        facecolor=colour,
                        linewidth=0,
                        label=label,
                    )
                    label = None
        axes.set_yticks(places, [step.step for step in run.steps])
        axes.set_ylim(y - 0.4, -0.6)
        axes.set_xlim(0, at(until) * 1.01 or 1.0)
        axes.grid(visible=False, axis="y")
        if n_lanes:
            drawing.figure.legend(loc="outside lower center", ncols=3)
    return drawing.svg


def _searched(step: RanStep) -> bool:
    return step.study is not None


def _began(trial: TrialTime) -> datetime:
    return trial.began
