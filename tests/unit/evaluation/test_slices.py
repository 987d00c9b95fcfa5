from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from holdtrue.evaluation import most_frequent, slice_texts


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pd.Series(["b", None, "a"], dtype="str"), ["b", "(missing)", "a"]),
        (pd.Series([1, None], dtype="Int64"), ["1", "(missing)"]),
        (pd.Series([1.0, None, -3.0]), ["1", "(missing)", "-3"]),
        (pd.Series([1.5, 2.0]), ["1.5", "2.0"]),
        (pd.Series([True, False]), ["True", "False"]),
        (pd.Series([np.nan, np.nan]), ["(missing)", "(missing)"]),
    ],
)
def test_a_slice_is_called_alike_whatever_it_was_read_as(
    values: pd.Series[Any], texts: list[str]
) -> None:
    assert slice_texts(values).tolist() == texts


def test_the_slices_with_most_rows_are_taken() -> None:
    texts = np.array([f"s{number:03}" for number in range(60) for _ in range(number + 1)])
    found = most_frequent(texts, 5)
    assert [name for name, _ in found] == [f"s{number:03}" for number in range(59, 9, -1)]
    assert all(rows.sum() == int(name[1:]) + 1 for name, rows in found)
    assert len(most_frequent(texts, 40)) == 21
