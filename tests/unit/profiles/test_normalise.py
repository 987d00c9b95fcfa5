from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from holdtrue.errors import DataError
from holdtrue.profiles._normalise import labels, numbers

DAY = 86_400.0
NAN = float("nan")


@pytest.mark.parametrize(
    ("series", "expected", "infinite"),
    [
        (pd.Series([1.5, None, 3.0]), [1.5, NAN, 3.0], 0),
        (pd.Series([1, 2], dtype="uint8"), [1, 2], 0),
        (pd.Series([2**64 - 1], dtype="uint64"), [2.0**64], 0),
        (pd.Series([1, None], dtype="Int64"), [1, NAN], 0),
        (pd.Series([1, None], dtype="int64[pyarrow]"), [1, NAN], 0),
        (pd.Series([True, False]), [1, 0], 0),
        (pd.Series([True, None], dtype="boolean"), [1, NAN], 0),
        (pd.Series([np.inf, -np.inf, 2.0]), [NAN, NAN, 2], 2),
        (pd.Series([1e300]), [1e150], 0),
        (pd.to_datetime(pd.Series(["1970-01-02", None])), [DAY, NAN], 0),
        (pd.to_datetime(pd.Series(["1970-01-02T00:00:00Z", None])), [DAY, NAN], 0),
        (pd.to_timedelta(pd.Series(["24:00:00", None])), [DAY, NAN], 0),
        (pd.Series(["1", "x", None]), [1, NAN, NAN], 0),
        (pd.Series([1, 2.5, None, "a"], dtype=object), [1, 2.5, NAN, NAN], 0),
        (pd.Series([Decimal("1.5")], dtype=object), [1.5], 0),
        (pd.Series([3, 4, None], dtype="category"), [3, 4, NAN], 0),
        (pd.Series([None, None], dtype=object), [NAN, NAN], 0),
        (pd.Series([], dtype="float64"), [], 0),
    ],
)
def test_numbers(series: pd.Series, expected: list[float], infinite: int) -> None:
    values, n_infinite = numbers(series)
    np.testing.assert_allclose(values, expected)
    assert values.dtype == np.float64
    assert n_infinite == infinite


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (pd.Series(["a", None, "b", "a"]), ["a", None, "b", "a"]),
        (pd.Series(["a", None], dtype=object), ["a", None]),
        (pd.Series(["a", None, "b"], dtype="category"), ["a", None, "b"]),
        (pd.Series([1, 2], dtype="category"), ["1", "2"]),
        (pd.Series([1, None]), ["1", None]),
        (pd.Series([1, None], dtype="Int64"), ["1", None]),
        (pd.Series([0.5, 2.0]), ["0.5", "2"]),
        (pd.Series([True, False]), ["true", "false"]),
        (pd.Series([True, None], dtype="boolean"), ["true", None]),
        (pd.Series(["", "x" * 300]), ["", "x" * 128]),
        (pd.Series(["\ud800"], dtype=object), ["?"]),
        (pd.Series([], dtype="str"), []),
    ],
)
def test_labels(series: pd.Series, expected: list[str | None]) -> None:
    codes, names = labels(series)
    assert [None if code < 0 else names[code] for code in codes] == expected
    assert len(set(names)) == len(names)


def test_the_same_categories_whatever_type_the_column_came_in() -> None:
    assert labels(pd.Series([1, 2]))[1] == labels(pd.Series([1.0, 2.0, None]))[1]


def test_lists_are_not_categories() -> None:
    with pytest.raises(DataError, match="tags"):
        labels(pd.Series([["a"], ["b"]], name="tags"))
