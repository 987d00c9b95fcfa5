"""Rows and tables as the typed frame that a pipeline takes, for training and for serving."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from holdtrue.errors import ServingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdtrue.models._signature import Signature
    from holdtrue.references import Kind

# Stands for a missing category, so that an encoder learns it like any other.
MISSING = "(missing)"


def typed(table: pd.DataFrame, signature: Signature) -> pd.DataFrame:
    """Bring a table's feature columns into the form that pipelines are fitted on.

    Args:
        table: shape (n_rows, any columns); the signature's columns must be among them, in the
            dtypes of `holdtrue.data.load`.
        signature: The columns that are wanted.

    Returns:
        shape (n_rows, n_features): numbers as float64 with NaN for missing, categories as text.
    """
    columns: dict[str, Any] = {}
    for name in signature.columns:
        column = table[name]
        if name in signature.categorical:
            columns[name] = (
                column.astype(object).where(column.notna(), MISSING).astype(str).astype(object)
            )
        else:
            columns[name] = column.to_numpy(dtype="float64", na_value=np.nan)
    return pd.DataFrame(columns, index=table.index)


def target_of(frame: pd.DataFrame, signature: Signature) -> np.ndarray:
    """The target as class index (int64) or value (float64), shape (n_rows,)."""
    column = frame[signature.target]
    if signature.classes is None:
        values: np.ndarray = column.to_numpy(dtype="float64")
        return values
    codes: np.ndarray = pd.Categorical(column, categories=list(signature.classes)).codes
    return codes.astype("int64")


def from_rows(rows: Sequence[Mapping[str, Any]], signature: Signature) -> pd.DataFrame:
    """Check records from outside and bring them into the form that pipelines are fitted on.

    Args:
        rows: Records by column name; None stands for missing.
        signature: The columns that are wanted.

    Raises:
        ServingError: A record lacks a column, has one too many, or a value of the wrong kind.
    """
    for number, row in enumerate(rows):
        if row.keys() != signature.columns.keys():
            _refuse_keys(number, row, signature)
    columns: dict[str, Any] = {}
    for name, kind in signature.columns.items():
        values = [_value(row[name], kind, name, number) for number, row in enumerate(rows)]
        if name in signature.categorical:
            texts = [MISSING if value is None else str(value) for value in values]
            columns[name] = pd.Series(texts, dtype=object)
        else:
            numbers = [math.nan if value is None else float(value) for value in values]
            columns[name] = np.array(numbers, dtype="float64")
    return pd.DataFrame(columns)


def _refuse_keys(number: int, row: Mapping[str, Any], signature: Signature) -> None:
    missing = [name for name in signature.columns if name not in row]
    extra = [name for name in row if name not in signature.columns]
    said = []
    if missing:
        said.append(f"lacks {', '.join(missing[:5])}")
    if extra:
        said.append(
            f"has columns that the model does not know: {', '.join(map(str, extra[:5]))[:200]}"
        )
    message = f"row {number}: {' and '.join(said)}"
    raise ServingError(message, hint=f"expected exactly: {', '.join(signature.columns)}")


_EXPECTED: dict[Kind, str] = {
    "integer": "a whole number or null",
    "number": "a finite number or null",
    "string": "text or null",
    "boolean": "true, false or null",
    "time": "text or null",
}


def _value(value: Any, kind: Kind, name: str, number: int) -> Any:
    if value is None:
        return None
    if kind == "boolean":
        if isinstance(value, bool):
            return value
    elif kind in ("integer", "number"):
        if isinstance(value, int | float) and not isinstance(value, bool) and _finite(value):
            if kind == "number":
                return float(value)  # also as a category: 1 is the 1.0 of the training
            if value == int(value):
                return int(value)
    elif isinstance(value, str):
        return value
    found = "true or false" if isinstance(value, bool) else type(value).__name__
    if isinstance(value, float):
        found = "a fraction" if math.isfinite(value) else str(value)
    message = f"row {number}, column {name}: expected {_EXPECTED[kind]}, got {found}"
    raise ServingError(message)


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the largest float
        return False
