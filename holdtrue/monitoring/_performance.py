"""Judges the quality of served predictions whose labels have arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from holdtrue.profiles import MIN_ROWS
from holdtrue.references import Estimate, PerformanceCheck

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

_REPLICATES = 200
_INTERVAL = (0.025, 0.975)


def check_performance(
    *,
    version: int,
    metric: str,
    direction: Literal["higher", "lower"],
    target: NDArray[np.generic],
    scores: NDArray[np.float64],
    classes: tuple[str, ...] | None,
    expected: float,
    worse_than: float,
    start: datetime,
    end: datetime,
    seed: int,
) -> PerformanceCheck | None:
    """Measure served predictions against their labels.

    The model is held to be worse only if the whole 95 % interval (percentile bootstrap of the
    rows, 200 replicates) lies beyond the limit. Give all labelled rows of a run at once: the rows
    of a single bad day say more about the day than about the model.

    Args:
        version: Version that predicted.
        metric: Name of the metric.
        direction: In which direction it is better.
        target: shape (n_rows,): class indices, or numbers for regression.
        scores: shape (n_rows, n_classes) probabilities, or (n_rows,) for regression.
        classes: Names of the classes; None for regression.
        expected: Value in the version's evaluation.
        worse_than: Relative loss against `expected` that is not acceptable, 0..1.
        start: Begin of the rows (inclusive).
        end: End of the rows (exclusive).
        seed: Seed of the bootstrap.

    Returns:
        The check; None where fewer than 200 rows have labels or the metric is not defined on
        them, as with a single class.

    References:
        Efron (1979), Bootstrap methods: another look at the jackknife.
    """
    from holdtrue.evaluation import measure

    rows = len(target)
    if rows < MIN_ROWS:
        return None
    try:
        value = measure(metric, target, scores, classes)
    except ValueError:
        return None
    rng = np.random.default_rng(seed)
    replicates = []
    for _ in range(_REPLICATES):
        drawn = rng.integers(0, rows, rows)
        try:
            replicates.append(measure(metric, target[drawn], scores[drawn], classes))
        except ValueError:  # a replicate may have one class only
            continue
    low, high = np.quantile(replicates or [value], _INTERVAL).tolist()
    margin = abs(expected) * worse_than
    if direction == "higher":
        limit = expected - margin
        worse = high < limit
    else:
        limit = expected + margin
        worse = low > limit
    verdict = "worse than acceptable" if worse else "acceptable"
    return PerformanceCheck(
        version=version,
        metric=metric,
        rows=rows,
        start=start,
        end=end,
        value=Estimate(value=value, low=low, high=high),
        expected=expected,
        limit=limit,
        worse=worse,
        detail=(
            f"{metric} of version {version} is {value:.4g} ({low:.4g} to {high:.4g}) on {rows:,} "
            f"labelled rows, {expected:.4g} when evaluated, limit {limit:.4g}: {verdict}"
        ),
    )
