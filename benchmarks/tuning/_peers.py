"""Other ways to run the same search, each as its makers would have it: warm, and data sent once."""

from __future__ import annotations

import math
import multiprocessing
import os
import tempfile
import time
import traceback
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.tuning._data import read
from benchmarks.tuning._ours import ray_of
from benchmarks.tuning._work import SPACES, WARM_SEED, Done, prepare, run_trial, settings

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import optuna
    from ray import tune

    from benchmarks.tuning._work import Job

_START_TIMEOUT_S = 120.0
_SPAWN = multiprocessing.get_context("spawn")


def pool(job: Job, timed: AbstractContextManager[Any]) -> list[Done]:
    """A bare pool of processes without a tuner: the limit."""
    ready = _SPAWN.Barrier(job.workers + 1)
    with _SPAWN.Pool(job.workers, _start_worker, (job, ready)) as processes:
        ready.wait(_START_TIMEOUT_S)
        with timed:
            params = settings(job.kind, job.trials, job.seed)
            return list(processes.imap_unordered(_pool_trial, params))


_job: Job
_rows: dict[str, Any] = {}


def _start_worker(job: Job, ready: threading.Barrier) -> None:
    global _job  # noqa: PLW0603 - what a process of the pool knows
    _job = job
    _get_ready(job, ready)


def _get_ready(job: Job, ready: threading.Barrier) -> None:
    """Wait, warm, for the others and for the time to begin."""
    try:
        _warm_up(job)
    except BaseException:
        traceback.print_exc()  # before those who wait give up, and this process with them
        ready.abort()
        raise
    ready.wait(_START_TIMEOUT_S)


def _warm_up(job: Job, copies: int = 1) -> None:
    if job.kind == "real":
        _rows.update(read(job.data))
    prepare(job, _rows, copies)


def _pool_trial(params: dict[str, float]) -> Done:
    return run_trial(_job, params, lambda: _rows)


def optuna_threads(job: Job, timed: AbstractContextManager[Any]) -> list[Done]:
    """Optuna with n_jobs: threads of one process, the study in memory."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _warm_up(job, job.workers)
    study = optuna.create_study(sampler=_sampler(job))
    _enqueue(study, job)
    done: list[Done] = []
    with timed:
        study.optimize(_objective(job, done), n_trials=job.trials, n_jobs=job.workers)
    return done


def optuna_processes(job: Job, timed: AbstractContextManager[Any]) -> list[Done]:
    """Optuna in several processes that share a journal file."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "journal.log")
        _enqueue(optuna.create_study(storage=_journal(path), study_name="study"), job)
        ready = _SPAWN.Barrier(job.workers + 1)
        taken, found = _SPAWN.Value("i", 0), _SPAWN.Queue()
        processes = [
            _SPAWN.Process(target=_optuna_worker, args=(job, number, path, ready, taken, found))
            for number in range(job.workers)
        ]
        for process in processes:
            process.start()
        ready.wait(_START_TIMEOUT_S)
        done: list[Done] = []
        with timed:
            for _ in processes:
                done += found.get()
        for process in processes:
            process.join()
    return done


def _optuna_worker(
    job: Job, number: int, path: str, ready: threading.Barrier, taken: Any, found: Any
) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        storage=_journal(path), study_name="study", sampler=_sampler(job, number)
    )
    done: list[Done] = []
    objective = _objective(job, done)
    _get_ready(job, ready)
    while True:
        with taken.get_lock():
            if taken.value >= job.trials:
                break
            taken.value += 1
        study.optimize(objective, n_trials=1)
    found.put(done)


def _objective(job: Job, done: list[Done]) -> Callable[[optuna.Trial], float]:
    def objective(trial: optuna.Trial) -> float:
        params = {name: span.suggest(trial, name) for name, span in SPACES[job.kind].items()}
        one = run_trial(job, params, lambda: _rows)
        done.append(one)
        return one.value if one.value is not None else math.nan

    return objective


def _journal(path: str) -> Any:
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return JournalStorage(JournalFileBackend(path))


def _sampler(job: Job, number: int = 0) -> Any:
    import optuna

    seed = job.seed * 1000 + number
    if job.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def _enqueue(study: optuna.Study, job: Job) -> None:
    if job.sampler == "fixed":
        for params in settings(job.kind, job.trials, job.seed):
            study.enqueue_trial(params)


