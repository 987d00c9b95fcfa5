"""Intervals around predicted values, from errors on rows that the model was not fitted on."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from holdtrue.errors import TrainingError
from holdtrue.references import Reference

Floats = npt.NDArray[np.float64]


class Interval(Reference):
    """How far below and above its predicted value the truth may lie."""

    share: float
    """How often the interval is meant to hold the truth, 0..1."""
    low: float
    """Added to a value for the lower end."""
    high: float
    """Added to a value for the upper end."""
    rows: int
    """Errors that it comes from."""

    def __call__(self, values: Floats) -> Floats:
        """Lower and upper end for each value, shape (n_rows, 2)."""
        return np.column_stack([values + self.low, values + self.high])


def fit_interval(residuals: Floats, share: float) -> Interval:
    """Take the ends from the sorted errors.

    With n errors and alpha = 1 - share the ends are the errors of the ranks
    floor((n + 1) alpha / 2) and ceil((n + 1) (1 - alpha / 2)), so that at most alpha / 2 is missed
    on each side.

    What holds: for one model and errors on rows that had no part in fitting it, an exchangeable
    new row lies inside with a probability of at least `share`, over all rows together, whatever
    the distribution (not among the rows like a given one). What does not: our errors come from
    the models of the folds, each fitted on fewer rows than the model that answers. Their errors
    are usually a little larger, so the interval is usually a little wide, but that is no theorem;
    even with the intervals of CV+ it would be 1 - 2 alpha. Rows that change with time are not
    exchangeable. Therefore the evaluation measures how often the truth is inside.

    Args:
        residuals: shape (n_rows,), true minus predicted.
        share: Wanted share, above 0 and below 1.

    Raises:
        TrainingError: There are too few errors for so large a share.

    References:
        Vovk, Gammerman and Shafer (2005), Algorithmic Learning in a Random World, chapter 2. Lei,
        G'Sell, Rinaldo, Tibshirani and Wasserman (2018), Distribution-free predictive inference
        for regression, JASA 113, 1094-1111, section 2. Barber, Candes, Ramdas and Tibshirani
        (2021), Predictive inference with the jackknife+, Annals of Statistics 49, 486-507,
        section 3 and theorem 4 (CV+).
    """
    n, half = len(residuals), (1 - share) / 2
    # Rounded first, so that 0.1 * 20 is 2 and not a little more or less.
    low, high = math.floor(round((n + 1) * half, 9)), math.ceil(round((n + 1) * (1 - half), 9))
    if low < 1 or high > n:
        message = (
            f"an interval that holds the truth {share * 100:g}% of the time needs "
            f"at least {math.ceil(round(1 / half, 9)) - 1:,} rows to judge errors on, got {n:,}"
        )
        raise TrainingError(
            message, hint="declare a smaller share, or more data", key=("model", "interval")
        )
    ordered = np.sort(residuals)
    return Interval(share=share, low=float(ordered[low - 1]), high=float(ordered[high - 1]), rows=n)
