"""The drift report: what the monitor saw, against which limits, and what it decided."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from holdtrue.reports._drift_figures import (
    attribution_figure,
    effect_figure,
    p_value_figure,
    performance_figure,
    slices_figure,
)
from holdtrue.reports._format import moment, number, probability, table
from holdtrue.reports._page import write_page

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from pathlib import Path

    from holdtrue.declaration import Declaration
    from holdtrue.references import (
        DriftReport,
        EstimatedQuality,
        PerformanceCheck,
        SliceQuality,
        WindowCheck,
    )

_ACTIONS = {
    "none": "Nothing to do",
    "warn": "Warning",
    "retrain": "Retrain",
    "fix_data": "Fix the data",
}
_STATES = {
    "quiet": "quiet",
    "suspect": "! suspect",
    "alarm": "✗ alarm",
    "too_few_rows": "too few rows",
}
_COLUMNS = 15
_WINDOWS = 62
_SHORT = 10
_LOGGED = 100


def write_drift_report(
    path: Path, declaration: Declaration, reports: Sequence[DriftReport]
) -> None:
    """Write the drift report as one HTML file.

    Args:
        path: The file.
        declaration: Of the system.
        reports: Runs of the monitor, in any order; none is allowed.
    """
    ordered = sorted(reports, key=lambda report: report.at)
    windows = _windows(ordered)
    performance = _performance(ordered, declaration.monitor.window)
    estimated, slices = _estimated(ordered), _slices(ordered)
    attribution = [check for report in ordered for check in report.attribution]
    metrics = dict.fromkeys(
        [*(found.metric for found in performance), *(found.metric for found in estimated)]
    )
    write_page(
        path,
        declaration,
        "drift",
        title="Monitoring",
        decisions=_log(ordered),
        runs=len(ordered),
        last=ordered[-1] if ordered else None,
        actions=_ACTIONS,
        states=_STATES,
        windows=windows,
        suspect=sum(_stands_out(window) for window in windows),
        longest=max((window.in_a_row for window in windows), default=0),
        rows=sum(window.rows for window in windows),
        effect=effect_figure(windows) if windows else None,
        p_value=p_value_figure(windows) if windows else None,
        strip=_strip(windows[-_WINDOWS:]),
        performance=performance,
        performance_figures=[
            performance_figure(
                metric,
                [found for found in performance if found.metric == metric],
                [found for found in estimated if found.metric == metric],
            )
            for metric in metrics
        ],
        estimated=estimated,
        slices=slices,
        slices_figure=slices_figure(slices) if slices else None,
        attribution=attribution[-1] if attribution else None,
        attribution_figure=attribution_figure(attribution[-1]) if attribution else None,
    )


def drift_markdown(declaration: Declaration, reports: Sequence[DriftReport]) -> str:
    """Write the short form of the drift report; arguments as for `write_drift_report`."""
    parts = [f"# Monitoring of {declaration.name}"]
    ordered = sorted(reports, key=lambda report: report.at)
    if not ordered:
        return "\n\n".join([*parts, "The monitor has not run yet."])
    last = ordered[-1].decision
    held = f" (held back: {last.held_back})" if last.held_back else ""
    parts.append(f"**{_ACTIONS[last.action]}**{held}: {last.reason}")
    windows = [
        [
            moment(window.start),
            number(window.rows),
            _STATES[window.state],
            f"{number(window.effect)} / {number(window.effect_limit)}",
            f"{probability(window.p_value)} / {probability(window.p_limit)}",
            window.columns[0].column if window.columns else "-",
        ]
        for window in reversed(_windows(ordered)[-_SHORT:])
    ]
    if windows:
        head = ["Window from", "Rows", "State", "Effect / limit", "p / limit", "Most different"]
        parts += [f"## Last {len(windows)} windows", table(head, windows)]
    checks = [
        [
            moment(found.start),
            found.version,
            f"{found.metric} {number(found.value.value)}",
            f"{number(found.value.low)} to {number(found.value.high)}",
            number(found.limit),
            "✗ worse" if found.worse else "✓ as expected",
        ]
        for found in reversed(_performance(ordered, declaration.monitor.window)[-_SHORT:])
    ]
    if checks:
        head = ["From", "Version", "Measured", "Interval", "Limit", "Verdict"]
        parts += ["## Performance", table(head, checks)]
    parts = [*parts, *_by_slice(_slices(ordered)), *_moved(ordered)]
    guesses = [
        [
            moment(found.start),
            found.version,
            f"{found.metric} {number(found.value.value)}",
            f"{number(found.value.low)} to {number(found.value.high)}",
            number(found.expected),
        ]
        for found in reversed(_estimated(ordered)[-_SHORT:])
    ]
    if guesses:
        head = ["Window from", "Version", "Estimate", "Interval", "When evaluated"]
        parts += ["## Estimated performance, without labels", table(head, guesses)]
    return "\n\n".join(parts)


def _log(reports: Sequence[DriftReport]) -> list[DriftReport]:
    """Decisions worth reading, newest first: the last ones, and those that called for something."""
    recent = len(reports) - _SHORT
    shown = [r for i, r in enumerate(reports) if i >= recent or r.decision.action != "none"]
    return shown[: -_LOGGED - 1 : -1]


def _stands_out(window: WindowCheck) -> bool:
    return window.state in ("suspect", "alarm")


def _windows(reports: Sequence[DriftReport]) -> list[WindowCheck]:
    """All windows by time; of a window that was compared again for a version, the last result."""
    found = {
        (window.start, window.end, report.version): window
        for report in reports
        for window in report.windows
    }
    return [found[key] for key in sorted(found)]


def _performance(reports: Sequence[DriftReport], window: timedelta) -> list[PerformanceCheck]:
    """The checks by time, of those that end in the same window the last: looks may be many."""
    seconds = window.total_seconds()
    found = {
        (check.end.timestamp() // seconds, check.version, check.metric): check
        for report in reports
        for check in report.performance
    }
    return [found[key] for key in sorted(found)]


def _estimated(reports: Sequence[DriftReport]) -> list[EstimatedQuality]:
    """The estimates of windows by time; of one that was compared again, the last."""
    found = {
        (one.start, one.end, one.version, one.metric): one
        for report in reports
        for one in report.estimated
        if one.of == "window"
    }
    return [found[key] for key in sorted(found)]


def _slices(reports: Sequence[DriftReport]) -> tuple[SliceQuality, ...]:
    """Those of the newest look that measured the quality."""
    measured = (report.slices for report in reversed(reports) if report.performance)
    return next(measured, ())


def _by_slice(slices: Sequence[SliceQuality]) -> list[str]:
    if not slices:
        return []
    rows = [
        [
            f"{one.column} {one.slice}",
            number(one.rows),
            f"{one.metric} {number(one.value.value)}",
            f"{number(one.value.low)} to {number(one.value.high)}",
            number(one.expected),
            number(one.limit),
            "✗ worse" if one.worse else "✓ as expected",
        ]
        for one in slices[:_SHORT]
    ]
    head = ["Slice", "Rows", "Measured", "Interval", "When evaluated", "Limit", "Verdict"]
    return ["## Performance by slice, those that lost most", table(head, rows)]


def _moved(reports: Sequence[DriftReport]) -> list[str]:
    checks = [check for report in reports for check in report.attribution]
    return [f"## What moved the scores\n\n{checks[-1].detail}."] if checks else []


def _strip(windows: Sequence[WindowCheck]) -> dict[str, Any]:
    """The effect of each column by window, as cells from pale (0) to full (the largest)."""
    largest: dict[str, float] = {}
    for window in windows:
        for found in window.columns:
            largest[found.column] = max(largest.get(found.column, 0.0), found.effect)
    names = sorted(largest, key=lambda name: -largest[name])[:_COLUMNS]
    # One broken column would leave all the others pale: the colour ends at 3 times the limit.
    limit = max((window.effect_limit for window in windows), default=0.0)
    top = min(max(largest.values(), default=0.0), 3 * limit) or 1.0
    rows = []
    for name in names:
        cells = []
        for window in windows:
            effect = next((c.effect for c in window.columns if c.column == name), None)
            label = "not among the most different" if effect is None else number(effect)
            heat = min((effect or 0.0) / top, 1.0)
            cells.append({"heat": heat, "label": f"{name}, {moment(window.start)}: {label}"})
        rows.append((name, cells))
    labels = []
    for _, group in groupby(windows, key=lambda window: (window.start.year, window.start.month)):
        month = list(group)
        # A label needs the room of a few cells.
        first = f"{month[0].start:%b %Y}" if len(month) > 3 else ""
        labels += [first, *[""] * (len(month) - 1)]
    return {"rows": rows, "labels": labels, "top": top}
