from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from holdtrue.profiles import _difference as difference
from holdtrue.profiles._profile import spread


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5])
def test_location_agrees_with_scipy(shift: float) -> None:
    rng = np.random.default_rng(1)
    before, after = np.sort(rng.normal(size=5_000)), np.sort(rng.normal(shift, 1, 1_000))
    found = difference.location(spread(before), 5_000, before.std(), spread(after), 1_000)
    expected = stats.ks_2samp(before, after, method="asymp").pvalue
    assert np.log(found.p_value) == pytest.approx(np.log(expected), rel=0.2, abs=0.5)
    distance = stats.wasserstein_distance(before, after) / before.std()
    assert found.value == pytest.approx(distance, abs=0.01)


def test_location_of_a_part_is_that_against_the_rest() -> None:
    rng = np.random.default_rng(2)
    part, rest = np.sort(rng.normal(0.3, 1, 800)), np.sort(rng.normal(size=3_200))
    whole = np.sort(np.concatenate([part, rest]))
    inside = difference.location(spread(whole), 4_000, 1.0, spread(part), 800, inside=True)
    apart = difference.location(spread(rest), 3_200, 1.0, spread(part), 800)
    assert inside.value == pytest.approx(apart.value, abs=0.01)
    assert np.log(inside.p_value) == pytest.approx(np.log(apart.p_value), rel=0.1)


def test_location_sees_atoms_and_constant_columns() -> None:
    ones, twos = np.ones(401), np.full(401, 2.0)
    assert difference.location(ones, 1_000, 0.0, ones, 500).p_value == 1.0
    moved = difference.location(ones, 1_000, 0.0, twos, 500)
    assert moved.value == 1.0
    assert moved.p_value < 1e-12


def test_levels_agrees_with_scipy() -> None:
    before, after = np.array([500, 300, 200]), np.array([40, 45, 15])
    found = difference.levels(before, after)
    expected = stats.chi2_contingency(np.array([before, after]), correction=False).pvalue
    assert found.p_value == pytest.approx(expected)
    assert found.value == pytest.approx(0.15)


def test_levels_pools_small_cells() -> None:
    before = np.array([1_000, 1_000, *[1] * 50])
    after = np.array([100, 100, 1, *[0] * 49])
    assert difference.levels(before, after).p_value > 0.05


def test_levels_of_a_part_are_those_against_the_rest() -> None:
    part, rest = np.array([30, 70]), np.array([500, 400])
    inside = difference.levels(part + rest, part, inside=True)
    assert inside == difference.levels(rest, part)


def test_missing_agrees_with_the_z_test() -> None:
    found = difference.missing(10_000, 100, 1_000, 30)
    pooled = 130 / 11_000
    z = 0.02 / np.sqrt(pooled * (1 - pooled) * (1 / 10_000 + 1 / 1_000))
    assert found.value == pytest.approx(0.02)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(z))
    assert difference.missing(11_000, 130, 1_000, 30, inside=True) == found


def test_unseen_follows_good_and_turing() -> None:
    before = np.array([500, 499, 1])
    found = difference.unseen(before, np.array([90, 9, 0]), 1)
    assert found.value == pytest.approx(0.01)
    assert found.p_value == pytest.approx(stats.poisson.sf(0, 2 / 1_000 * 100))
    assert difference.unseen(before, np.array([9, 1, 0]), 0).p_value == 1.0


def test_unseen_in_a_part_are_labels_that_only_the_part_has() -> None:
    whole, part = np.array([500, 7, 3]), np.array([50, 7, 1])
    assert difference.unseen(whole, part, 0, inside=True).value == pytest.approx(7 / 58)


@pytest.mark.parametrize("rows", [0, 10])
def test_nothing_to_compare_is_no_difference(rows: int) -> None:
    empty = np.empty(0)
    assert difference.location(empty, 0, 0.0, np.zeros(401), rows) == difference.NOTHING
    assert difference.levels(np.zeros(3, int), np.full(3, rows)) == difference.NOTHING
    assert difference.missing(0, 0, rows, 0) == difference.NOTHING
    assert difference.unseen(np.zeros(3, int), np.zeros(3, int), rows) == difference.NOTHING
