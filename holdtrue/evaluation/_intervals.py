"""Intervals of metrics, and of the difference of two models on the same rows."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from holdtrue.evaluation._metrics import measure_rows
from holdtrue.references import Difference, Estimate

if TYPE_CHECKING:
    import numpy.typing as npt

    from holdtrue.evaluation._metrics import Floats, Measured

# Metrics from 0 to 1 of which 1 is perfect.
_SHARES = frozenset({"roc_auc", "average_precision", "accuracy", "f1"})

# Smaller differences are rounding.
_EQUAL = 1e-12


def estimate(
    metric: str,
    target: npt.ArrayLike,
    scores: npt.ArrayLike,
    classes: tuple[str, ...] | None,
    *,
    confidence: float,
) -> Estimate:
    """Compute one metric with its two-sided interval.

    The standard error comes from the influence of each row (the delta method; for ``roc_auc`` this
    is DeLong's), so nothing is resampled and nothing is random. Metrics from 0 to 1 get Wilson's
    interval at the effective number of rows, value (1 - value) / se^2; losses, which are skewed, a
    normal one on the logarithmic scale; ``r2`` the same for 1 - r2. Rows count as independent.

    Args:
        metric: One of `holdtrue.declaration` METRICS.
        target: As for `measure`.
        scores: As for `measure`.
        classes: As for `measure`.
        confidence: Level of the interval, between 0 and 1.

    Raises:
        UndefinedError: A ValueError: the rows do not hold what the metric needs.
        ValueError: The arrays do not fit, or the metric does not fit the task.

    References:
        Efron (1982), The jackknife, the bootstrap and other resampling plans, chapter 6
        (influence function and delta method). Wilson (1927), Probable inference, the law of
        succession, and statistical inference, JASA 22, 209-212.
    """
    measured = measure_rows(metric, target, scores, classes)
    low, high = interval(
        metric,
        measured.value,
        _standard_error(measured.influence),
        confidence=confidence,
        rows=len(measured.influence),
        size=measured.size,
    )
    return Estimate(value=measured.value, low=low, high=high)


def interval(
    metric: str,
    value: float,
    error: float,
    *,
    confidence: float,
    rows: int,
    size: int | None = None,
) -> tuple[float, float]:
    """The two-sided interval around a metric, as `estimate` has it.

    Args:
        metric: Its name.
        value: The metric.
        error: Its standard error.
        confidence: Level of the interval, between 0 and 1.
        rows: That it was computed on.
        size: Rows that bear it; all where left out.
    """
    z = _quantile(confidence)
    if metric in _SHARES:
        return _wilson(value, error, z, rows, rows if size is None else size)
    if metric == "r2":
        highest, lowest = _on_log_scale(1 - value, error, z)
        return 1 - lowest, 1 - highest
    return _on_log_scale(value, error, z)


def difference(
    metric: str,
    direction: str,
    candidate: Measured,
    champion: Measured,
    confidence: float,
) -> Difference:
    """Compare two models on the same rows, by the row-wise difference of their influences.

    Args:
        metric: Its name.
        direction: ``higher`` or ``lower``: where the metric is better.
        candidate: The metric of the one.
        champion: The metric of the other, on the same rows in the same order.
        confidence: Level of the interval, between 0 and 1.
    """
    sign = 1.0 if direction == "higher" else -1.0
    gain = sign * (candidate.value - champion.value)
    error = _standard_error(candidate.influence - champion.influence)
    if error > _EQUAL:
        probability = NormalDist().cdf(gain / error)
    else:
        probability = 0.5 if abs(gain) <= _EQUAL else float(gain > 0)
    reach = _quantile(confidence) * error
    return Difference(
        metric=metric,
        candidate=candidate.value,
        champion=champion.value,
        gain=gain,
        low=gain - reach,
        high=gain + reach,
        probability=probability,
    )


def cost(costs: npt.NDArray[np.float64], confidence: float, *, signed: bool = False) -> Estimate:
    """Mean cost of a row with its two-sided interval.

    On the logarithmic scale as for losses; a normal one where some costs are negative.

    Args:
        costs: Shape (n_rows,).
        confidence: Level of the interval, between 0 and 1.
        signed: Whether it is a difference, which may be negative by nature.
    """
    value = float(costs.mean())
    error, z = _standard_error(costs - value), _quantile(confidence)
    if signed or costs.min() < 0:
        return Estimate(value=value, low=value - z * error, high=value + z * error)
    low, high = _on_log_scale(value, error, z)
    return Estimate(value=value, low=low, high=high)


def covered(inside: npt.NDArray[np.bool_], confidence: float) -> Estimate:
    """Share of rows whose interval holds the truth, with Wilson's interval.

    Args:
        inside: Shape (n_rows,).
        confidence: Level of the interval, between 0 and 1.
    """
    hits = inside.astype(np.float64)
    value = float(hits.mean())
    error = _standard_error(hits - value)
    low, high = _wilson(value, error, _quantile(confidence), len(hits), len(hits))
    return Estimate(value=value, low=low, high=high)


def _quantile(confidence: float) -> float:
    # A confidence of 100 % would be an infinite interval: the widest finite one stands for it.
    return NormalDist().inv_cdf(min((1 + confidence) / 2, 1 - 1e-12))


def _standard_error(influence: Floats) -> float:
    return math.sqrt(float(np.mean(influence**2)) / max(len(influence) - 1, 1))


def _wilson(value: float, error: float, z: float, rows: int, size: int) -> tuple[float, float]:
    spread = value * (1 - value)
    # A perfect (or wholly wrong) value shows no spread: only as many rows speak as bear the metric.
    n = min(max(spread / error**2, 1.0), rows) if error > 0 and spread > 0 else size
    middle = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(spread / n + z**2 / (4 * n**2))
    return min(max(middle - reach, 0.0), value), max(min(middle + reach, 1.0), value)


def _on_log_scale(value: float, error: float, z: float) -> tuple[float, float]:
    if value <= 0:
        return 0.0, 0.0
    factor = math.exp(z * error / value)
    return value / factor, value * factor
