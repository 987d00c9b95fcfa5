"""Columns of every pandas type as plain numbers or labels, so that equal values count as equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

LONGEST_LABEL = 128  # whylogs cuts strings at this length
_LARGEST_NUMBER = 1e150  # squares of larger numbers overflow
_LARGEST_WHOLE = 1e15


def numbers(series: pd.Series) -> tuple[NDArray[np.float64], int]:
    """Read a column as numbers.

    Truth values are 0 and 1, times and durations are seconds, texts are parsed. What is not a
    number is missing.

    Args:
        series: shape (n_rows,), any pandas type.

    Returns:
        Values of shape (n_rows,) with NaN where missing, and how many of these were infinite.
    """
    import pandas as pd
    from pandas.api import types

    kind = series.dtype
    if types.is_datetime64_any_dtype(kind):
        epoch = pd.Timestamp(0, tz=getattr(kind, "tz", None))
        series = (series - epoch).dt.total_seconds()
    elif types.is_timedelta64_dtype(kind):
        series = series.dt.total_seconds()
    elif not types.is_numeric_dtype(kind):
        series = pd.to_numeric(pd.Series(series.to_numpy(dtype=object)), errors="coerce")
    values = series.to_numpy(dtype="float64", na_value=np.nan)
    infinite = np.isinf(values)
    values = np.clip(np.where(infinite, np.nan, values), -_LARGEST_NUMBER, _LARGEST_NUMBER)
    return values, int(infinite.sum())


def until_event(frame: pd.DataFrame, names: Sequence[str], event: pd.Series) -> pd.DataFrame:
    """Put how long before the event times were in place of these times.

    Times go on by themselves, so that every window would differ from all before it. What may stay
    the same, and shows drift, is their distance to the event.

    Args:
        frame: shape (n_rows, n_columns).
        names: Its columns of times, with a zone.
        event: shape (n_rows,): when the event of each row was, with a zone.
    """
    return frame.assign(**{name: event - frame[name] for name in names})


def labels(series: pd.Series) -> tuple[NDArray[np.int64], list[str]]:
    """Read a column as categories.

    Whole numbers are written without a point, so that a column that became float because of one
    missing value keeps its categories.

    Args:
        series: shape (n_rows,), any pandas type with hashable values.

    Returns:
        Codes of shape (n_rows,), -1 where missing, and the label of each code.

    Raises:
        DataError: The column holds lists or other values that cannot be compared.
    """
    import pandas as pd

    try:
        codes, uniques = pd.factorize(series)
    except TypeError as err:
        message = f"the column {series.name} holds values that are not categories: {err}"
        raise DataError(message, hint="exclude it from the features") from err
    texts = pd.Series([_text(value) for value in uniques], dtype=object)
    merged, names = pd.factorize(texts)
    known = codes >= 0
    result = np.full(len(codes), -1, dtype=np.int64)
    result[known] = merged[codes[known]]
    return result, [str(name) for name in names]


def _text(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        number = float(value)
        if abs(number) < _LARGEST_WHOLE and number.is_integer():
            return str(int(number))
    return str(value)[:LONGEST_LABEL].encode("utf-8", "replace").decode()
