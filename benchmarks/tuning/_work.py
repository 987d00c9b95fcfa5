"""What a trial does: the same two functions for whoever runs the search.

A real trial trains XGBoost on flights and judges it on others; a tiny one computes for 20 ms
without giving the interpreter away; a waiting one sleeps, so that more of them than there are cores
can run at a time. With ``folds`` holdtrue trains on the same flights in its own way, which ends
trials early.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import optuna
    import xgboost

    from holdtrue.declaration import Range

Kind = Literal["real", "tiny", "waiting", "folds"]
# Settings for trials that are not measured.
WARM_SEED = 999_983


@dataclass(frozen=True)
class Job:
    """One search to measure."""

    contender: str
    """Key of `benchmarks.tuning._run.CONTENDERS`."""
    kind: Kind
    trials: int
    sampler: Literal["fixed", "random", "tpe"]
    """``fixed``: the settings of `settings(kind, trials, seed)`, known from the beginning."""
    data: str
    """Path of the rows."""
    seed: int = 0
    workers: int = 2
    pruner: str | None = None
    deterministic: bool = False
    parallel: int | None = None
    """Trials at a time where they are fewer than `workers`; holdtrue only."""
    rounds: int = 45
    tiny_s: float = 0.02
    """Of a tiny trial, and of a waiting one."""


@dataclass(frozen=True)
class Done:
    """A trial that is over."""

    value: float | None
    """Smaller is better."""
    cpu_s: float | None
    """Of the thread that trained and judged, without making the binned rows; None: not known."""
    state: str = "complete"


@dataclass(frozen=True)
class Span:
    """What a parameter may be."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def draw(self, random: np.random.Generator) -> float:
        """A value, all equally likely on the parameter's scale."""
        if self.whole:
            return int(random.integers(int(self.low), int(self.high), endpoint=True))
        if self.log:
            return float(np.exp(random.uniform(np.log(self.low), np.log(self.high))))
        return float(random.uniform(self.low, self.high))

    def distribution(self) -> Any:
        """As Optuna has it."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high))
        return FloatDistribution(self.low, self.high, log=self.log)

    def suggest(self, trial: optuna.Trial, name: str) -> float:
        """Ask Optuna for a value."""
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high))
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def range(self) -> Range:
        """As holdtrue has it."""
        from holdtrue.declaration import Range

        if self.whole:
            return Range(int=(int(self.low), int(self.high)))
        return Range(float=(self.low, self.high), log=self.log)


SPACES: dict[Kind, dict[str, Span]] = {
    "real": {
        "learning_rate": Span(0.01, 0.5, log=True),
        "max_depth": Span(4, 12, whole=True),
        "min_child_weight": Span(0.1, 30, log=True),
        "max_delta_step": Span(0, 5),
        "subsample": Span(0.5, 1),
        "colsample_bytree": Span(0.4, 1),
        "colsample_bylevel": Span(0.4, 1),
        "gamma": Span(1e-4, 5, log=True),
        "reg_lambda": Span(1e-3, 100, log=True),
        "reg_alpha": Span(1e-3, 10, log=True),
    },
    "tiny": {f"x{number}": Span(0, 1) for number in range(10)},
}
SPACES["folds"] = SPACES["real"]
SPACES["waiting"] = SPACES["tiny"]


def settings(kind: Kind, trials: int, seed: int = 0) -> list[dict[str, float]]:
    """Random settings, the same for whoever asks."""
    random = np.random.default_rng(seed)
    space = SPACES[kind]
    return [{name: span.draw(random) for name, span in space.items()} for _ in range(trials)]


@dataclass(frozen=True)
class Binned:
    """Rows as XGBoost takes them, made once and used by many trials, one at a time."""

    fit: xgboost.QuantileDMatrix
    judge: xgboost.DMatrix
    truth: np.ndarray
    """shape (n_judged,): 0 or 1."""


def bin_rows(rows: Mapping[str, np.ndarray]) -> Binned:
    """Make the binned rows."""
    import xgboost

    return Binned(
        xgboost.QuantileDMatrix(rows["fit_x"], rows["fit_y"], nthread=1),
        xgboost.DMatrix(rows["judge_x"], nthread=1),
        rows["judge_y"],
    )


def train_and_judge(params: Mapping[str, float], binned: Binned, rounds: int) -> Done:
    """Run a real trial.

    Returns:
        With the logarithmic loss on the rows kept for judging.
    """
    import xgboost

    started = time.thread_time()
    fixed = {"objective": "binary:logistic", "tree_method": "hist", "nthread": 1, "seed": 0}
    booster = xgboost.train({**fixed, **params}, binned.fit, num_boost_round=rounds)
    value = log_loss(binned.truth, booster.predict(binned.judge))
    return Done(value, time.thread_time() - started)


def log_loss(truth: np.ndarray, probability: np.ndarray) -> float:
    """Mean logarithmic loss of probabilities for the class 1; both of shape (n_rows,)."""
    safe = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(-np.mean(np.where(truth == 1, np.log(safe), np.log1p(-safe))))


def compute(params: Mapping[str, float], seconds: float) -> Done:
    """Run a tiny trial: `seconds` of CPU time, and the interpreter is not given away.

    Returns:
        With the squared distance to a point of the space.
    """
    started = time.thread_time()
    value = sum((number - 0.3) ** 2 for number in params.values())
    while time.thread_time() - started < seconds:
        pass
    return Done(value, time.thread_time() - started)


# By path of the rows: those that no trial of this process uses just now.
_free: dict[str, list[Binned]] = {}
_lock = threading.Lock()


def prepare(job: Job, rows: Mapping[str, np.ndarray], copies: int = 1) -> None:
    """Load and make all that a first trial of this process would.

    Args:
        job: Whose trials will run.
        rows: What `read` returns; of a tiny trial nothing.
        copies: Trials at a time.
    """
    if job.kind == "real":
        _free[job.data] = [bin_rows(rows) for _ in range(copies)]
    run_trial(job, settings(job.kind, 1, WARM_SEED)[0], lambda: rows)


def run_trial(
    job: Job, params: Mapping[str, float], rows: Callable[[], Mapping[str, np.ndarray]]
) -> Done:
    """Run a trial of either kind.

    Args:
        job: Whose trial it is.
        params: Its setting.
        rows: Called where this process has no binned rows that are free.
    """
    if job.kind == "tiny":
        return compute(params, job.tiny_s)
    if job.kind == "waiting":
        time.sleep(job.tiny_s)
        return compute(params, 0.0)
    with lend(job, rows) as binned:
        return train_and_judge(params, binned, job.rounds)


@contextmanager
def lend(job: Job, rows: Callable[[], Mapping[str, np.ndarray]]) -> Iterator[Binned]:
    """Binned rows that no other thread of this process uses meanwhile."""
    with _lock:
        free = _free.setdefault(job.data, [])
        found = free.pop() if free else None
    binned = found or bin_rows(rows())
    try:
        yield binned
    finally:
        with _lock:
            free.append(binned)
