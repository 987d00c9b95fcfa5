"""Which intervals are due: each moment once, whatever was missed or declared before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.batch._interval import due, next_start, over_until
from holdtrue.references import Interval

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOTHING = timedelta(0)


def at(day: int, hour: int = 0, month: int = 7) -> datetime:
    return datetime(2013, month, day, hour, tzinfo=UTC)


def between(start: datetime, end: datetime) -> Interval:
    return Interval(start=start, end=end)


def bounds(found: list[Interval]) -> list[tuple[datetime, datetime]]:
    return [(one.start, one.end) for one in found]


@pytest.mark.parametrize(
    ("now", "delay", "over"),
    [
        (at(5, 1), NOTHING, at(5)),
        (at(5), NOTHING, at(5)),
        (at(5, 1), 2 * HOUR, at(4)),
        (at(5, 2), 2 * HOUR, at(5)),
    ],
)
def test_an_interval_is_over_once_its_rows_are_there(
    now: datetime, delay: timedelta, over: datetime
) -> None:
    assert over_until(now, DAY, delay, None) == over


def test_intervals_are_counted_from_midnight_or_from_since() -> None:
    assert over_until(at(5, 7), 6 * HOUR, NOTHING, None) == at(5, 6)
    # A day that begins at six, and a week that begins on a Monday (1970 began on a Thursday).
    assert over_until(at(5, 7), DAY, NOTHING, at(1, 6)) == at(5, 6)
    assert over_until(at(9), 7 * DAY, NOTHING, at(1)) == at(8)
    assert next_start(at(5, 1), DAY, None) == at(6)
    assert next_start(at(5), DAY, None) == at(5)
    assert next_start(at(5), DAY, at(20, 6)) == at(5, 6)


def test_the_clocks_of_a_country_do_not_matter() -> None:
    # In March and in November days of New York have 23 and 25 hours.
    found = due(at(9, month=3), at(12, month=3), DAY, [])
    assert [one.end - one.start for one in found] == [DAY] * 3


def test_ten_missed_intervals_are_caught_up_in_order() -> None:
    done = [between(at(day), at(day + 1)) for day in range(1, 5)]
    found = due(at(1), over_until(at(15, 3), DAY, HOUR, None), DAY, done)
    assert bounds(found) == [(at(day), at(day + 1)) for day in range(5, 15)]
    assert due(at(1), at(15), DAY, [*done, *found]) == []


def test_what_failed_in_between_is_due_again() -> None:
    done = [between(at(day), at(day + 1)) for day in (1, 3, 4)]
    assert bounds(due(at(1), at(6), DAY, done)) == [(at(2), at(3)), (at(5), at(6))]


def test_of_an_interval_of_another_length_what_is_left_is_due() -> None:
    half = [between(at(1), at(1, 12))]
    assert bounds(due(at(1), at(3), DAY, half)) == [(at(1, 12), at(2)), (at(2), at(3))]
    whole = [between(at(1), at(3))]
    assert bounds(due(at(1), at(4), 12 * HOUR, whole)) == [
        (at(3), at(3, 12)),
        (at(3, 12), at(4)),
    ]


def test_nothing_is_due_before_the_first_one_is_over() -> None:
    assert due(at(5), over_until(at(5, 3), DAY, NOTHING, at(5)), DAY, []) == []
    assert due(at(5), over_until(at(2), DAY, NOTHING, at(5)), DAY, []) == []


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(1, 30)), max_size=5),
    st.integers(1, 30),
    st.integers(0, 40),
    st.integers(0, 90),
)
def test_no_moment_is_left_out_or_scored_twice(
    before: list[tuple[int, int]], every: int, first: int, length: int
) -> None:
    done: list[Interval] = []
    hours: set[int] = set()
    for start, hours_long in before:
        taken = set(range(start, start + hours_long))
        if not taken & hours:
            hours |= taken
            done.append(between(at(1) + start * HOUR, at(1) + (start + hours_long) * HOUR))
    start, end = at(1) + first * HOUR, at(1) + (first + length) * HOUR
    found = due(start, end, every * HOUR, done)
    covered = [
        hour
        for one in found
        for hour in range((one.start - at(1)) // HOUR, (one.end - at(1)) // HOUR)
    ]
    assert covered == sorted(set(range(first, first + length)) - hours)
    assert all(one.end - one.start <= every * HOUR for one in found)
