"""The reports of a run: written as soon as what they show is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from holdtrue import reports
from holdtrue.references import (
    DataCheck,
    Evaluation,
    ModelRef,
    ProfileRef,
    Reference,
    Snapshot,
    Split,
    Study,
    Verdict,
)

if TYPE_CHECKING:
    from holdtrue.declaration import Declaration
    from holdtrue.plan._context import Context

Outputs = Callable[[str], Reference]
Kind = TypeVar("Kind", bound=Reference)

# By step: the report that can be written when it is done.
REPORTS = {"split": "data", "tune": "tuning", "gate": "evaluation"}


def _get(outputs: Outputs, step: str, kind: type[Kind]) -> Kind:
    found = outputs(step)
    if not isinstance(found, kind):
        message = f"step {step} gave {type(found).__name__}, expected {kind.__name__}"
        raise TypeError(message)
    return found


def write_reports(context: Context, step: str, outputs: Outputs) -> None:
    """Write the report that a finished step completes, and the page that links them."""
    if step not in REPORTS:
        return
    folder = context.store.path(context.reports)
    folder.mkdir(parents=True, exist_ok=True)
    path, declaration = folder / f"{REPORTS[step]}.html", context.declaration
    if step == "split":
        reports.write_data_report(
            path,
            declaration,
            _get(outputs, "extract", Snapshot),
            _get(outputs, "check", DataCheck),
            _get(outputs, "profile", ProfileRef),
            _get(outputs, "split", Split),
        )
    elif step == "tune":
        reports.write_tuning_report(path, declaration, _get(outputs, "tune", Study))
    else:
        reports.write_evaluation_report(
            path,
            declaration,
            _get(outputs, "fit", ModelRef),
            _get(outputs, "evaluate", Evaluation),
            _get(outputs, "gate", Verdict),
        )
    write_front_page(context)


def report_markdown(declaration: Declaration, step: str, outputs: Outputs) -> str | None:
    """The report that a step completes as Markdown; None where it completes none."""
    if step == "split":
        return reports.data_markdown(
            declaration,
            _get(outputs, "extract", Snapshot),
            _get(outputs, "check", DataCheck),
            _get(outputs, "profile", ProfileRef),
            _get(outputs, "split", Split),
        )
    if step == "tune":
        return reports.tuning_markdown(declaration, _get(outputs, "tune", Study))
    if step == "gate":
        return reports.evaluation_markdown(
            declaration,
            _get(outputs, "fit", ModelRef),
            _get(outputs, "evaluate", Evaluation),
            _get(outputs, "gate", Verdict),
        )
    return None


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
    champion = context.registry.champion(context.system)
    headline = "Nothing is promoted yet."
    if champion is not None:
        since = f"{champion.since:%Y-%m-%d %H:%M} UTC"
        headline = f"Version {champion.version.number} is the champion since {since}."
    reports.write_index(root / "index.html", context.declaration, entries, headline)