def ray_tune(job: Job, timed: AbstractContextManager[Any]) -> list[Done]:
    """Ray Tune with its OptunaSearch; actors are used again, and nothing is logged that need not.

    Ray runs, and a search was run before; the actors begin with each search all the same.
    """
    with _ray_for_tune(job) as (folder, rows):
        _tuner(replace(job, trials=0), rows, folder).fit()
        with timed:
            results = _tuner(job, rows, folder, warm=0).fit()
    return _done(job, results)


def ray_tune_running(job: Job, timed: AbstractContextManager[Any]) -> list[Done]:
    """The same from when its actors have run two trials each, which do not count."""
    with _ray_for_tune(job) as (folder, rows), ExitStack() as measured:
        from ray import tune

        class Begin(tune.Callback):
            """Lets the measured time begin."""

            left = 2 * job.workers

            def on_trial_complete(self, *_: Any, **__: Any) -> None:
                self.left -= 1
                if self.left == 0:
                    measured.enter_context(timed)

        results = _tuner(job, rows, folder, Begin()).fit()
    return _done(job, results)


@contextmanager
def _ray_for_tune(job: Job) -> Iterator[tuple[Path, Any]]:
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    with ray_of(job.workers) as folder:
        import ray

        yield folder, ray.put(read(job.data) if job.kind == "real" else {})


def _tuner(
    job: Job, rows: Any, folder: Path, *callbacks: tune.Callback, warm: int | None = None
) -> tune.Tuner:
    """Ray Tune's search, with trials before the job's own: so many, or two for each worker."""
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    known = settings(job.kind, 2 * job.workers if warm is None else warm, WARM_SEED)
    trials = len(known) + job.trials
    if job.sampler == "fixed":
        known += settings(job.kind, job.trials, job.seed)
    search = OptunaSearch(
        space={name: span.distribution() for name, span in SPACES[job.kind].items()},
        metric="value",
        mode="min",
        points_to_evaluate=known or None,
        sampler=_sampler(job),
    )
    trainable = tune.with_parameters(_trainable, job=job, rows=rows)
    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=search,
            num_samples=trials,
            max_concurrent_trials=job.workers,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder / "tune"), verbose=0, callbacks=list(callbacks)
        ),
    )


def _done(job: Job, results: tune.ResultGrid) -> list[Done]:
    if results.errors:
        raise RuntimeError(str(results.errors[0]))
    found = [results[number].metrics or {} for number in range(len(results))]
    return [Done(metrics["value"], metrics["cpu_s"]) for metrics in found[-job.trials :]]


def _trainable(params: dict[str, float], job: Job, rows: Any) -> None:
    from ray import tune

    done = run_trial(job, params, lambda: rows)
    tune.report({"value": done.value, "cpu_s": done.cpu_s})


def halving(job: Job, timed: AbstractContextManager[Any]) -> list[Done]:
    """scikit-learn's HalvingRandomSearchCV: the same settings, the better ones with more rounds."""
    import numpy as np
    from joblib import Parallel, delayed
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import HalvingRandomSearchCV
    from xgboost import XGBClassifier

    rows = read(job.data)
    fitted, judged = len(rows["fit_y"]), len(rows["judge_y"])
    split = [(np.arange(fitted), np.arange(fitted, fitted + judged))]
    x, y = (np.concatenate([rows[f"fit_{name}"], rows[f"judge_{name}"]]) for name in "xy")
    params = settings(job.kind, job.trials, job.seed)
    search = HalvingRandomSearchCV(
        XGBClassifier(tree_method="hist", n_jobs=1, random_state=0),
        [{name: [value] for name, value in one.items()} for one in params],
        n_candidates=job.trials,
        resource="n_estimators",
        min_resources=max(1, job.rounds // 9),
        max_resources=job.rounds,
        factor=3,
        cv=split,
        scoring="neg_log_loss",
        n_jobs=job.workers,
        refit=False,
        random_state=job.seed,
    )
    # Its processes stay for the search, with XGBoost loaded.
    Parallel(n_jobs=job.workers)(delayed(_load_for)(1.0) for _ in range(job.workers))
    with timed:
        search.fit(x, y)
    found = search.cv_results_
    last = max(found["n_resources"])
    return [
        Done(-float(score), None, "complete" if resources == last else "pruned")
        for score, resources in zip(found["mean_test_score"], found["n_resources"], strict=True)
    ]


def _load_for(seconds: float) -> None:
    import xgboost  # noqa: F401

    time.sleep(seconds)  # so that each process gets one
