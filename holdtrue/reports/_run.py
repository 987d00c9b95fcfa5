"""The page about runs of the plan: where the time of the last one went, and earlier ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdtrue.reports._format import cell, moment, number, share, span, table
from holdtrue.reports._page import write_page
from holdtrue.reports._run_figures import DRAWN, timeline_figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from holdtrue.declaration import Declaration
    from holdtrue.references import PlanRun, RanStep
    from holdtrue.trial_times import TrialTime

# Earlier runs that are listed.
_EARLIER = 20
_UNKNOWN = "-"
_STATES = {
    "done": "done",
    "found": "found, done before",
    "failed": "failed",
    "running": "did not end",
}


@dataclass(frozen=True)
class _Row:
    """A step in the table."""

    step: RanStep
    state: str
    share: float
    """Of the run's wall time, 0..1."""
    cpu: tuple[str, str]
    """CPU time of the run's process, and that of Ray's workers; empty where none is known."""
    memory: tuple[str, str]
    """Peak memory, likewise."""


def run_words(run: PlanRun) -> str:
    """Where the time of a run went, in words: ``tune took 71 % of 3 min 12 s``."""
    longest, seconds = run.longest, run.seconds
    if seconds is None:
        return "it did not end"
    if longest is None or longest.seconds is None or not seconds:
        return f"it took {span(seconds)}"
    if run.between_s > longest.seconds:
        return f"{share(run.between_s / seconds)} of {span(seconds)} passed between the steps"
    return f"{longest.step} took {share(longest.seconds / seconds)} of {span(seconds)}"


def write_run_report(
    path: Path, declaration: Declaration, runs: Sequence[PlanRun], trials: Sequence[TrialTime]
) -> None:
    """Write the page about runs as one HTML file.

    Args:
        path: The file.
        declaration: Of the system.
        runs: Newest first; at least one, and that has a step.
        trials: Of the search of the newest, by when they began.
    """
    run = runs[0]
    write_page(
        path,
        declaration,
        "run",
        title="The last run",
        run=run,
        words=run_words(run),
        timeline=timeline_figure(run, _end(run), trials),
        rows=_rows(run, trials),
        between=run.between_s,
        left_out=max(0, len(trials) - DRAWN),
        lanes=len({trial.lane for trial in trials}),
        earlier=[(one, _span(one.seconds)) for one in runs[:_EARLIER]],
        total=len(runs),
    )


def run_markdown(
    declaration: Declaration, runs: Sequence[PlanRun], trials: Sequence[TrialTime]
) -> str:
    """Write the short form of the page about runs; arguments as for `write_run_report`."""
    run = runs[0]
    head = ["Step", "State", "Took", "CPU time", "Peak memory", "Rows in", "Rows out"]
    steps = [
        [
            row.step.step,
            row.state,
            _span(row.step.seconds),
            " + ".join(filter(None, row.cpu)),
            " + ".join(filter(None, row.memory)),
            _count(row.step.rows_in),
            _count(row.step.rows_out),
        ]
        for row in _rows(run, trials)
    ]
    listed = [
        [moment(one.began), one.trigger, _span(one.seconds), one.result] for one in runs[:_EARLIER]
    ]
    parts = [
        f"# The last run of {declaration.name}",
        f"**{run_words(run)}** {cell(run.result)}",
        table(head, steps),
        "## Runs",
        table(["Began", "Trigger", "Took", "Result"], listed),
    ]
    return "\n\n".join(parts)


def _rows(run: PlanRun, trials: Sequence[TrialTime]) -> list[_Row]:
    whole = run.seconds or (_end(run) - run.began).total_seconds() or 1.0
    return [
        _Row(
            step=step,
            state=_STATES[step.state],
            share=(step.seconds or 0.0) / whole,
            cpu=(_span(step.cpu_seconds), _workers_cpu(step, trials)),
            memory=(
                _memory(step.peak_memory_bytes),
                _of("workers", _memory(step.workers_peak_memory_bytes)),
            ),
        )
        for step in run.steps
    ]


def _end(run: PlanRun) -> datetime:
    """When it ended; of one that did not, the last moment that is known."""
    if run.ended is not None:
        return run.ended
    return max((step.ended or step.began for step in run.steps), default=run.began)


def _span(seconds: float | None) -> str:
    return _UNKNOWN if seconds is None else span(seconds)


def _workers_cpu(step: RanStep, trials: Sequence[TrialTime]) -> str:
    """CPU time of workers; where they are on other machines what the trials of a search tell."""
    if step.workers_cpu_seconds is None and step.study is not None and trials:
        return _of("trials", span(sum(trial.cpu_seconds for trial in trials)))
    return _of("workers", _span(step.workers_cpu_seconds))


def _of(whose: str, what: str) -> str:
    return "" if what == _UNKNOWN else f"{whose} {what}"


def _memory(size: int | None) -> str:
    return _UNKNOWN if size is None else f"{round(size / 1e6):,} MB"


def _count(rows: int | None) -> str:
    return _UNKNOWN if rows is None else number(rows)
