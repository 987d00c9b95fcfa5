"""One trial: a setting is judged on every fold, in a worker."""

from __future__ import annotations

import importlib
import math
import sys
import time
import warnings
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from holdtrue.evaluation import measure
from holdtrue.models import construct, spread
from holdtrue.tuning._boost import Boosting, binned, boosts_in_rounds
from holdtrue.tuning._checkpoint import Checkpoint, Progress
from holdtrue.tuning._costs import constraints_of, costs_of, mean_costs
from holdtrue.tuning._folds import Kept
from holdtrue.tuning._prune import report_rounds
from holdtrue.tuning._types import Outcome, Report

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from holdtrue.declaration import Cost, Pruner
    from holdtrue.tuning._folds import Fold
    from holdtrue.tuning._types import Setting, Watch

# Between two folds a trial waits for the answer to its report, at most this share of the time that
# the last fold took: an estimator that is being fitted cannot be stopped.
_WAIT_SHARE = 0.01
_LONGEST_WAIT_S = 0.05
# Views of arrays in the object store: the store holds the bytes, not the process.
_FOLDS = Kept(0)


@dataclass(frozen=True)
class Contender:
    """A candidate and the rows that it is judged on."""

    estimator: str
    """Import path."""
    params: dict[str, Any]
    """Its constant arguments."""
    kind: str
    """Names the encoding; candidates with the same one have the same folds."""
    folds: Any
    """Sequence of `Fold`, or a reference to one in Ray's object store."""


