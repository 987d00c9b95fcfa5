from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdtrue.backtest._past import microseconds, read_past, steps_between
from holdtrue.errors import ConfigError, DataError
from holdtrue.system import System

DAY = timedelta(days=1)
TEXT = """
name: small
task: classification
data: {source: {files: rows.csv}, target: y, time: at, as_of: 2024-01-21}
model: auto
tune: {metric: log_loss, trials: 2}
"""


def day(number: float) -> datetime:
    return datetime(2024, 1, 1, tzinfo=UTC) + (number - 1) * DAY


@pytest.fixture
def system(small: Path) -> System:
    small.write_text(TEXT)
    return System(small)


def test_steps_follow_each_other_and_the_last_one_may_be_shorter() -> None:
    steps = steps_between(day(1), day(3.5), DAY, last=microseconds(day(3.4)))
    assert steps == ((day(1), day(2)), (day(2), day(3)), (day(3), day(3.5)))


def test_no_step_comes_after_the_last_row() -> None:
    steps = steps_between(day(1), day(100), DAY, last=microseconds(day(2)))
    assert steps == ((day(1), day(2)), (day(2), day(3)))


def test_rows_lie_in_the_span_that_their_time_is_in(system: System) -> None:
    past, _ = read_past(system, day(11), day(13))
    assert past.steps == ((day(11), day(12)), (day(12), day(13)))
    # A row each three hours.
    assert past.between(past.steps[0]) == slice(0, 8)
    assert past.table["x"].to_pylist() == [*range(80, 96)]


def test_left_out_it_begins_in_the_middle_and_ends_at_the_declared_moment(system: System) -> None:
    past, known_until = read_past(system, None, None)
    assert past.steps[0][0] == day(10)
    assert past.steps[-1][1] == day(21)
    assert known_until == day(20)


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (day(12), day(12), "would begin at 2024-01-12 00:00, and end at 2024-01-12 00:00"),
        (day(22), None, "would begin at 2024-01-22 00:00, and end at 2024-01-21 00:00"),
    ],
)
def test_a_span_that_is_none_is_refused(
    system: System, start: datetime, end: datetime | None, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        read_past(system, start, end)


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (day(2), day(12), "no labelled rows before 2024-01-02 00:00 to train on"),
        (day(40), day(50), "no rows from 2024-02-09 00:00 to 2024-02-19 00:00"),
        (None, day(0), "no rows before 2023-12-31 00:00"),
    ],
)
def test_a_span_without_rows_is_refused(
    system: System, start: datetime | None, end: datetime, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        read_past(system, start, end)


def test_it_needs_the_time_of_the_event(small: Path) -> None:
    small.write_text(TEXT.replace(" time: at,", ""))
    with pytest.raises(ConfigError, match=r"data\.time: a backtest needs it"):
        System(small).backtest()
    assert not (small.parent / ".holdtrue").exists()


def test_a_policy_beside_it_must_train_at_some_time(system: System) -> None:
    with pytest.raises(ConfigError, match="beside: expected a duration greater than zero"):
        system.backtest(beside=timedelta(0))
