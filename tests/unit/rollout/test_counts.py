from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.rollout import Counts, Moments, compare_losses
from tests.unit.rollout._traffic import moments

values = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30)


@given(values, values)
def test_what_came_after_is_what_was_added(before: list[float], after: list[float]) -> None:
    first, second = (np.array(part)[:, None] for part in (before, after))
    found = moments(np.concatenate([first, second])).since(moments(first))
    expected = moments(second)
    assert found.n == expected.n
    assert found.mean == pytest.approx(expected.mean, abs=1e-8)
    assert found.m2 == pytest.approx(expected.m2, abs=1e-4)


def test_nothing_came_after_nothing() -> None:
    some = moments(np.array([[1.0], [2.0]]))
    assert some.since(Moments()) == some
    assert some.since(some) == Moments()
    assert Moments().variance() == ()


def test_counters_that_went_back_are_known() -> None:
    before = Counts(requests=10, failures=2, durations=(4, 4))
    assert Counts(requests=12, failures=2, durations=(5, 5)).since(before) == Counts(
        requests=2, durations=(1, 1)
    )
    for lost in (
        Counts(requests=9, failures=2, durations=(4, 4)),
        Counts(requests=12, failures=1, durations=(4, 4)),
        Counts(requests=12, failures=2, durations=(3, 9)),
        Counts(),
    ):
        assert lost.since(before) is None
    assert before.since(Counts()) == before


def losses(seed: int, worse: float) -> tuple[float, float]:
    """By how much the challenger is worse than allowed, in standard errors; and its loss."""
    chance = np.random.default_rng(seed)
    n_0, n_1 = 4_000, 400
    # Losses rise during the rollout, and most answers of the challenger are late ones.
    at_0, at_1 = chance.uniform(0, 1, n_0), chance.beta(5, 1, n_1)
    first, second = (chance.exponential(0.1 + at) for at in (at_0, at_1))
    found = compare_losses(first, at_0, second * worse, at_1)
    return found.total / np.sqrt(found.spread), found.loss


def test_a_bad_hour_is_bad_for_both() -> None:
    gaps = [losses(seed, 1.0)[0] for seed in range(50)]
    assert np.mean(gaps) < 0.5
    assert losses(0, 1.0)[1] > 0.8  # although its answers cost more than the average of 0.6


def test_worse_answers_are_found() -> None:
    assert np.mean([losses(seed, 1.6)[0] for seed in range(20)]) > 4


def test_no_losses_are_no_evidence() -> None:
    none = np.array([])
    one = np.array([0.5])
    assert compare_losses(none, none, one, one).n == 1
    found = compare_losses(one, one, none, none)
    assert (found.n, found.champion_n, found.total) == (0, 1, 0.0)