@dataclass(frozen=True)
class FoldsObjective:
    """Judges a setting by the mean of a metric over folds. An `Objective`."""

    contenders: Mapping[str, Contender]
    """By label of the candidate."""
    metric: str
    classes: tuple[str, ...] | None
    """Names of the classes; None for regression."""
    seed: int
    """Of the estimators."""
    threads: int = 1
    """That an estimator may use."""
    rule: Pruner | None = None
    """Which will judge the reports: it decides when a trial reports."""
    costs: tuple[Cost, ...] = ()
    """What is measured of the models of complete trials."""
    limits: Mapping[Cost, float] = field(default_factory=dict)
    """Of some of these."""
    study: str = ""
    """Names the study: binned rows are kept in the worker for its next trials. Empty: they are
    not."""
    checkpoints: str | None = None
    """Folder, which all workers reach, where a long trial writes how far it is. None: it does not,
    and where its worker dies it begins anew."""

    def __call__(self, setting: Setting, watch: Watch) -> Outcome:
        """Judge a setting. Whatever the estimator raises fails this trial only."""
        wall, cpu = time.perf_counter(), time.process_time()
        _load_sklearn()
        checkpoint = Checkpoint(self.checkpoints, setting)
        course = _Course(watch, checkpoint)
        reason = None
        state: Literal["complete", "pruned", "failed"] = "failed"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a setting that converges badly shows in its score
                state = self._judge(setting, watch, course)
        except _NotFiniteError as err:
            reason = str(err)
        except Exception as err:  # noqa: BLE001 - an estimator may raise anything
            reason = f"{type(err).__name__}: {err}"[:500]
        checkpoint.remove()
        costs = mean_costs(course.costs) if state == "complete" else {}
        return Outcome(
            state,
            course.value(state),
            time.perf_counter() - wall,
            time.process_time() - cpu,
            tuple(course.fold_values),
            tuple(course.reports),
            course.share,
            reason,
            costs,
            constraints_of(costs, self.limits),
        )

    def _judge(
        self, setting: Setting, watch: Watch, course: _Course
    ) -> Literal["complete", "pruned"]:
        contender = self.contenders[setting.candidate]
        folds = self._folds(contender)
        model = self._construct(contender, setting)
        # XGBoost takes no more threads than OpenMP has been set to, whatever its n_jobs says, and
        # Ray sets that by the first task of a worker; other estimators take all that OpenMP gives.
        with _controller(contender.estimator).limit(limits=self.threads):
            if not boosts_in_rounds(model):
                return self._fold_by_fold(setting, folds, watch, course)
            if self.rule is None or not watch.wanted:
                return self._boost_by_fold(model, contender, folds, course)
            return self._side_by_side(model, contender, folds, watch, course, self.rule)

    def _folds(self, contender: Contender) -> Sequence[Fold]:
        if isinstance(contender.folds, (list, tuple)):
            return contender.folds
        import ray

        found: Sequence[Fold] = _FOLDS.get(
            self.study, contender.kind, 0, lambda: ray.get(contender.folds)
        )
        return found

    def _construct(self, contender: Contender, setting: Setting) -> Any:
        params = contender.params | setting.params
        return construct(contender.estimator, params, seed=self.seed, threads=self.threads)

    def _fold_by_fold(
        self, setting: Setting, folds: Sequence[Fold], watch: Watch, course: _Course
    ) -> Literal["complete", "pruned"]:
        contender = self.contenders[setting.candidate]
        course.resume("folds")
        course.share = len(course.fold_values) / len(folds)
        for number, fold in enumerate(folds, start=1):
            if number <= len(course.fold_values):
                continue
            started = time.perf_counter()
            model = self._construct(contender, setting)
            weighted = {} if fold.fit_weight is None else {"sample_weight": fold.fit_weight}
            model.fit(_fittable(fold.fit_x), fold.fit_y, **weighted)
            if self.threads > 1 and "n_jobs" in model.get_params():
                # The threads of a forest add up its trees in the order in which they come.
                model.set_params(n_jobs=1)
            answer = model.predict if self.classes is None else model.predict_proba
            course.fold_values.append(self._measure(fold, answer(fold.judge_x), number))
            if self.costs:
                course.costs.append(costs_of(self.costs, model, answer, fold.judge_x[:1]))
            course.share = number / len(folds)
            if watch.wanted:
                course.report(Report("folds", number, *course.so_far()))
            wait_s = min(_WAIT_SHARE * (time.perf_counter() - started), _LONGEST_WAIT_S)
            course.keep()
            if number < len(folds) and watch.ended(wait_s):
                return "pruned"
        return "complete"

    def _boost_by_fold(
        self, model: Any, contender: Contender, folds: Sequence[Fold], course: _Course
    ) -> Literal["complete"]:
        """Nobody listens: one fold after the other takes less memory."""
        n_rounds = model.get_num_boosting_rounds()
        boosters = course.resume("folds in rounds")
        course.share = len(course.fold_values) / len(folds)
        for number, fold in enumerate(folds, start=1):
            if number <= len(course.fold_values):
                continue
            boosting = self._boosting(model, contender, fold, number, next(boosters, None))
            for n_done in range(boosting.n_rounds + 1, n_rounds + 1):
                boosting.advance(n_done)
                course.keep(boosting)
            self._finish(fold, boosting, number, course)
            course.share = number / len(folds)
        return "complete"

    def _side_by_side(
        self,
        model: Any,
        contender: Contender,
        folds: Sequence[Fold],
        watch: Watch,
        course: _Course,
        rule: Pruner,
    ) -> Literal["complete", "pruned"]:
        """Each fold gets the same number of rounds before a report, so that none decides alone."""
        n_rounds = model.get_num_boosting_rounds()
        steps = set(report_rounds(rule, n_rounds))
        boosters = course.resume("side by side")
        every = [
            self._boosting(model, contender, fold, number, next(boosters, None))
            for number, fold in enumerate(folds, start=1)
        ]
        course.share = every[0].n_rounds / n_rounds
        for n_done in range(every[0].n_rounds + 1, n_rounds + 1):
            for boosting in every:
                boosting.advance(n_done)
            course.share = n_done / n_rounds
            if n_done in steps:
                values = tuple(
                    self._measure(fold, boosting.answer(), number)
                    for number, (fold, boosting) in enumerate(zip(folds, every, strict=True), 1)
                )
                course.report(Report("rounds", n_done, _mean(values), values))
            course.keep(*every)
            if n_done < n_rounds and watch.ended():
                return "pruned"
        for number, (fold, boosting) in enumerate(zip(folds, every, strict=True), 1):
            self._finish(fold, boosting, number, course)
        return "complete"

    def _finish(self, fold: Fold, boosting: Boosting, number: int, course: _Course) -> None:
        course.fold_values.append(self._measure(fold, boosting.answer(), number))
        if self.costs:
            course.costs.append(boosting.costs(self.costs, fold.judge_x[:1]))

    def _boosting(
        self, model: Any, contender: Contender, fold: Fold, number: int, before: str | None
    ) -> Boosting:
        data = binned(fold, model, study=self.study, key=(contender.kind, number))
        n_classes = None if self.classes is None else len(self.classes)
        return Boosting(model, data, n_classes if fold.places is None else len(fold.places), before)

    def _measure(self, fold: Fold, answer: np.ndarray, number: int) -> float:
        if self.classes is not None:
            answer = spread(answer, fold.places, len(self.classes))
        value = measure(self.metric, fold.judge_y, answer, self.classes, every=False)
        if not math.isfinite(value):
            message = f"{self.metric} is {value} on fold {number}"
            raise _NotFiniteError(message)
        return float(value)


