"""How much a search gains by what an earlier one found, on rows that came before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.tuning._data import flights
from benchmarks.tuning._ours import boosting, ray_of, search

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from benchmarks.tuning._work import Job
    from holdtrue.references import Trial

SETS = ("flights by quarter", "breast cancer", "diabetes")
WARM_SHARE = 0.3
_FLIGHTS = 6_000
_FOLDS = 3


@dataclass(frozen=True)
class Pair:
    """The same search with and without an earlier one; smaller is better."""

    seed: int
    cold: float
    """The best of all its trials."""
    cold_early: float
    """The best of as many trials as the warm one has."""
    warm: float
    """The best of its first `WARM_SHARE`."""


@dataclass(frozen=True)
class _Rows:
    x: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...] | None

    def part(self, chosen: np.ndarray) -> _Rows:
        return _Rows(self.x[chosen], self.y[chosen], self.classes)


def warm_start(job: Job, timed: AbstractContextManager[Any]) -> list[Pair]:
    """Compare, for so many seeds as the job says by ``seed``, on the set it names by ``data``."""
    with ray_of(job.workers) as folder, timed:
        return [_pair(replace(job, seed=seed), folder) for seed in range(job.seed)]


def _pair(job: Job, folder: Path) -> Pair:
    earlier, later = _halves(job.data, job.seed)
    few = max(1, round(WARM_SHARE * job.trials))
    names = [folder / f"{job.seed}-{name}.log" for name in ("past", "cold", "warm")]
    past = _search(replace(job, seed=1_000 + job.seed), earlier, names[0])
    cold = _search(job, later, names[1])
    warm = _search(job, later, names[2], few, past)
    best = [min(t.value for t in some if t.value is not None) for some in (cold, cold[:few], warm)]
    return Pair(job.seed, *best)


def _search(
    job: Job, rows: _Rows, log: Path, few: int | None = None, earlier: Sequence[Trial] = ()
) -> Sequence[Trial]:
    """Search as `tune` does.

    Args:
        job: With the trials of the whole search.
        rows: That its trials see.
        log: Of the search.
        few: End after so many trials.
        earlier: Trials of an earlier study.
    """
    from holdtrue.tuning._warm import choose, recall

    # A worker keeps binned rows by the name of the study.
    named = replace(job, data=str(log))
    space, objective = boosting(_folds(rows, job.seed), named, classes=rows.classes)
    first, _ = choose(earlier, None, space, job.trials, direction="lower")
    past = recall(earlier, space, direction="lower")
    shorter = replace(job, trials=few or job.trials)
    return search(shorter, objective, space, log, first=first, past=past).trials


def _halves(name: str, seed: int) -> tuple[_Rows, _Rows]:
    """Rows of an earlier study and of a later one; of both another sample for each seed."""
    random = np.random.default_rng(seed)
    if name == "flights by quarter":
        quarters = [
            flights(datetime(2013, first, 1, tzinfo=UTC), datetime(2013, first + 3, 1, tzinfo=UTC))
            for first in (1, 4)
        ]
        early, late = (
            _Rows(x, y, ("punctual", "late")).part(random.permutation(len(y))[:_FLIGHTS])
            for x, y in quarters
        )
        return early, late
    rows = _bundled(name)
    order = random.permutation(len(rows.y))
    return rows.part(order[: len(order) // 2]), rows.part(order[len(order) // 2 :])


def _bundled(name: str) -> _Rows:
    from sklearn import datasets

    if name == "breast cancer":
        x, y = datasets.load_breast_cancer(return_X_y=True)
        return _Rows(x.astype(np.float32), y.astype(np.float32), ("malignant", "benign"))
    x, y = datasets.load_diabetes(return_X_y=True)
    return _Rows(x.astype(np.float32), y.astype(np.float32), None)


def _folds(rows: _Rows, seed: int) -> list[tuple[np.ndarray, ...]]:
    from sklearn.model_selection import KFold, StratifiedKFold

    kind = KFold if rows.classes is None else StratifiedKFold
    parts = kind(_FOLDS, shuffle=True, random_state=seed).split(rows.x, rows.y)
    return [(rows.x[fit], rows.y[fit], rows.x[judge], rows.y[judge]) for fit, judge in parts]
