"""The page about a backtest: how good each policy was over time, and what it trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.reports._backtest_figures import periods_figure
from holdtrue.reports._format import cell, moment, table
from holdtrue.reports._page import Page, render

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdtrue.backtest import Backtest
    from holdtrue.declaration import Declaration

_OUTCOMES = {
    "promoted": "✓ promoted",
    "refused": "✗ refused",
    "unchanged": "unchanged",
    "failed": "✗ failed",
}


def backtest_page(declaration: Declaration, found: Backtest) -> Page:
    """Make the page about a backtest.

    Args:
        declaration: Of the system.
        found: What came of it.
    """
    html = render(
        declaration,
        "backtest",
        title="Backtest",
        found=found,
        gains=[*zip(found.gains(), _paid(found), strict=True)],
        outcomes=_OUTCOMES,
        figure=periods_figure(found) if any(p.value for p in found.declared.periods) else None,
    )
    return Page(html)


def backtest_markdown(found: Backtest, page: Path) -> str:
    """Write the short form of the page about a backtest.

    Args:
        found: What came of it.
        page: Where the whole of it lies.
    """
    parts = [f"# Backtest of {found.system}", found.title]
    parts += [f"**{cell(gain)}**" for gain in found.gains()]
    for played in found.policies:
        rows = [
            [
                moment(training.as_of),
                training.trigger,
                _OUTCOMES[training.outcome],
                "-" if training.version is None else training.version,
                training.reason,
            ]
            for training in played.trainings
        ]
        head = ["As of", "Trigger", "Outcome", "Version", "Why"]
        parts += [f"## {played.policy}: {played.cost}", table(head, rows)]
    return "\n\n".join([*parts, f"All of it: {cell(page)}"])


def _paid(found: Backtest) -> Iterator[bool]:
    """Whether the declared policy was surely better, for each of the others."""
    for compared in found.compared:
        gain = compared.gains.get(found.metric)
        yield gain is not None and gain.low > 0
