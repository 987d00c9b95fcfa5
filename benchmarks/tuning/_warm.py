"""How much a search gains by what an earlier one found, on rows that came before."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.tuning._data import flights
from benchmarks.tuning._ours import boosting, ray_of, search
from holdtrue.tuning._types import First, Setting

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from benchmarks.tuning._work import Job
    from holdtrue.references import Trial
    from holdtrue.tuning._space import Space
    from holdtrue.tuning._types import Objective

    _Folds = Sequence[tuple[np.ndarray, ...]]

SETS = ("flights by quarter", "breast cancer", "diabetes")
WARM_SHARE = 0.3
_FLIGHTS = 6_000
_UNSEEN_FLIGHTS = 20_000
# Of the sets that are small: for the earlier search, for the later one, and for neither.
_PARTS = (0.4, 0.4, 0.2)
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
    cold_unseen: float
    """On rows that no search saw: the setting that `cold` chose, fitted on all of its rows."""
    warm_unseen: float
    """The same of the setting that `warm` chose."""


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
    earlier, later, unseen = _parts(job.data, job.seed)
    few = max(1, round(WARM_SHARE * job.trials))
    names = [folder / f"{job.seed}-{name}.log" for name in ("past", "cold", "warm", "unseen")]
    folds, judged = _folds(later, job.seed), [(later.x, later.y, unseen.x, unseen.y)]
    past_job = replace(job, seed=1_000 + job.seed)
    past = _search(past_job, _folds(earlier, past_job.seed), earlier.classes, names[0])
    cold = _search(job, folds, later.classes, names[1])
    warm = _search(job, folds, later.classes, names[2], few, [past])
    chosen = [_best(some) for some in (cold, cold[:few], warm)]
    values = [_value(trial) for trial in chosen]
    final = [First(Setting(one.candidate, one.params), "default") for one in chosen[::2]]
    space, objective = _objective(job, judged, later.classes, names[3])
    found = search(replace(job, trials=len(final)), objective, space, names[3], first=final)
    return Pair(job.seed, *values, *(_value(trial) for trial in found.trials))


def _best(trials: Sequence[Trial]) -> Trial:
    return min(trials, key=_value)


def _value(trial: Trial) -> float:
    return math.inf if trial.value is None else trial.value


def _search(
    job: Job,
    folds: _Folds,
    classes: tuple[str, ...] | None,
    log: Path,
    few: int | None = None,
    earlier: Sequence[Sequence[Trial]] = (),
) -> Sequence[Trial]:
    """Search as `tune` does.

    Args:
        job: With the trials of the whole search.
        folds: That its trials see.
        classes: Of the target.
        log: Of the search.
        few: End after so many trials.
        earlier: Trials of each earlier study.
    """
    from holdtrue.tuning._warm import choose, recall

    space, objective = _objective(job, folds, classes, log)
    first, _ = choose(earlier, None, space, job.trials, direction="lower")
    past = recall(earlier, space, direction="lower")
    shorter = replace(job, trials=few or job.trials)
    return search(shorter, objective, space, log, first=first, past=past).trials


def _objective(
    job: Job, folds: _Folds, classes: tuple[str, ...] | None, log: Path
) -> tuple[Space, Objective]:
    # A worker keeps binned rows by the name of the study.
    return boosting(folds, replace(job, data=str(log)), classes=classes)


def _parts(name: str, seed: int) -> tuple[_Rows, _Rows, _Rows]:
    """Rows of an earlier study, of a later one, and of neither; others for each seed.

    Those of neither come from where the later one's do.
    """
    random = np.random.default_rng(seed)
    if name == "flights by quarter":
        quarters = [
            flights(datetime(2013, first, 1, tzinfo=UTC), datetime(2013, first + 3, 1, tzinfo=UTC))
            for first in (1, 4)
        ]
        early, late = (_Rows(x, y, ("punctual", "late")) for x, y in quarters)
        order = random.permutation(len(late.y))
        return (
            early.part(random.permutation(len(early.y))[:_FLIGHTS]),
            late.part(order[:_FLIGHTS]),
            late.part(order[_FLIGHTS : _FLIGHTS + _UNSEEN_FLIGHTS]),
        )
    rows = _bundled(name)
    order = random.permutation(len(rows.y))
    ends = (np.cumsum(_PARTS)[:-1] * len(order)).astype(int)
    one, two, three = (rows.part(chosen) for chosen in np.split(order, ends))
    return one, two, three


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
