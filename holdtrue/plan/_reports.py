"""The reports of a run: written as soon as what they show is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from holdtrue import reports
from holdtrue.runs import runs_of
from holdtrue.trial_times import trial_times

if TYPE_CHECKING:
    from pathlib import Path

    from holdtrue.declaration import Declaration
    from holdtrue.plan._context import Context
    from holdtrue.references import DataCheck, PlanRun, Reference, Snapshot
    from holdtrue.trial_times import TrialTime

Outputs = Callable[[str], "Reference"]


@dataclass(frozen=True)
class _Report:
    """A report, and the steps whose results it shows, in the order of its arguments."""

    name: str
    write: Callable[..., None]
    markdown: Callable[..., str]
    steps: tuple[str, ...]


# By step: the report that can be written when it is done.
_REPORTS = {
    "split": _Report(
        "data",
        reports.write_data_report,
        reports.data_markdown,
        ("extract", "check", "profile", "split"),
    ),
    "tune": _Report("tuning", reports.write_tuning_report, reports.tuning_markdown, ("tune",)),
    "gate": _Report(
        "evaluation",
        reports.write_evaluation_report,
        reports.evaluation_markdown,
        ("fit", "evaluate", "gate"),
    ),
}
_REPORTS["refit"] = replace(_REPORTS["gate"], steps=(*_REPORTS["gate"].steps, "refit"))


def write_reports(context: Context, step: str, outputs: Outputs) -> None:
    """Write the report that a finished step completes, and the page that links them."""
    report = _REPORTS.get(step)
    if report is None:
        return
    folder = context.store.path(context.reports)
    folder.mkdir(parents=True, exist_ok=True)
    shown = [outputs(name) for name in report.steps]
    report.write(folder / f"{report.name}.html", context.declaration, *shown)
    write_front_page(context)


def write_refusal(context: Context, snapshot: Snapshot, check: DataCheck) -> Path:
    """Write the data report of rows that broke the contract, of which no other step follows."""
    page = context.store.path(context.reports, "data.html")
    page.parent.mkdir(parents=True, exist_ok=True)
    reports.write_data_report(page, context.declaration, snapshot, check)
    write_front_page(context)
    return page


def write_run_report(context: Context) -> None:
    """Write the page about the runs of the plan; there is at least one."""
    page = context.store.path("reports", context.system, "run.html")
    page.parent.mkdir(parents=True, exist_ok=True)
    reports.write_run_report(page, context.declaration, *_runs_and_trials(context))
    write_front_page(context)


def run_markdown(context: Context) -> str:
    """What that page says, as Markdown."""
    return reports.run_markdown(context.declaration, *_runs_and_trials(context))


def _runs_and_trials(context: Context) -> tuple[list[PlanRun], list[TrialTime]]:
    """The runs, newest first, and the trials of the newest."""
    runs = runs_of(context.store, context.system)
    trials = [
        trial
        for step in runs[0].steps
        if step.study is not None
        for trial in trial_times(context.store.path(step.study), step.began)
    ]
    return runs, trials


def report_markdown(declaration: Declaration, step: str, outputs: Outputs) -> str | None:
    """The report that a step completes as Markdown; None where it completes none."""
    report = _REPORTS.get(step)
    if report is None:
        return None
    return report.markdown(declaration, *[outputs(name) for name in report.steps])


def write_front_page(context: Context) -> None:
    """Write the page that links every report of the system."""
    root = context.store.path("reports", context.system)
    entries = []
    titles = {
        "data": ("Data", "what was read, and whether it kept the contract"),
        "tuning": ("Tuning", "every setting that was tried"),
        "evaluation": ("Evaluation", "metrics, gates, slices, challenger and champion"),
    }
    for folder in sorted((p for p in root.iterdir() if p.is_dir()), reverse=True):
        for name, (title, about) in titles.items():
            if (folder / f"{name}.html").exists():
                link = f"{folder.name}/{name}.html"
                entries.append((f"{title}, as of {folder.name[:10]}", link, about))
    if (root / "monitor.html").exists():
        entries.insert(0, ("Monitoring", "monitor.html", "drift, performance and decisions"))
    if (root / "rollouts.html").exists():
        about = "how new versions took over: steps, evidence, verdicts"
        entries.insert(0, ("Rollouts", "rollouts.html", about))
    if (root / "run.html").exists():
        about = "where the time of the last run went, and how long earlier ones took"
        entries.insert(0, ("The last run", "run.html", about))
    champion = context.registry.champion(context.system)
    headline = "Nothing is promoted yet."
    if champion is not None:
        since = f"{champion.since:%Y-%m-%d %H:%M} UTC"
        headline = f"Version {champion.version.number} is the champion since {since}."
    reports.write_index(root / "index.html", context.declaration, entries, headline)
