"""Judges the quality of served predictions whose labels have arrived."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from holdtrue.profiles import MIN_ROWS
from holdtrue.references import Estimate, PerformanceCheck, SliceQuality

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from numpy.typing import NDArray

_REPLICATES = 200
_FEWEST_BLOCKS = 3
_INTERVAL = (0.025, 0.975)
_NAMED = 3
_LEVEL = 0.05
_SLICE_ROWS = 10_000
"""Of more rows of a slice so many are measured, spread evenly."""
KNOWN_CLASSES = "known_classes"
"""What the share of labels of classes that a model knows is called, beside the metrics."""


def check_performance(
    *,
    version: int,
    metric: str,
    direction: Literal["higher", "lower"],
    target: NDArray[np.generic],
    scores: NDArray[np.float64],
    classes: tuple[str, ...] | None,
    blocks: NDArray[np.int64] | None = None,
    expected: float,
    worse_than: float,
    start: datetime,
    end: datetime,
    seed: int,
) -> PerformanceCheck | None:
    """Measure served predictions against their labels.

    The model is held to be worse only if the whole 95 % interval (percentile bootstrap, 200
    replicates) lies beyond the limit. Whole blocks are resampled, not rows: the rows of a bad day
    are bad together and say more about the day than about the model. Of fewer than 3 blocks
    nothing is concluded.

    Args:
        version: Version that predicted.
        metric: Name of the metric.
        direction: In which direction it is better.
        target: shape (n_rows,): class indices, or numbers for regression.
        scores: shape (n_rows, n_classes) probabilities, or (n_rows,) for regression.
        classes: Names of the classes; None for regression.
        blocks: shape (n_rows,), the number of each row's block, such as its day; every row is a
            block of its own where left out.
        expected: Value in the version's evaluation.
        worse_than: Relative loss against `expected` that is not acceptable, 0..1.
        start: Begin of the rows (inclusive).
        end: End of the rows (exclusive).
        seed: Seed of the bootstrap.

    Returns:
        The check; None where fewer than 200 rows have labels or the metric is not defined on
        them, as with a single class.

    References:
        Davison and Hinkley (1997), Bootstrap Methods and their Application, section 3.8, for the
        resampling of whole blocks.
    """
    rows = len(target)
    found = _measured(metric, target, scores, classes, blocks, seed)
    if found is None:
        return None
    value, low, high = found.value, *found.interval
    n_blocks = rows if blocks is None else len(np.unique(blocks))
    sign, limit = _limit(direction, expected, worse_than)
    best = high if direction == "higher" else low
    beyond = sign * (limit - best) > 0
    worse = beyond and n_blocks >= _FEWEST_BLOCKS
    verdict = _verdict(worse=worse, beyond=beyond, past=sign * (limit - value) > 0)
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


def check_slices(
    *,
    version: int,
    metric: str,
    direction: Literal["higher", "lower"],
    target: NDArray[np.generic],
    scores: NDArray[np.float64],
    classes: tuple[str, ...] | None,
    blocks: NDArray[np.int64],
    texts: Mapping[str, NDArray[np.str_]],
    expected: Mapping[str, Mapping[str, float]],
    worse_than: float,
    start: datetime,
    end: datetime,
    seed: int,
) -> tuple[SliceQuality, ...]:
    """Measure served predictions against their labels, slice by slice.

    The interval is that of `check_performance`. Of twenty such intervals one misses the truth, and
    there may be a hundred slices: a slice is held to be worse only if it is beyond the limit at a
    level of 5 % for all of them together (Bonferroni), by Student's t with the standard error of
    the resampled blocks.

    Args:
        version: As for `check_performance`, as are those not named here.
        metric: Name of the metric.
        direction: In which direction it is better.
        target: shape (n_rows,).
        scores: shape (n_rows, n_classes), or (n_rows,) for regression.
        classes: Names of the classes; None for regression.
        blocks: shape (n_rows,), the number of each row's block.
        texts: By column, the slice of each row, shape (n_rows,).
        expected: By column and slice, the value in the version's evaluation. Slices that it does
            not have are left out.
        worse_than: Relative loss against what is expected that is not acceptable, 0..1.
        start: Begin of the rows (inclusive).
        end: End of the rows (exclusive).
        seed: Seed of the bootstrap.

    Returns:
        One for each slice with 200 rows or more on which the metric is defined, of the 50 most
        frequent of a column; first the one that lost most.
    """
    from holdtrue.evaluation import evenly, most_frequent

    found = []
    for column, of_row in texts.items():
        known = expected.get(column, {})
        for name, chosen in most_frequent(of_row, MIN_ROWS):
            if name not in known:
                continue
            every = np.flatnonzero(chosen)
            rows = every[evenly(len(every), _SLICE_ROWS)]
            measured = _measured(metric, target[rows], scores[rows], classes, blocks[rows], seed)
            if measured is not None:
                n_blocks = len(np.unique(blocks[rows]))
                found.append((column, name, len(every), n_blocks, measured))
    results = []
    for column, name, n_rows, n_blocks, measured in found:
        before, (low, high) = expected[column][name], measured.interval
        sign, limit = _limit(direction, before, worse_than)
        past = sign * (limit - measured.value)
        beyond = sign * (limit - (high if direction == "higher" else low)) > 0
        worse = past > _surely(measured.spread, n_blocks, len(found))
        if not worse and beyond and n_blocks >= _FEWEST_BLOCKS:
            said = f"beyond it, but not surely, as one of {len(found)} slices"
        else:
            said = _verdict(worse=worse, beyond=beyond, past=past > 0)
        results.append(
            SliceQuality(
                version=version,
                metric=metric,
                column=column,
                slice=name,
                rows=n_rows,
                start=start,
                end=end,
                value=Estimate(value=measured.value, low=low, high=high),
                expected=before,
                limit=limit,
                worse=worse,
                detail=(
                    f"{metric} of version {version} where {column} is {name} is "
                    f"{measured.value:.4g} ({low:.4g} to {high:.4g}) on {n_rows:,} labelled rows, "
                    f"{before:.4g} when evaluated, limit {limit:.4g}: {said}"
                ),
            )
        )
    sign = 1.0 if direction == "higher" else -1.0
    return tuple(sorted(results, key=lambda one: sign * (one.value.value - one.expected)))


def check_classes_known(
    *,
    version: int,
    known: int,
    unknown: Mapping[str, int],
    worse_than: float,
    start: datetime,
    end: datetime,
) -> PerformanceCheck | None:
    """Hold labels against the classes that a model knows: of all others it was wrong for sure.

    Args:
        version: Version that predicted.
        known: Labelled rows of classes that it knows.
        unknown: Labelled rows by each other class.
        worse_than: Share of such rows that is not acceptable any more, 0..1.
        start: Begin of the rows (inclusive).
        end: End of the rows (exclusive).

    Returns:
        The check, whose value is the share of `known`; None where there is no other class, or there
        are fewer than 200 rows.
    """
    missed = sum(unknown.values())
    rows = known + missed
    if not missed or rows < MIN_ROWS:
        return None
    share, limit = known / rows, 1 - worse_than
    names = sorted(unknown, key=lambda name: (-unknown[name], name))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    worse = share < limit
    return PerformanceCheck(
        version=version,
        metric=KNOWN_CLASSES,
        rows=rows,
        start=start,
        end=end,
        value=Estimate(value=share, low=share, high=share),
        expected=1.0,
        limit=limit,
        worse=worse,
        detail=(
            f"{missed:,} of {rows:,} labels ({missed / rows:.1%}) are of classes that version "
            f"{version} does not know ({', '.join(names[:_NAMED])}{more}), limit {worse_than:.1%}: "
            f"{_verdict(worse=worse, beyond=worse, past=worse)}"
        ),
    )


def _surely(spread: float, n_blocks: int, n_slices: int) -> float:
    """How far one of several slices has to be beyond its limit to be surely there.

    Args:
        spread: Standard deviation of its replicates.
        n_blocks: How many it has.
        n_slices: How many are looked at.
    """
    from scipy.stats import t as student

    if n_blocks < _FEWEST_BLOCKS:
        return float("inf")
    quantile = float(student.ppf(1 - _LEVEL / 2 / n_slices, n_blocks - 1))
    # Means of n drawn blocks are less spread than n measured ones let expect.
    wider: float = (n_blocks / (n_blocks - 1)) ** 0.5
    return quantile * spread * wider


class _Measured(NamedTuple):
    """A metric and what resampling made of it."""

    value: float
    interval: tuple[float, float]
    spread: float
    """Standard deviation of the replicates."""


def _measured(
    metric: str,
    target: NDArray[np.generic],
    scores: NDArray[np.float64],
    classes: tuple[str, ...] | None,
    blocks: NDArray[np.int64] | None,
    seed: int,
) -> _Measured | None:
    """The metric with its interval; None for too few rows, and where it is not defined on them."""
    from holdtrue.evaluation import UndefinedError, measure

    rows = len(target)
    if rows < MIN_ROWS:
        return None
    try:
        value = measure(metric, target, scores, classes)
    except UndefinedError:
        return None
    replicates = []
    for drawn in _draws(rows, blocks, np.random.default_rng(seed)):
        with suppress(UndefinedError):  # a replicate may have one class only
            replicates.append(measure(metric, target[drawn], scores[drawn], classes))
    low, high = np.quantile(replicates or [value], _INTERVAL).tolist()
    return _Measured(value, (low, high), float(np.std(replicates or [value])))


def _limit(
    direction: Literal["higher", "lower"], expected: float, worse_than: float
) -> tuple[float, float]:
    """1 where higher is better, else -1; and what is not acceptable any more."""
    sign = 1.0 if direction == "higher" else -1.0
    return sign, expected - sign * abs(expected) * worse_than


def _verdict(*, worse: bool, beyond: bool, past: bool) -> str:
    """In words: `beyond` is the whole interval, `past` the value alone."""
    if worse:
        return "worse than acceptable"
    if beyond:
        return f"beyond it, but not judged before {_FEWEST_BLOCKS} windows have labels"
    return "beyond it, but not surely" if past else "acceptable"


def _draws(
    rows: int, blocks: NDArray[np.int64] | None, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Positions of the rows of each replicate."""
    if blocks is None:
        for _ in range(_REPLICATES):
            yield rng.integers(0, rows, rows)
        return
    order = np.argsort(blocks, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1)
    for _ in range(_REPLICATES):
        yield np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))])
