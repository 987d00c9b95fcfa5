"""How far rows lie from a reference in one column: sizes of the difference and their p-values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Test = Literal["location", "levels", "missing", "unseen"]

_SMALLEST_CELL = 5.0  # expected count under which the chi-square distribution does not hold


class Measured(NamedTuple):
    """The outcome of one test."""

    value: float
    """Size of the difference, 0 where there is none."""
    p_value: float
    """Probability of such a difference if rows were independent and nothing had changed."""


NOTHING = Measured(0.0, 1.0)


def location(
    reference: NDArray[np.float64],
    reference_rows: int,
    deviation: float,
    quantiles: NDArray[np.float64],
    rows: int,
    *,
    inside: bool = False,
) -> Measured:
    """Compare two distributions of numbers.

    The size is the first Wasserstein distance on 200 quantiles, in standard deviations of the
    reference; the p-value is that of the two-sample Kolmogorov-Smirnov test.

    Args:
        reference: shape (401,), quantiles of the reference.
        reference_rows: Values in the reference.
        deviation: Standard deviation of the reference.
        quantiles: shape (401,), quantiles of the rows.
        rows: How many values these are.
        inside: Whether the rows are a part of the reference and are to be compared with the rest
            of it. As F_all is the weighted mean of F_rows and F_rest, their distances follow:
            |F_rows - F_rest| = |F_rows - F_all| / (1 - share of the rows).

    References:
        Stephens (1970), Use of the Kolmogorov-Smirnov, Cramer-von Mises and related statistics
        without extensive tables, for the correction of the statistic in small samples.
    """
    from scipy.special import kolmogorov

    rest_rows = reference_rows - rows if inside else reference_rows
    if rows < 1 or rest_rows < 1 or not len(reference) or not len(quantiles):
        return NOTHING
    scale = reference_rows / rest_rows if inside else 1.0
    # The odd quantiles are the midpoints of 200 equal parts: the extremes cannot weigh too much.
    moved = float(np.abs(reference[1::2] - quantiles[1::2]).mean()) * scale
    unit = deviation if deviation > 0 else max(abs(float(reference[0])), 1.0)
    points = np.concatenate([reference, quantiles])
    below = np.searchsorted(reference, points, side="right")
    below_rows = np.searchsorted(quantiles, points, side="right")
    distance = min(1.0, float(np.abs(below - below_rows).max()) / len(reference) * scale)
    root = np.sqrt(rows * rest_rows / (rows + rest_rows))
    return Measured(moved / unit, float(kolmogorov((root + 0.12 + 0.11 / root) * distance)))


def levels(
    reference: NDArray[np.int64], counts: NDArray[np.int64], *, inside: bool = False
) -> Measured:
    """Compare two distributions over the same cells.

    The size is the total variation distance (the share of rows that would have to change cell);
    the p-value is that of the chi-square test of homogeneity, small cells pooled.

    Args:
        reference: shape (n_cells,), rows of the reference in each cell.
        counts: shape (n_cells,), rows in each cell.
        inside: Whether the rows are a part of the reference, to be compared with its rest.

    References:
        Cochran (1954), Some methods for strengthening the common chi-square tests, for the
        smallest expected count of 5.
    """
    from scipy.special import chdtrc

    rest = reference - counts if inside else reference
    rows, rest_rows = int(counts.sum()), int(rest.sum())
    if rows < 1 or rest_rows < 1:
        return NOTHING
    distance = float(np.abs(counts / rows - rest / rest_rows).sum()) / 2
    expected = (counts + rest) * (min(rows, rest_rows) / (rows + rest_rows))
    small = expected < _SMALLEST_CELL
    seen = np.append(counts[~small], counts[small].sum()).astype(np.float64)
    total = seen + np.append(rest[~small], rest[small].sum())
    seen, total = seen[total > 0], total[total > 0]
    if len(total) == 1:
        return Measured(distance, 1.0)
    # For two samples the statistic needs one of them only: the other's deviations mirror it.
    share = rows / (rows + rest_rows)
    statistic = float(((seen - total * share) ** 2 / (total * share * (1 - share))).sum())
    return Measured(distance, float(chdtrc(len(total) - 1, statistic)))


def missing(
    reference_rows: int, reference_missing: int, rows: int, n_missing: int, *, inside: bool = False
) -> Measured:
    """Compare two shares of missing values.

    The size is the difference of the shares; the p-value is that of the two-proportion z-test.
    """
    from scipy.special import erfc

    if inside:
        reference_rows, reference_missing = reference_rows - rows, reference_missing - n_missing
    if rows < 1 or reference_rows < 1:
        return NOTHING
    difference = abs(n_missing / rows - reference_missing / reference_rows)
    pooled = (n_missing + reference_missing) / (rows + reference_rows)
    variance = pooled * (1 - pooled) * (1 / rows + 1 / reference_rows)
    if variance <= 0:
        return NOTHING
    return Measured(difference, float(erfc(difference / np.sqrt(2 * variance))))


def unseen(
    reference: NDArray[np.int64],
    counts: NDArray[np.int64],
    n_unknown: int,
    *,
    inside: bool = False,
) -> Measured:
    """Judge labels that the reference does not have.

    The size is their share of the rows; the p-value is that of so many or more under a Poisson
    law, whose rate is the chance that the next row has a new label.

    Args:
        reference: shape (n_labels,), rows of the reference by label.
        counts: shape (n_labels,), rows by the same labels.
        n_unknown: Rows with any other label.
        inside: Whether the rows are a part of the reference, to be compared with its rest.

    References:
        Good (1953), The population frequencies of species and the estimation of population
        parameters: the chance of a new species is the share of species seen once.
    """
    from scipy.special import pdtrc

    rest = reference - counts if inside else reference
    rows, rest_rows = int(counts.sum()) + n_unknown, int(rest.sum())
    if rows < 1 or rest_rows < 1:
        return NOTHING
    n_new = int(counts[rest == 0].sum()) + n_unknown
    rate = (int((rest == 1).sum()) + 1) / rest_rows
    p_value = float(pdtrc(n_new - 1, rate * rows)) if n_new else 1.0
    return Measured(n_new / rows, p_value)
