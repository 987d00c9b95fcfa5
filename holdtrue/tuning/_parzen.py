"""Densities over settings: a kernel around each known one, and one over the whole space."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri_exp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.distributions import BaseDistribution

# The narrowest kernel, as a share of the range.
_NARROWEST = 100.0
# This many of the latest settings count in full; the older, the less.
_FLAT = 25
_TINY = 1e-300


@dataclass(frozen=True)
class Axis:
    """One parameter on the scale on which it is modelled: logarithms, indices of choices."""

    name: str
    low: float = 0.0
    high: float = 0.0
    """Of the values. With a step, kernels reach half a step beyond both."""
    step: float | None = None
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()

    @classmethod
    def of(cls, name: str, distribution: BaseDistribution) -> Axis:
        """The axis of a parameter of the study."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if isinstance(distribution, CategoricalDistribution):
            return cls(name, choices=tuple(distribution.choices))
        if not isinstance(distribution, FloatDistribution | IntDistribution):
            raise TypeError(name)
        return cls(
            name,
            low=distribution.low,
            high=distribution.high,
            step=distribution.step,
            log=distribution.log,
            whole=isinstance(distribution, IntDistribution),
        )

    @property
    def edges(self) -> tuple[float, float]:
        """Where kernels are cut off, on the modelled scale."""
        half = (self.step or 0.0) / 2
        low, high = self.low - half, self.high + half
        return (math.log(low), math.log(high)) if self.log else (low, high)

    def to_model(self, value: Any) -> float:
        """A value on the modelled scale."""
        if self.choices:
            return float(self.choices.index(value))
        return math.log(value) if self.log else float(value)

    def to_value(self, point: float) -> Any:
        """The value of a point of the modelled scale."""
        if self.choices:
            return self.choices[int(point)]
        value = math.exp(point) if self.log else point
        if self.step is not None:
            value = self.low + round((value - self.low) / self.step) * self.step
        value = min(max(value, self.low), self.high)
        return round(value) if self.whole else value

    def to_grid(self, points: np.ndarray) -> np.ndarray:
        """Move points of the modelled scale to the values that there are."""
        if self.step is None:
            return points
        values = np.exp(points) if self.log else points
        values = self.low + np.round((values - self.low) / self.step) * self.step
        values = np.clip(values, self.low, self.high)
        return np.log(values) if self.log else values

    def from_unit(self, share: float) -> Any:
        """The value below which this share of the axis lies.

        Args:
            share: 0..1.
        """
        if self.choices:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        low, high = self.edges
        return self.to_value(low + share * (high - low))


