"""The data report: what was extracted, what the contract said, and what the columns look like."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.reports._figures import sparkline
from holdtrue.reports._format import cell, moment, number, share, table
from holdtrue.reports._page import write_page

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from markupsafe import Markup

    from holdtrue.declaration import Declaration
    from holdtrue.references import ColumnSummary, DataCheck, Finding, ProfileRef, Snapshot, Split

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S = 86_400
_BARS = 24
_TYPICAL = 3


def write_data_report(
    path: Path,
    declaration: Declaration,
    snapshot: Snapshot,
    check: DataCheck,
    profile: ProfileRef | None = None,
    split: Split | None = None,
) -> None:
    """Write the data report as one HTML file.

    Args:
        path: The file.
        declaration: Of the system.
        snapshot: What was extracted.
        check: What the contract said.
        profile: Of the training rows; left out where the contract is broken.
        split: Which rows are trained and tested on; the same.
    """
    write_page(
        path,
        declaration,
        "data",
        title="Data",
        headline=_headline(check),
        broken=bool(check.broken),
        snapshot=snapshot,
        check=check,
        findings=_by_weight(check),
        profile=profile,
        split=split,
        target=declaration.data.target,
        shares=split.target_share if split is not None else {},
        columns=[
            _column(name, found, _typical(found, _written(name, declaration, check)))
            for name, found in (profile.columns if profile is not None else {}).items()
        ],
    )


def _window(snapshot: Snapshot) -> str:
    if snapshot.end is None:
        return "all rows"
    start = "the beginning" if snapshot.start is None else moment(snapshot.start)
    return f"{start} to {moment(snapshot.end)}"


def data_markdown(
    declaration: Declaration,
    snapshot: Snapshot,
    check: DataCheck,
    profile: ProfileRef,
    split: Split,
) -> str:
    """Write the short form of the data report; arguments as for `write_data_report`."""
    verdict = "✗ The contract is broken" if check.broken else "✓ The contract holds"
    facts: list[list[Any]] = [
        ["Rows extracted", number(snapshot.rows)],
        ["Window", _window(snapshot)],
        ["Without a label", number(check.unlabelled)],
        ["Set aside", number(check.quarantined)],
        ["Train / test", f"{number(split.train_rows)} / {number(split.test_rows)}"],
        *(
            [f"Target {name}", f"{share(train)} in training, {share(test)} in test"]
            for name, (train, test) in split.target_share.items()
        ),
    ]
    failed = [
        [found.rule, "broken" if found.blocking else "warning", number(found.rows), found.detail]
        for found in _by_weight(check)
        if not found.passed
    ]
    columns = [
        [
            name,
            share(found.missing),
            number(round(found.distinct)),
            _typical(found, _written(name, declaration, check)),
        ]
        for name, found in profile.columns.items()
    ]
    parts = [f"# Data of {declaration.name}", f"**{verdict}.** {_headline(check)}"]
    parts.append(table(["Fact", "Value"], facts))
    if split.note:
        parts.append(f"{cell(split.note)}.")
    if failed:
        parts += ["## Contract", table(["Rule", "Verdict", "Rows", "What was found"], failed)]
    if check.derived:
        derived = [
            [
                one.name,
                one.expression,
                share(check.derived_missing[one.name]) if one.used else "-",
            ]
            for one in check.derived
        ]
        parts += ["## What is derived", table(["Feature", "Expression", "Missing"], derived)]
    parts += ["## Columns", table(["Column", "Missing", "Distinct", "Typical"], columns)]
    return "\n\n".join(parts)


def _by_weight(check: DataCheck) -> list[Finding]:
    return sorted(check.findings, key=lambda found: (found.passed, not found.blocking))


def _headline(check: DataCheck) -> str:
    held = sum(found.passed for found in check.findings)
    warnings = sum(not found.passed and not found.blocking for found in check.findings)
    said = f"{held:,} of {len(check.findings):,} rules hold"
    if warnings:
        said += f", {warnings:,} {'warning' if warnings == 1 else 'warnings'}"
    return f"{said}; {check.kept_rows:,} of {check.rows:,} rows are left to learn from."


def _written(name: str, declaration: Declaration, check: DataCheck) -> Callable[[float], str]:
    """How the values of a column's profile are written: times are profiled in seconds."""
    if name not in check.roles.times:
        return number
    if declaration.data.time is None:
        return lambda seconds: moment(_EPOCH + timedelta(seconds=seconds))
    return lambda seconds: f"{number(seconds / _DAY_S)} days before the event"


def _column(name: str, found: ColumnSummary, typical: str) -> dict[str, Any]:
    return {
        "name": name,
        "picture": _picture(name, found),
        "missing": found.missing,
        "distinct": found.distinct,
        "typical": typical,
    }


def _picture(name: str, found: ColumnSummary) -> Markup | str:
    if found.kind == "categorical":
        counts = list(found.levels.values())[:_BARS]
        return sparkline(counts, f"Most frequent values of {name}") if counts else "-"
    if not found.quantiles:
        return "-"
    # Each quantile stands for the same number of rows; the outermost ones are mostly outliers.
    inner = np.asarray(found.quantiles[1:-1] or found.quantiles)
    heights, _ = np.histogram(inner, bins=_BARS)
    return sparkline(heights.tolist(), f"Distribution of {name}")


def _typical(found: ColumnSummary, written: Callable[[float], str]) -> str:
    if found.kind == "categorical":
        shown = [f"{value} ({number(count)})" for value, count in found.levels.items()]
        return ", ".join(shown[:_TYPICAL]) or "-"
    if not found.quantiles:
        return "-"
    low, middle, high = map(written, np.quantile(found.quantiles, [0.05, 0.5, 0.95]).tolist())
    return f"median {middle}, 90 % from {low} to {high}"
