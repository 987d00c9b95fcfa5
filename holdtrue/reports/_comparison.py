"""The page about versions side by side."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from holdtrue.plan._digest import DIGEST
from holdtrue.references import Estimate
from holdtrue.reports._comparison_figures import (
    curve_figures,
    gain_figures,
    importance_figure,
    metric_figures,
)
from holdtrue.reports._format import moment
from holdtrue.reports._page import write_page

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from holdtrue.declaration import Declaration
    from holdtrue.references import Gain
    from holdtrue.side_by_side import Comparison

# Of a value in words, in characters.
_WIDTH = 48


def write_comparison(path: Path, declaration: Declaration, found: Comparison) -> None:
    """Write what differs between versions as one HTML file.

    Args:
        path: The file.
        declaration: Of the system.
        found: The versions side by side.
    """
    same = found.same_rows
    sections: dict[str, list[tuple[str, list[str]]]] = {}
    for row in found.rows:
        values = [_cell_text(value) for value in row.values]
        sections.setdefault(row.section, []).append((row.name, values))
    write_page(
        path,
        declaration,
        "comparison",
        title="Versions side by side",
        versions=[_version_words(number, found.champion) for number in found.versions],
        sections=sections,
        same=same,
        not_compared=found.not_compared,
        first=found.versions[0],
        gains=[]
        if same is None
        else [
            (number, metric, gain, _gain_words(gain))
            for number, gains in same.gains.items()
            for metric, gain in gains.items()
        ],
        gain_figures=[] if same is None else gain_figures(same, found.versions[0]),
        metrics=metric_figures(found.evaluations),
        curves=curve_figures(found.evaluations),
        importance=importance_figure(found.evaluations),
    )


def comparison_text(found: Comparison) -> str:
    """Say what differs, for people: a section at a time, a column for each version."""
    head = [_version_words(number, found.champion) for number in found.versions]
    cells = [[_cell_text(value) for value in row.values] for row in found.rows]
    names = max((len(row.name) for row in found.rows), default=0) + 2
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    lines = [_line(found.system, head, names, widths)]
    section = None
    for row, texts in zip(found.rows, cells, strict=True):
        if row.section != section:
            section = row.section
            lines.append(section)
        lines.append(_line(f"  {row.name}", texts, names, widths))
    if not found.rows:
        lines.append("they differ in nothing that is known")
    return "\n".join([*lines, *_gains(found)])


def _gains(found: Comparison) -> Iterator[str]:
    same, first = found.same_rows, found.versions[0]
    if same is None:
        yield f"not compared on the same rows: {found.not_compared}"
        return
    whose = "; ".join(filter(None, (f"test rows of version {same.of}", same.note)))
    yield f"on the same {same.rows:,} rows, new to all of them ({whose})"
    for number, gains in same.gains.items():
        for metric, gain in gains.items():
            yield (
                f"  {metric}  version {first} {gain.other:.4g}, version {number} "
                f"{gain.value:.4g}: {_gain_words(gain)}"
            )


def _gain_words(gain: Gain) -> str:
    return gain.verdict("no clear difference")


def _version_words(number: int, champion: int | None) -> str:
    """Name a version, and say whether it is the champion."""
    return f"version {number} (champion)" if number == champion else f"version {number}"


def _cell_text(value: Any) -> str:
    """Write a value as short as it can be told apart."""
    if value is None:
        return "-"
    if isinstance(value, Estimate):
        return f"{value.value:.4g} ({value.low:.4g} to {value.high:.4g})"
    if isinstance(value, float):
        return f"{value or 0.0:.6g}"  # there is no -0
    if isinstance(value, datetime):
        return moment(value)
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if DIGEST.fullmatch(text):
        return text[:12]
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


def _line(name: str, texts: Sequence[str], names: int, widths: Sequence[int]) -> str:
    padded = (text.ljust(width) for text, width in zip(texts, widths, strict=True))
    return f"{name.ljust(names)}  {'  '.join(padded)}".rstrip()