class Mixture:
    """A density over settings.

    Args:
        axes: The parameters.
        rows: shape (n_settings, n_axes), on the modelled scale, oldest first. May be empty.

    References:
        Watanabe, Tree-structured Parzen estimator: understanding its algorithm components and their
        roles for better empirical performance, 2023, arXiv:2304.11127: widths by the distance to
        the neighbours, one kernel over the whole space, older settings counting less.
    """

    def __init__(self, axes: Sequence[Axis], rows: np.ndarray) -> None:
        self._axes = tuple(axes)
        self._weights = _weights(len(rows))
        self._log_weights = np.log(self._weights)
        self._choices = {
            i: _choice_kernels(rows[:, i], len(axis.choices))
            for i, axis in enumerate(self._axes)
            if axis.choices
        }
        self._numbers = [i for i, axis in enumerate(self._axes) if not axis.choices]
        kernels = [_number_kernels(rows[:, i], *self._axes[i].edges) for i in self._numbers]
        shape = (len(self._weights), len(self._numbers))
        edges = np.array([self._axes[i].edges for i in self._numbers]).reshape(-1, 2)
        self._centres = np.array([kernel[0] for kernel in kernels]).T.reshape(shape)
        self._widths = np.array([kernel[1] for kernel in kernels]).T.reshape(shape)
        self._low = (edges[:, 0] - self._centres) / self._widths
        self._high = (edges[:, 1] - self._centres) / self._widths
        # Centres lie between the edges, so nothing is lost by taking the tails from 1.
        self._log_mass = np.log1p(-ndtr(self._low) - ndtr(-self._high))

    def sample(self, rng: np.random.RandomState, size: int) -> np.ndarray:
        """Draw settings.

        Returns:
            shape (size, n_axes), on the modelled scale.
        """
        kernels = rng.choice(len(self._weights), p=self._weights, size=size)
        points = np.empty((size, len(self._axes)))
        for i, table in self._choices.items():
            below = np.cumsum(table[kernels], axis=1)
            below[:, -1] = 1.0
            points[:, i] = np.sum(below < rng.rand(size)[:, None], axis=1)
        if self._numbers:
            shares = rng.uniform(size=(len(self._numbers), size)).T
            low, high = self._low[kernels], self._high[kernels]
            drawn = _quantile(shares, low, high, self._log_mass[kernels])
            drawn = drawn * self._widths[kernels] + self._centres[kernels]
            for column, i in enumerate(self._numbers):
                bottom, top = self._axes[i].edges
                points[:, i] = self._axes[i].to_grid(np.clip(drawn[:, column], bottom, top))
        return points

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """Logarithm of the density at settings, up to a constant of the space.

        Args:
            points: shape (n_points, n_axes), on the modelled scale.

        Returns:
            shape (n_points,).
        """
        total = np.tile(self._log_weights, (len(points), 1))
        for i, table in self._choices.items():
            total += np.log(table[:, points[:, i].astype(int)]).T
        smooth = []
        for column, i in enumerate(self._numbers):
            total -= self._log_mass[:, column]
            if self._axes[i].step is None:
                smooth.append(column)
            else:
                total += self._log_step_mass(column, points[:, i])
        if smooth:
            z = points[:, None, [self._numbers[c] for c in smooth]] - self._centres[:, smooth]
            z /= self._widths[:, smooth]
            total -= 0.5 * np.einsum("pka,pka->pk", z, z) + np.log(self._widths[:, smooth]).sum(1)
            total -= 0.5 * math.log(2 * math.pi) * len(smooth)
        top = total.max(axis=1)
        density: np.ndarray = np.log(np.exp(total - top[:, None]).sum(axis=1)) + top
        return density

    def _log_step_mass(self, column: int, points: np.ndarray) -> np.ndarray:
        """Logarithm of each kernel's mass within half a step of each point."""
        axis = self._axes[self._numbers[column]]
        half = (axis.step or 0.0) / 2
        distinct, where = np.unique(points, return_inverse=True)
        values = np.exp(distinct) if axis.log else distinct
        left, right = values - half, values + half
        if axis.log:
            left, right = np.log(left), np.log(right)
        centres, widths = self._centres[:, column], self._widths[:, column]
        a = (left[:, None] - centres) / widths
        b = (right[:, None] - centres) / widths
        # On the right of a centre the tails are taken, which keep their digits there.
        flip = a > 0
        a, b = np.where(flip, -b, a), np.where(flip, -a, b)
        mass: np.ndarray = np.log(np.maximum(ndtr(b) - ndtr(a), _TINY))[where]
        return mass


def _weights(n_rows: int) -> np.ndarray:
    """Weights of the kernels, that over the whole space last."""
    ramp = np.ones(n_rows)
    if n_rows >= _FLAT:
        ramp[: n_rows - _FLAT] = np.linspace(1 / n_rows, 1.0, num=n_rows - _FLAT)
    weights: np.ndarray = np.append(ramp, 1.0)
    weights /= weights.sum()
    return weights


def _choice_kernels(indices: np.ndarray, n_choices: int) -> np.ndarray:
    """Shape (n_rows + 1, n_choices): the probability of each choice in each kernel."""
    n_kernels = len(indices) + 1
    table = np.full((n_kernels, n_choices), 1.0 / n_kernels)
    table[np.arange(len(indices)), indices.astype(int)] += 1.0
    shares: np.ndarray = table / table.sum(axis=1, keepdims=True)
    return shares


def _number_kernels(values: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Centres and widths of the kernels, each of shape (n_rows + 1,)."""
    n_rows = len(values)
    widths = np.empty(n_rows)
    if n_rows:
        order = np.argsort(values)
        placed = np.concatenate([[low], values[order], [high]])
        gaps = np.diff(placed)
        wide = np.maximum(gaps[:-1], gaps[1:])
        if n_rows >= 2:  # the outermost are not widened by the distance to the edge
            wide[0], wide[-1] = gaps[1], gaps[-2]
        widths[order] = np.clip(wide, (high - low) / min(_NARROWEST, n_rows + 2), high - low)
    return np.append(values, (low + high) / 2), np.append(widths, high - low)


def _quantile(
    share: np.ndarray, low: np.ndarray, high: np.ndarray, log_mass: np.ndarray
) -> np.ndarray:
    """Quantiles of standard normal distributions that are cut off at low and high.

    Args:
        share: 0..1, of any shape; the others have the same.
        low: At most 0, as every kernel's centre lies between its edges.
        high: At least 0.
        log_mass: Logarithm of what lies between.
    """
    with np.errstate(divide="ignore"):
        left = ndtri_exp(np.logaddexp(log_ndtr(low), np.log(share) + log_mass))
    found: np.ndarray = np.clip(left, low, high)
    return found
