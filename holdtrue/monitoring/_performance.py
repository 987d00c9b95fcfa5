"""Judges the quality of served predictions whose labels have arrived."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Literal

import numpy as np

from holdtrue.profiles import MIN_ROWS
from holdtrue.references import Estimate, PerformanceCheck

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from numpy.typing import NDArray

_REPLICATES = 200
_FEWEST_BLOCKS = 3
_INTERVAL = (0.025, 0.975)
_NAMED = 3
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
    from holdtrue.evaluation import UndefinedError, measure

    rows = len(target)
    if rows < MIN_ROWS:
        return None
    try:
        value = measure(metric, target, scores, classes)
    except UndefinedError:
        return None
    n_blocks = rows if blocks is None else len(np.unique(blocks))
    replicates = []
    for drawn in _draws(rows, blocks, np.random.default_rng(seed)):
        with suppress(UndefinedError):  # a replicate may have one class only
            replicates.append(measure(metric, target[drawn], scores[drawn], classes))
    low, high = np.quantile(replicates or [value], _INTERVAL).tolist()
    sign = 1.0 if direction == "higher" else -1.0
    limit = expected - sign * abs(expected) * worse_than
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
