"""Which fit answers which row, where several measure a version."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from holdtrue.models import Answering
from holdtrue.models._conformal import Interval
from holdtrue.models._measured import Measured, Part, cut, part_of

DAY = timedelta(days=1)
START = datetime(2024, 1, 1, tzinfo=UTC)


class Constant(NamedTuple):
    """A fit that answers a number of its own, with an interval of its own width."""

    value: float
    answering: Answering

    def raw(self, frame: pd.DataFrame) -> Any:
        return np.full(len(frame), self.value)


def measured(*days: int | None, interval: bool = False) -> Measured:
    """Fits that have learnt up to a day, the first answers 0, the next 1, and so on."""
    return Measured(
        [
            (
                None if day is None else START + day * DAY,
                Constant(  # type: ignore[misc]
                    float(number),
                    Answering(
                        interval=Interval(share=0.8, low=-number, high=number, rows=99)
                        if interval
                        else None
                    ),
                ),
            )
            for number, day in enumerate(days)
        ]
    )


def parts(*days: int, late: int = 0) -> list[Part]:
    return [Part(START + day * DAY, START + max(day - late, days[0]) * DAY) for day in days]


def moments(*days: float) -> pd.Series:
    return pd.Series([pd.Timestamp(START) + day * DAY for day in days])


def test_each_part_is_answered_by_the_newest_fit_that_had_learnt_nothing_of_it() -> None:
    own = measured(10, 12, 14)
    assert own.fits_of(parts(10, 12, 14)) == [0, 1, 2]
    # A part whose labels came late: the fit of the part before.
    assert own.fits_of(parts(10, 12, 14, late=1)) == [0, 0, 1]
    # Another version: as far as it had learnt then, and never a later fit.
    other = measured(7, 9, 13)
    assert other.fits_of(parts(10, 12, 14)) == [1, 1, 2]
    assert other.fits_of(parts(20)) == [2]
    # Each of its fits has learnt later rows.
    assert other.fits_of(parts(3, 5)) == [0, 0]
    # One fit, of which it is not known how far it had learnt.
    assert measured(None).fits_of(parts(10, 12)) == [0, 0]


def test_rows_are_of_the_part_that_they_lie_in() -> None:
    at = moments(9, 10, 11.9, 12, 30)
    assert part_of(at, parts(10, 12, 14)).tolist() == [0, 0, 0, 1, 2]
    own = measured(10, 12, 14)
    which = own.which(at, len(at), parts(10, 12, 14))
    frame = pd.DataFrame({"x": range(5)})
    assert own.predict(frame, which).tolist() == [0, 0, 0, 1, 2]
    # Rows without a time, or that nobody has cut, are answered by the first.
    assert own.which(None, 3, ()).tolist() == [0, 0, 0]
    assert own.which(at, 5, ()).tolist() == [0] * 5
    assert own.predict(frame[:0], which[:0]).shape == (0,)


def test_intervals_are_those_of_the_fit_that_answers() -> None:
    own = measured(10, 12, interval=True)
    which = np.array([0, 1, 1])
    ends = own.intervals(np.array([5.0, 5.0, 6.0]), which)
    assert ends is not None
    assert ends.tolist() == [[5, 5], [4, 6], [5, 7]]
    assert measured(10, 12).intervals(np.zeros(3), which) is None


def test_parts_have_about_as_many_rows_and_never_cut_a_moment() -> None:
    at = moments(*(day / 4 for day in range(40)))
    starts = cut(at, START, 4)
    assert starts == [START + DAY * day for day in (0, 2.5, 5, 7.5)]
    # Half of the rows are of one moment.
    crowded = moments(*range(10), *[10] * 10)
    assert cut(crowded, START, 4) == [START + DAY * day for day in (0, 5, 10)]
    assert cut(moments(*[3] * 8), START + 3 * DAY, 4) == [START + 3 * DAY]


def test_without_a_fit_nothing_can_be_measured() -> None:
    with pytest.raises(ValueError, match="at least one fit"):
        Measured([])
