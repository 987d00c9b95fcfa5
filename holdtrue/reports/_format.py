"""Numbers, shares, moments and spans of time the way people read them."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

_DIGITS = 4


def number(value: Any) -> str:
    """Write a value with at most 4 significant digits and separators: 27004 is ``27,004``.

    Whole numbers keep all their digits; anything that is not a number is written as it is.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "not a number" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    size = abs(value)
    if 1e-4 <= size < 1e15:
        decimals = max(_DIGITS - 1 - math.floor(math.log10(size)), 0)
        text = f"{value:,.{decimals}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.{_DIGITS - 2}e}"


def share(value: float) -> str:
    """Write a fraction as a percentage: 0.1234 is ``12.3 %``, the blank of which does not break."""
    percent = value * 100
    if 0 < percent < 0.1:
        return "< 0.1\N{NO-BREAK SPACE}%"
    if 99.9 < percent < 100:
        return "> 99.9\N{NO-BREAK SPACE}%"
    text = f"{percent:.1f}".removesuffix(".0")
    return f"{text}\N{NO-BREAK SPACE}%"


def moment(value: datetime | None) -> str:
    """Write a time in UTC to the minute; without the hour where that is midnight."""
    if value is None:
        return "-"
    when = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if (when.hour, when.minute, when.second) == (0, 0, 0):
        return f"{when:%Y-%m-%d}"
    return f"{when:%Y-%m-%d %H:%M} UTC"


def span(seconds: float) -> str:
    """Write a length of time: 95.2 is ``1 min 35 s``."""
    if 0 < seconds < 0.05:
        return f"{max(1, round(seconds * 1_000))} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, rest = divmod(whole, 3_600)
    minutes, left = divmod(rest, 60)
    parts = [(hours, "h"), (minutes, "min"), (left, "s")]
    shown = [f"{count} {unit}" for count, unit in parts if count]
    return " ".join(shown[:2])


def probability(value: float) -> str:
    """Write a p-value; very small ones as a bound."""
    return "< 0.0001" if value < 1e-4 else number(value)


def cell(value: Any) -> str:
    """Make a text safe for one cell of a Markdown table, where HTML and pipes have a meaning."""
    text = " ".join(str(value).split())
    for mark, code in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;")):
        text = text.replace(mark, code)
    for mark in "\\`*_[]":
        text = text.replace(mark, f"\\{mark}")
    return text


def table(head: list[str], rows: list[list[Any]]) -> str:
    """Write a Markdown table; cells are escaped."""
    lines = [head, ["---"] * len(head), *([cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
