from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.rollout._sequential import ODDS, evidence, mean_radius, no_evidence, with_counts

ALPHA = 0.05
# A rollout: looks of about so many requests, and the challenger's share of them.
STEPS = [0.01] * 10 + [0.05] * 20 + [0.25] * 20
REQUESTS = 120


def history(
    chance: np.random.Generator, champion: float, challenger: float, null_odds: float = 1.0
) -> list[float]:
    """The evidence after each look of a rollout with these rates of failures."""
    logs, seen = no_evidence(), []
    for share in STEPS:
        n_1 = int(chance.binomial(REQUESTS, share))
        n_0 = REQUESTS - n_1
        # The rate of both changes over the day, as failures do.
        busy = chance.choice([0.3, 1.0, 2.0])
        wrong = [
            int(chance.binomial(n, min(rate * busy, 1)))
            for n, rate in ((n_0, champion), (n_1, challenger))
        ]
        logs = with_counts(logs, (wrong[0], n_0), (wrong[1], n_1), null_odds)
        seen.append(evidence(logs))
    return seen


def share_of_alarms(n: int, champion: float, challenger: float, null_odds: float = 1.0) -> float:
    chance = np.random.default_rng(0)
    limit = math.log(1 / ALPHA)
    alarms = [max(history(chance, champion, challenger, null_odds)) >= limit for _ in range(n)]
    return sum(alarms) / n


@pytest.mark.parametrize("rate", [0.005, 0.05, 0.4])
def test_looking_all_the_time_raises_no_more_false_alarms_than_declared(rate: float) -> None:
    n = 1_000
    # Three standard errors above what is allowed: a test that is right fails once in 700 times.
    assert share_of_alarms(n, rate, rate) <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / n)


def test_a_better_challenger_is_no_cause_for_alarm() -> None:
    assert share_of_alarms(300, 0.05, 0.02) <= ALPHA


def test_up_to_the_allowed_odds_there_is_no_alarm() -> None:
    # Odds of 1 : 99 against twice as much.
    assert share_of_alarms(600, 1 / 100, 2 / 101, null_odds=2.0) <= ALPHA + 3 * 0.0089


def test_ten_times_as_many_failures_are_found() -> None:
    assert share_of_alarms(300, 0.005, 0.05) >= 0.95


def test_a_challenger_that_always_fails_is_found_within_a_few_requests() -> None:
    logs = no_evidence()
    for _ in range(4):
        logs = with_counts(logs, (0, 95), (1, 1))
    assert evidence(logs) > math.log(80)


def test_the_expected_ratio_is_one_where_both_are_alike() -> None:
    n_0, n_1, wrong = 6, 4, 3
    total = math.comb(n_0 + n_1, wrong)
    for i in range(len(ODDS)):
        expected = sum(
            math.comb(n_1, x)
            * math.comb(n_0, wrong - x)
            / total
            * math.exp(with_counts(no_evidence(), (wrong - x, n_0), (x, n_1))[i])
            for x in range(wrong + 1)
        )
        assert expected == pytest.approx(1)


counts = st.tuples(st.integers(0, 400), st.integers(0, 400)).map(sorted).map(tuple)


@given(champion=counts, challenger=counts, odds=st.sampled_from([1.0, 2.0]))
def test_any_counts_give_finite_evidence(
    champion: tuple[int, int], challenger: tuple[int, int], odds: float
) -> None:
    after = with_counts(no_evidence(), champion, challenger, odds)
    assert len(after) == len(ODDS)
    assert np.isfinite(after).all()


@given(n_0=st.integers(1, 60), n_1=st.integers(1, 60), wrong=st.integers(1, 20))
def test_more_failures_of_the_challenger_are_more_evidence(n_0: int, n_1: int, wrong: int) -> None:
    split = range(max(0, wrong - n_0), min(wrong, n_1) + 1)
    found = [evidence(with_counts(no_evidence(), (wrong - x, n_0), (x, n_1))) for x in split]
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(found))


def test_nothing_is_learnt_where_one_version_answered_nothing() -> None:
    assert with_counts(no_evidence(), (3, 100), (0, 0)) == no_evidence()
    assert with_counts(no_evidence(), (0, 0), (5, 10)) == no_evidence()
    assert with_counts(no_evidence(), (0, 90), (0, 10)) == no_evidence()


def test_the_interval_of_a_mean_leaves_the_truth_out_as_seldom_as_declared() -> None:
    chance = np.random.default_rng(1)
    n_runs, n = 2_000, 4_000
    # Skewed, as probabilities of something rare are.
    values = chance.beta(0.5, 5, size=(n_runs, n)).astype("float32")
    truth = 0.5 / 5.5
    looks = np.unique(np.geomspace(100, n, 60).astype(int))
    sums, squares = np.cumsum(values, axis=1), np.cumsum(values**2, axis=1)
    left_out = np.zeros(n_runs, dtype=bool)
    for k in looks:
        mean = sums[:, k - 1] / k
        sd = np.sqrt(np.maximum(squares[:, k - 1] / k - mean**2, 0))
        left_out |= np.abs(mean - truth) > mean_radius(k, 1.0, ALPHA) * sd
    assert left_out.mean() <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / n_runs)


def test_the_interval_of_a_mean_narrows() -> None:
    radii = [mean_radius(n, 1.0, ALPHA) for n in (0, 10, 100, 1_000, 100_000)]
    assert radii == sorted(radii, reverse=True)
    assert radii[0] == math.inf
    assert radii[3] == pytest.approx(0.1, rel=0.15)
