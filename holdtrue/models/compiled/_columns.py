"""Whole columns held against the rules at once; only what looks odd is looked at value by value."""

from __future__ import annotations

import math
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdtrue.errors import ValueProblem
from holdtrue.models.compiled._rules import checked, outside, refuse_keys
from holdtrue.times import FIRST, LAST, NULL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdtrue.models._signature import Signature
    from holdtrue.references import Kind
    from holdtrue.times import Moments

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

CLASSES: dict[Kind, type] = {
    "integer": int,
    "number": float,
    "boolean": bool,
    "string": str,
    "time": str,
}
"""What JSON makes of a value of this kind."""
_NONE = type(None)


def columns_of(rows: Sequence[Mapping[str, Any]], signature: Signature) -> dict[str, list[Any]]:
    """The values of records by column.

    Raises:
        ValueProblem: A record lacks a column or has one too many.
    """
    for number, row in enumerate(rows):
        if row.keys() != signature.columns.keys():
            refuse_keys(number, row, signature.columns)
    return {name: [row[name] for row in rows] for name in signature.columns}


def check_columns(columns: Mapping[str, Any], n_rows: int, signature: Signature) -> None:
    """Refuse columns that are not those of the model, or not all of the same length.

    Raises:
        ValueProblem: They are not.
    """
    refuse_keys(0, columns, signature.columns)
    for name, values in columns.items():
        if len(values) != n_rows:
            found = f"{len(values)} values"
            raise ValueProblem(min(len(values), n_rows), name, found, f"{n_rows} values")


def numbers(values: Any, kind: Kind, name: str) -> Floats:
    """Values of a column that is used as a number, shape (n_rows,), NaN for null.

    Args:
        values: A list (None is null), a NumPy array (without nulls), or a masked array (what is
            masked is null).
        kind: Kind of the column.
        name: Its name.

    Raises:
        ValueProblem: A value is not acceptable; the first one is named.
    """
    found = _fast_numbers(values, kind)
    if found is None:
        typed = [checked(value, kind, name, row) for row, value in enumerate(as_list(values))]
        found = np.array([math.nan if value is None else value for value in typed], np.float64)
    return found


def moments(values: Any, name: str) -> Moments:
    """Values of a column of times, shape (n_rows,): datetime64[us] in UTC, NaT for null.

    Args:
        values: A list of texts (None is null), or an array of datetime64[us], which may be masked.
        name: Name of the column.

    Raises:
        ValueProblem: A value is not acceptable; the first one is named.
    """
    if _is_moments(values):
        found = _of_moments(values)
        for row in _outside(found)[:1].tolist():
            raise outside(name, row)
        return found
    counts = [checked(value, "time", name, row) for row, value in enumerate(as_list(values))]
    given = [NULL if count is None else count for count in counts]
    return np.array(given, np.int64).view("M8[us]")


def _is_moments(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.dtype.kind == "M"


def _of_moments(values: npt.NDArray[Any]) -> Moments:
    found: Moments = np.array(np.ma.getdata(values), "M8[us]")
    found[np.ma.getmaskarray(values)] = np.datetime64("NaT")
    return found


def _outside(found: Moments) -> Ints:
    """Rows of the moments that no model takes."""
    counts = found.view(np.int64)
    return np.flatnonzero(((counts < FIRST) | (counts > LAST)) & ~np.isnat(found))


def codes(values: Any, kind: Kind, name: str, known: Mapping[Any, int], unknown: int) -> Ints:
    """Numbers of the categories of a column, shape (n_rows,).

    Args:
        values: As for `numbers`.
        kind: Kind of the column.
        name: Its name.
        known: Number of the category by value.
        unknown: What stands for values that are not among them.

    Raises:
        ValueProblem: A value is not acceptable; the first one is named.
    """
    items = as_list(values)
    plain = set(map(type, items)) <= {CLASSES[kind], _NONE}
    if not plain:
        items = [checked(value, kind, name, row) for row, value in enumerate(items)]
    found = np.fromiter(map(known.get, items, repeat(unknown)), np.int64, len(items))
    if plain and CLASSES[kind] is not str:
        # NaN, infinity and whole numbers beyond all floats are no known category: look closer.
        for row in np.flatnonzero(found == unknown).tolist():
            checked(items[row], kind, name, row)
    return found


def problems(columns: Mapping[str, Any], n_rows: int, signature: Signature) -> list[ValueProblem]:
    """Everything that is not acceptable in columns, in the order of the rows.

    Args:
        columns: Values by column name, as for `numbers`.
        n_rows: How many each has.
        signature: The columns that are wanted.

    Raises:
        ValueProblem: The columns are not those of the model, or not all of the same length.
    """
    check_columns(columns, n_rows, signature)
    found: list[ValueProblem] = []
    for name, kind in signature.columns.items():
        values = columns[name]
        if kind == "time" and _is_moments(values):
            found += [outside(name, row) for row in _outside(_of_moments(values)).tolist()]
            continue
        if _surely_good(values, kind):
            continue
        for row, value in enumerate(as_list(values)):
            try:
                checked(value, kind, name, row)
            except ValueProblem as problem:
                found.append(problem)
    return sorted(found, key=lambda problem: problem.row)


def _surely_good(values: Any, kind: Kind) -> bool:
    if kind == "time":
        return False
    if kind == "string":
        return set(map(type, as_list(values))) <= {str, _NONE}
    return _fast_numbers(values, kind) is not None


def some_of(values: Any, rows: Sequence[int]) -> Any:
    """Some of the values of a column, which stay what they are: an array, or a list."""
    return values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]


def as_list(values: Any) -> Sequence[Any]:
    """Values as Python objects, None for null."""
    # A masked array's tolist gives None for what is masked.
    listed: Sequence[Any] = values.tolist() if isinstance(values, np.ndarray) else values
    return listed


def _fast_numbers(values: Any, kind: Kind) -> Floats | None:
    """The column at once; None where a value needs a closer look."""
    found = _of_array(values, kind) if isinstance(values, np.ndarray) else _of_list(values, kind)
    if found is None:
        return None
    numbers, null = found
    fine = np.isfinite(numbers)
    if kind == "integer":
        fine &= numbers == np.floor(numbers)
    if not (fine | null).all():
        return None
    numbers[null] = math.nan
    return numbers


def _of_array(values: npt.NDArray[Any], kind: Kind) -> tuple[Floats, npt.NDArray[np.bool_]] | None:
    if values.dtype.kind not in ("b" if kind == "boolean" else "iuf"):
        return None
    null = np.ma.getmaskarray(values)
    return np.array(np.ma.getdata(values), np.float64), null


def _of_list(values: Sequence[Any], kind: Kind) -> tuple[Floats, npt.NDArray[np.bool_]] | None:
    types = set(map(type, values))
    if not types <= ({bool, _NONE} if kind == "boolean" else {int, float, _NONE}):
        return None
    has_null = _NONE in types
    try:
        given = [math.nan if value is None else value for value in values] if has_null else values
        numbers = np.array(given, np.float64)
    except OverflowError:  # a whole number beyond the largest float
        return None
    null = np.isnan(numbers)
    if np.count_nonzero(null) != (list(values).count(None) if has_null else 0):
        return None  # a NaN is no null
    return numbers, null
