"""The same search by holdtrue, and Ray as holdtrue starts it."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.tuning._data import read
from benchmarks.tuning._work import SPACES, WARM_SEED, Done, run_trial, settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    import numpy as np

    from benchmarks.tuning._work import Job
    from holdtrue.tuning._drive import Driven
    from holdtrue.tuning._space import Space
    from holdtrue.tuning._types import First, Live, Objective, Outcome, Past, Setting, Watch

_TIMEOUT_S = 3_600.0


@contextmanager
def ray_of(workers: int) -> Iterator[Path]:
    """A Ray of so many logical CPUs, started the way holdtrue starts one for a single command.

    Yields:
        A folder that goes with it.
    """
    from holdtrue.stack import Stack
    from holdtrue.stack._session import own_ray
    from holdtrue.store import Store

    os.environ.update(Stack(Store(Path())).brief_ray_settings())  # before Ray is imported
    with own_ray(workers) as folder:
        yield folder


@dataclass(frozen=True)
class Trials:
    """The trials of a job as holdtrue runs them: the same function as for everybody else."""

    job: Job
    rows: Any
    """Reference to what `read` returns."""

    def __call__(self, setting: Setting, watch: Watch) -> Outcome:
        """Run one."""
        import ray

        from holdtrue.tuning._types import Outcome

        started = time.perf_counter()
        done = run_trial(self.job, setting.params, lambda: ray.get(self.rows))
        return Outcome("complete", done.value, time.perf_counter() - started, done.cpu_s or 0.0)


def holdtrue(job: Job, timed: AbstractContextManager[Any]) -> list[Done]:
    """Our search; the driver begins and ends within the time that is measured."""
    with ray_of(job.workers) as folder:
        space, objective = _on_flights(job) if job.kind == "folds" else _as_others(job)
        warm = replace(job, sampler="fixed", seed=WARM_SEED, trials=4 * job.workers, pruner=None)
        search(warm, objective, space, folder / "warm.log")
        with timed:
            driven = search(job, objective, space, folder / "study.log")
    return [Done(trial.value, trial.cpu_seconds, trial.state) for trial in driven.trials]


def _as_others(job: Job) -> tuple[Space, Objective]:
    import ray

    from holdtrue.tuning._space import Space

    rows = ray.put(read(job.data) if job.kind == "real" else {})
    return Space.of({name: span.range() for name, span in SPACES[job.kind].items()}), Trials(
        job, rows
    )


def _on_flights(job: Job) -> tuple[Space, Objective]:
    rows = read(job.data)
    fold = (rows["fit_x"], rows["fit_y"], rows["judge_x"], rows["judge_y"])
    return boosting([fold], job, classes=("punctual", "late"))


def boosting(
    folds: Sequence[tuple[np.ndarray, ...]], job: Job, *, classes: tuple[str, ...] | None
) -> tuple[Space, Objective]:
    """XGBoost on rows, as a declaration would have it. Ray must be connected.

    Args:
        folds: Of each: rows and targets to fit on, rows and targets to judge on.
        job: Its rounds, its rule for ending trials, its seed and a name for the rows.
        classes: Names; None for regression.
    """
    import ray

    from holdtrue.declaration import Candidate, Pruner
    from holdtrue.tuning._folds import Fold
    from holdtrue.tuning._space import Space
    from holdtrue.tuning._trial import Contender, FoldsObjective

    estimator = "xgboost.XGBRegressor" if classes is None else "xgboost.XGBClassifier"
    fixed: dict[str, Any] = {"n_estimators": job.rounds, "tree_method": "hist"}
    spans = {name: span.range() for name, span in SPACES["folds"].items()}
    space = Space([Candidate(estimator=estimator, params=fixed, space=spans)])
    boxed = ray.put([Fold(*fold) for fold in folds])
    return space, FoldsObjective(
        {space.labels[0]: Contender(estimator, fixed, "plain", boxed)},
        metric="rmse" if classes is None else "log_loss",
        classes=classes,
        seed=0,
        rule=Pruner(rule=job.pruner) if job.pruner else None,
        study=job.data,
    )


def search(
    job: Job,
    objective: Objective,
    space: Space,
    log: Path,
    *,
    first: Sequence[First] = (),
    past: Sequence[Past] = (),
) -> Driven:
    """Run a job by holdtrue's driver.

    Args:
        job: What is wanted.
        objective: Runs its trials.
        space: What is searched.
        log: Of the search.
        first: Settings to try before the sampler is asked, where the job's are not fixed.
        past: What earlier studies found.
    """
    from holdtrue.declaration import Pruner, Stop
    from holdtrue.tuning._drive import drive
    from holdtrue.tuning._types import First, Search, Setting

    if job.sampler == "fixed":
        first = [
            First(Setting(space.labels[0], params), "default")
            for params in settings(job.kind, job.trials, job.seed)
        ]
    wanted = Search(
        metric="log_loss",
        direction="lower",
        trials=job.trials,
        timeout_s=_TIMEOUT_S,
        stop=Stop(),
        sampler="tpe" if job.sampler == "tpe" else "random",
        pruner=Pruner(rule=job.pruner) if job.pruner else None,
        seed=job.seed,
        deterministic=job.deterministic,
        parallel=job.parallel,
        past=tuple(past),
    )
    return drive(
        objective, space, wanted, log=log, study_name="benchmark", first=first, progress=_ignore
    )


def _ignore(live: Live) -> None:
    """Nobody watches."""
