"""What values of an expression may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from holdtrue.references import Kind

Floats = npt.NDArray[np.float64]
Type = Literal["number", "boolean", "text", "time", "span"]
"""A span is what is between two times."""
Value = npt.NDArray[Any]
"""Of one type, shape (n_rows,).

Numbers are float64, booleans float64 of 0 and 1, spans float64 of seconds; NaN is missing. Texts
are objects, None is missing. Times are datetime64[us] in UTC, NaT is missing.
"""

_TYPES: dict[Kind, Type] = {
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "string": "text",
    "time": "time",
}
_ARTICLES: dict[Type, str] = {
    "number": "a number",
    "boolean": "true or false",
    "text": "text",
    "time": "a time",
    "span": "a span of time",
}


class ExpressionError(ValueError):
    """An expression that cannot be computed; one sentence says why."""


def type_of(kind: Kind) -> Type:
    """The type of a column's values."""
    return _TYPES[kind]


def said(type_: Type) -> str:
    """A type in words."""
    return _ARTICLES[type_]