class _NotFiniteError(Exception):
    """The message is the reason why the trial failed."""


@dataclass
class _Course:
    """How far a trial has come."""

    watch: Watch
    checkpoint: Checkpoint
    way: str = ""
    """How it goes through the folds."""
    fold_values: list[float] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    costs: list[dict[Cost, float]] = field(default_factory=list)
    """On each fold, where that is asked for."""
    share: float = 0.0

    def report(self, report: Report) -> None:
        self.reports.append(report)
        self.watch.report(report)

    def resume(self, way: str) -> Iterator[str]:
        """Go on from where an earlier run of the trial was cut off.

        Returns:
            The trees that it had, as text.
        """
        before = self.checkpoint.read(way)
        self.way = way
        self.fold_values[:], self.costs[:] = before.fold_values, before.costs
        for report in before.reports:
            self.report(report)
        return iter(before.boosters)

    def keep(self, *boosting: Boosting) -> None:
        """Write how far it is, where it is time to."""
        if self.checkpoint.is_due:
            done = tuple(self.fold_values), tuple(self.costs), tuple(self.reports)
            self.checkpoint.write(
                lambda: Progress(self.way, *done, tuple(one.text() for one in boosting))
            )

    def so_far(self) -> tuple[float, tuple[float, ...]]:
        values = tuple(self.fold_values)
        return _mean(values), values

    def value(self, state: str) -> float | None:
        if state == "complete":
            return _mean(tuple(self.fold_values))
        return self.reports[-1].value if state == "pruned" else None


@cache
def _load_sklearn() -> None:
    """Import scikit-learn without pandas, which no trial asks for: 67 MB in each worker.

    It imports pandas in one place, to know whether there is any; where it needs it, it imports it
    again.
    """
    if "pandas" in sys.modules or "sklearn" in sys.modules:
        return
    sys.modules["pandas"] = None  # type: ignore[assignment]  # not to be imported
    try:
        importlib.import_module("sklearn.utils.fixes")
    finally:
        del sys.modules["pandas"]


def _fittable(rows: np.ndarray) -> np.ndarray:
    """Rows that scikit-learn's estimators can be fitted on, where values are missing.

    Its forests look for missing values in a way that does not take rows which nobody may write to,
    as those in the object store; HistGradientBoosting takes no column that has no value at all, and
    gets a constant there, from which nothing is learnt either.
    """
    if not np.isnan(np.min(rows)):
        return rows
    rows = rows.copy()
    rows[:, np.isnan(rows).all(axis=0)] = 0.0
    return rows


def _mean(values: tuple[float, ...]) -> float:
    return math.fsum(values) / len(values)


@cache
def _controller(estimator: str) -> Any:
    """Find the thread pools in this process; made once the estimator is imported."""
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()
