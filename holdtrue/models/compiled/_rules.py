"""Which values a column takes: one table of rules for every way that rows come in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from holdtrue.errors import ValueProblem
from holdtrue.times import count_of, is_inside

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from holdtrue.references import Kind

# Stands for a missing category, so that an encoder learns it like any other.
MISSING = "(missing)"

EXPECTED: dict[Kind, str] = {
    "integer": "a whole number or null",
    "number": "a finite number or null",
    "string": "text or null",
    "boolean": "true, false or null",
    "time": (
        "a date or time as in ISO 8601, such as 2024-05-01T08:30:00Z (without an offset it is "
        "UTC), from 1678 to 2261, or null"
    ),
}


def checked(value: Any, kind: Kind, name: str, row: int) -> Any:
    """Hold a value against the kind of its column.

    Args:
        value: As it came; None stands for missing.
        kind: Kind of the column.
        name: Name of the column.
        row: Number of the record.

    Returns:
        None, bool, int, float or str, by the kind: 3.0 in a column of whole numbers is 3, 3 in a
        column of numbers is 3.0, and -0.0 is 0.0. A time is its count (see `count_of`).

    Raises:
        ValueProblem: The column does not take the value.
    """
    if value is None:
        return None
    if kind == "boolean":
        if isinstance(value, bool):
            return value
    elif kind in ("integer", "number"):
        if isinstance(value, int | float) and not isinstance(value, bool) and _finite(value):
            if kind == "number":
                return float(value) + 0.0  # also as a category: 1 is the 1.0 of the training
            if value == int(value):
                return int(value)
    elif isinstance(value, str):
        return value if kind == "string" else _count(value, name, row)
    found = "true or false" if isinstance(value, bool) else type(value).__name__
    if isinstance(value, float):
        found = "a fraction" if math.isfinite(value) else str(value)
    raise ValueProblem(row, name, found, EXPECTED[kind])


def _count(text: str, name: str, row: int) -> int:
    try:
        count = count_of(text)
    except ValueError as err:
        raise ValueProblem(row, name, "other text", EXPECTED["time"]) from err
    if not is_inside(count):
        raise outside(name, row)
    return count


def outside(name: str, row: int) -> ValueProblem:
    """That a moment is too early or too late."""
    return ValueProblem(row, name, "a time outside of these years", EXPECTED["time"])


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the largest float
        return False


def key_of(text: str, kind: Kind) -> Any:
    """The value, as `checked` gives it, that is the category of this name.

    Returns:
        None where no acceptable value is.
    """
    try:
        key: Any = text
        if kind == "integer":
            key = int(text)
        elif kind == "number":
            key = float(text) + 0.0
        elif kind == "boolean":
            key = text == "True"
        usable = str(key) == text and (kind != "number" or math.isfinite(key))
    except ValueError:
        return None
    return key if usable else None


def refuse_keys(row: int, record: Mapping[str, Any], columns: Collection[str]) -> None:
    """Say how a record's columns differ from those of the model.

    Raises:
        ValueProblem: They do.
    """
    missing = [name for name in columns if name not in record]
    extra = [name for name in record if name not in columns]
    said = []
    if missing:
        said.append(f"lacks {', '.join(missing[:5])}")
    if extra:
        said.append(
            f"has columns that the model does not know: {', '.join(map(str, extra[:5]))[:200]}"
        )
    if said:
        raise ValueProblem(row, None, " and ".join(said), f"exactly: {', '.join(columns)}")
