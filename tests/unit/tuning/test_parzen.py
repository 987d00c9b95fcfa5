from __future__ import annotations

import math

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy import integrate, stats

from holdtrue.tuning._parzen import Axis, Mixture

FLOAT = Axis.of("x", FloatDistribution(-1, 3))
LOG = Axis.of("r", FloatDistribution(1e-3, 10, log=True))
INT = Axis.of("n", IntDistribution(1, 9, step=2))
INT_LOG = Axis.of("m", IntDistribution(1, 20, log=True))
KIND = Axis.of("k", CategoricalDistribution(("a", None, 3)))


@pytest.mark.parametrize("n_rows", [0, 1, 2, 30])
@pytest.mark.parametrize("axis", [FLOAT, LOG], ids=["linear", "log"])
def test_a_density_of_numbers_sums_to_one(axis: Axis, n_rows: int) -> None:
    low, high = axis.edges
    rows = np.random.default_rng(0).uniform(low, high, (n_rows, 1))
    mixture = Mixture([axis], rows)
    points = np.linspace(low, high, 4_001)
    density = np.exp(mixture.log_density(points[:, None]))
    assert integrate.trapezoid(density, points) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("axis", "values"),
    [(INT, [1, 3, 5, 7, 9]), (INT_LOG, range(1, 21)), (KIND, ["a", None, 3])],
    ids=["steps", "log", "choice"],
)
def test_a_density_of_few_values_sums_to_one(axis: Axis, values: list[object]) -> None:
    points = np.array([[axis.to_model(value)] for value in values])
    for rows in (np.empty((0, 1)), points[:2], points[[1, 1, 0]]):
        density = np.exp(Mixture([axis], rows).log_density(points))
        assert density.sum() == pytest.approx(1, abs=1e-9)


def test_draws_follow_the_density() -> None:
    rows = np.array([[0.1, 1.0], [0.2, 0.0], [2.5, 1.0]])
    mixture = Mixture([FLOAT, KIND], rows)
    draws = mixture.sample(np.random.RandomState(0), 4_000)
    points = np.linspace(-1, 3, 2_001)
    density = sum(
        np.exp(mixture.log_density(np.column_stack([points, np.full_like(points, kind)])))
        for kind in range(3)
    )
    cumulative = integrate.cumulative_trapezoid(density, points, initial=0)
    found = stats.kstest(draws[:, 0], lambda x: np.interp(x, points, cumulative))
    assert found.pvalue > 0.01
    assert set(draws[:, 1]) == {0.0, 1.0, 2.0}


@pytest.mark.parametrize("axis", [FLOAT, LOG, INT, INT_LOG, KIND], ids=lambda axis: axis.name)
def test_draws_are_values_of_the_parameter(axis: Axis) -> None:
    rows = np.array([[axis.edges[0]], [axis.edges[1]]]) if not axis.choices else np.array([[2.0]])
    draws = Mixture([axis], rows).sample(np.random.RandomState(1), 200)[:, 0]
    for point in draws:
        value = axis.to_value(float(point))
        if axis.choices:
            assert value in axis.choices
        else:
            assert axis.low <= value <= axis.high
            assert not axis.step or math.isclose((value - axis.low) % axis.step, 0, abs_tol=1e-9)
        assert axis.to_model(value) == pytest.approx(point)


def test_shares_of_an_axis_reach_both_ends() -> None:
    for axis, first, last in ((INT, 1, 9), (LOG, 1e-3, 10), (KIND, "a", 3)):
        assert axis.from_unit(0.0) == (first if axis.choices else pytest.approx(first))
        assert axis.from_unit(1.0) == pytest.approx(last)
