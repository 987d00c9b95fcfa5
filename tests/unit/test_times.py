from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.times import (
    FIRST,
    LAST,
    PARTS,
    count_of,
    part,
    parts_of,
    text_of,
)

COUNTS = st.integers(FIRST, LAST) | st.sampled_from([FIRST, LAST, -1, 0, 1])


def test_the_range_is_that_of_whole_years() -> None:
    assert text_of(FIRST) == "1678-01-01T00:00:00Z"
    assert text_of(LAST) == "2261-12-31T23:59:59.999999Z"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2024-05-01", "2024-05-01T00:00:00Z"),
        ("20240501", "2024-05-01T00:00:00Z"),
        ("2024-05-01T08:30", "2024-05-01T08:30:00Z"),
        ("2024-05-01 08:30:00", "2024-05-01T08:30:00Z"),
        ("2024-05-01T08:30:00.5", "2024-05-01T08:30:00.500000Z"),
        ("2024-05-01T08:30:00+02:00", "2024-05-01T06:30:00Z"),
        ("2024-05-01T00:30:00-08:00", "2024-05-01T08:30:00Z"),
        ("2024-05-01T08:30:00.123456789Z", "2024-05-01T08:30:00.123456Z"),
        ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z"),
    ],
)
def test_a_text_is_a_moment(text: str, same: str) -> None:
    assert text_of(count_of(text)) == same


@given(count=COUNTS)
def test_a_text_is_read_as_what_was_written(count: int) -> None:
    text = text_of(count)
    assert count_of(text) == count
    assert datetime.fromisoformat(text).tzinfo == UTC


@given(counts=st.lists(COUNTS, min_size=1, max_size=20))
def test_parts_are_those_of_pandas_one_by_one_and_together(counts: list[int]) -> None:
    given = np.array(counts, np.int64)
    each = np.array([parts_of(count) for count in counts], np.float64)
    series = pd.Series(given.view("M8[us]"))
    wanted = {
        "days": given.astype(np.float64) / 86_400_000_000,
        "month": series.dt.month,
        "day": series.dt.day,
        "weekday": series.dt.day_of_week,
        "hour": series.dt.hour,
    }
    for place, name in enumerate(PARTS):
        together = part(given, name)
        assert together.dtype == np.float64
        assert np.array_equal(together, each[:, place])
        assert np.array_equal(together, np.asarray(wanted[name], np.float64))
