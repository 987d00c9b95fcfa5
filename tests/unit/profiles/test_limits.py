from __future__ import annotations

import numpy as np
import pytest

from holdtrue.profiles._limits import alarms, choose_limits


def _choose(series: np.ndarray, allowed: int = 1, windows: float = 30.0) -> float:
    effects = series[:, None]
    certain = np.zeros_like(effects)
    return choose_limits(effects, effects, certain, allowed=allowed, windows=windows).suspect


@pytest.mark.parametrize(
    ("suspect", "expected"),
    [("", 0), ("11", 0), ("111", 1), ("11011", 0), ("11111", 1), ("1110111", 2), ("111111", 2)],
)
def test_an_alarm_is_three_in_a_row(suspect: str, expected: int) -> None:
    assert alarms(np.array([one == "1" for one in suspect])) == expected


def test_independent_blocks_need_no_more_than_the_90_percent_level() -> None:
    series = np.random.default_rng(0).exponential(3, 200)
    assert _choose(series) == pytest.approx(np.quantile(series, 0.9))


def test_the_same_blocks_in_runs_raise_the_limit() -> None:
    series = np.sort(np.random.default_rng(0).exponential(3, 200))
    assert _choose(series, windows=300.0) > np.quantile(series, 0.9)


def test_a_smaller_budget_raises_the_limit() -> None:
    series = np.random.default_rng(0).exponential(3, 40)
    limits = [_choose(series, windows=windows) for windows in (30.0, 3e3, 3e5, 3e7)]
    assert limits == sorted(limits)
    assert limits[-1] > series.max()


def test_what_is_not_significant_raises_no_alarm() -> None:
    series = np.sort(np.random.default_rng(0).exponential(3, 200))[:, None]
    found = choose_limits(series, series, np.ones_like(series), allowed=1, windows=30.0)
    assert found.suspect == pytest.approx(np.quantile(series, 0.9))
    assert found.alone == pytest.approx(3 * series.max())


def test_constant_columns_have_limits_that_chance_does_not_reach() -> None:
    zero = np.zeros((30, 1))
    found = choose_limits(zero, zero, np.ones((30, 1)), allowed=1, windows=30.0)
    assert (found.suspect, found.alone) == (1.0, 3.0)
    assert found.alarms < 1
