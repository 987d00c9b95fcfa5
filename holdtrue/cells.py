"""How text says what a value is, wherever CSV is read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdtrue.references import Kind

CSV_NULLS = (
    *("", "#N/A", "#N/A N/A", "#NA", "N/A", "NA", "NULL", "n/a", "null"),
    *("-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "NaN", "nan"),
)
"""What a missing value is written as in CSV, wherever it is read: in training, files, requests."""
NO_NUMBERS = frozenset(
    {"nan", "-nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"},
)
"""In lower case: what is read as a float that is no number, to be refused as such."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def typed_cell(text: str, kind: Kind) -> int | float | bool | str:
    """Read a cell that is not missing by the kind of its column.

    What cannot be read stays text, for the model's own rules to refuse it with its place.
    """
    if kind in ("integer", "number"):
        if _INTEGER.fullmatch(text) and -(2**63) <= (value := int(text)) < 2**64:
            return value  # a longer one is a float, as it is in JSON
        if _NUMBER.fullmatch(text) or text.lower() in NO_NUMBERS:
            return float(text)
    elif kind == "boolean":
        return _BOOLEANS.get(text.lower(), text)
    return text
