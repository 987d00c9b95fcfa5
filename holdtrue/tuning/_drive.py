"""The driver: one Optuna study in memory, asked and told; trials are plain Ray tasks."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from holdtrue.declaration import METRICS
from holdtrue.errors import TrainingError
from holdtrue.models import construct, encoding, typed
from holdtrue.references import Study, Trial
from holdtrue.tuning._folds import cut, encode_folds, sample_rows
from holdtrue.tuning._space import fixed, labels, middle, suggest
from holdtrue.tuning._trial import Outcome, run_trial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import optuna
    import pandas as pd

    from holdtrue.declaration import Declaration
    from holdtrue.models import Signature

# Settings of earlier studies that are tried first.
_WARM_SETTINGS = 3
# A dead worker's trial is run again this often, by Ray.
_RETRIES = 2


@dataclass(frozen=True)
class _Running:
    trial: optuna.Trial
    index: int
    params: dict[str, Any]
    warm: bool


def tune(
    declaration: Declaration,
    train: pd.DataFrame,
    target: np.ndarray,
    signature: Signature,
    *,
    earlier: Sequence[Trial] = (),
    progress: Callable[[int, int, str], None],
) -> Study:
    """Search the declared spaces. Ray must be connected.

    Args:
        declaration: With candidates and ``tune``.
        train: shape (n_rows, any): training rows, in order of time where there is a time column.
        target: shape (n_rows,): class index or value.
        signature: The feature columns.
        earlier: Good trials of earlier studies, best first; tried first where still in the space.
        progress: Called with trials done, trials wanted and a few words.

    Raises:
        TrainingError: No trial succeeded; gives the commonest reason.
    """
    import optuna
    import ray

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    started = time.monotonic()
    plan, candidates = declaration.tune, declaration.model.candidates
    direction = METRICS[plan.metric][0]
    rows = sample_rows(len(train), plan.sample, declaration.seed)
    shared = _share_folds(declaration, train.iloc[rows], target[rows], signature)
    workers = max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
    study = optuna.create_study(
        direction="maximize" if direction == "higher" else "minimize",
        sampler=_sampler(declaration.seed),
    )
    warm = _enqueue(study, declaration, earlier)
    remote = ray.remote(run_trial).options(num_cpus=1, max_retries=_RETRIES)
    deadline = started + plan.timeout.total_seconds()
    running: dict[Any, _Running] = {}
    trials: list[Trial] = []
    asked = 0
    progress(0, plan.trials, "first trials")
    try:
        while True:
            # One more than there are workers, so that none waits for the driver.
            while asked < plan.trials and len(running) <= workers and time.monotonic() < deadline:
                trial = study.ask()
                index, params = suggest(trial, candidates)
                candidate = candidates[index]
                future = remote.remote(
                    shared[index],
                    candidate.estimator,
                    candidate.params | params,
                    plan.metric,
                    signature.classes,
                    declaration.seed,
                )
                running[future] = _Running(trial, index, params, asked < warm)
                asked += 1
            if not running:
                break
            done, _ = ray.wait(list(running), num_returns=1)
            trials += [_tell(study, declaration, running.pop(future), future) for future in done]
            progress(len(trials), plan.trials, _best_words(study, plan.metric))
    finally:
        for future in running:  # Ctrl-C or an error: nothing keeps computing
            ray.cancel(future, force=True)
    return _study(declaration, trials, direction, len(rows), time.monotonic() - started, workers)


def _sampler(seed: int) -> optuna.samplers.TPESampler:
    import optuna

    with warnings.catch_warnings():
        # `group` models each candidate's parameters together; Optuna still calls it experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=True
        )


def _share_folds(
    declaration: Declaration, sample: pd.DataFrame, target: np.ndarray, signature: Signature
) -> list[Any]:
    """Encode the folds once for each kind of encoding and put them into the object store once.

    Returns:
        By candidate: a reference to its folds.
    """
    import ray

    frame = typed(sample, signature)
    parts = list(
        cut(
            target,
            declaration.tune.folds,
            ordered=declaration.data.time is not None,
            classification=declaration.task == "classification",
            seed=declaration.seed,
        )
    )
    if declaration.task == "classification":
        for number, (fit, judge) in enumerate(parts, start=1):
            wanted = len(signature.classes or ())
            if len(np.unique(target[fit])) < wanted or len(np.unique(target[judge])) < 2:
                message = f"fold {number} of {len(parts)} lacks a class: too few rows of it"
                raise TrainingError(
                    message,
                    hint="use fewer tune.folds, a larger tune.sample or a longer data.window",
                )
    by_kind: dict[str, Any] = {}
    shared = []
    for candidate in declaration.model.candidates:
        kind = encoding(construct(candidate.estimator, candidate.params, seed=0, threads=1))
        if kind not in by_kind:
            by_kind[kind] = ray.put(
                encode_folds(frame, target, parts, kind, signature, declaration.seed)
            )
        shared.append(by_kind[kind])
    return shared


def _enqueue(study: optuna.Study, declaration: Declaration, earlier: Sequence[Trial]) -> int:
    """Queue the settings to begin with; returns how many of them come from earlier studies."""
    candidates = declaration.model.candidates
    known = (fixed(candidates, trial.candidate, trial.params) for trial in earlier)
    warm = [setting for setting in known if setting is not None][:_WARM_SETTINGS]
    first = [
        fixed(candidates, name, middle(candidate))
        for name, candidate in zip(labels(candidates), candidates, strict=True)
    ]
    queue = warm + [setting for setting in first if setting is not None]
    for setting in queue:
        study.enqueue_trial(setting, skip_if_exists=True)
    return len(warm)


def _tell(study: optuna.Study, declaration: Declaration, running: _Running, future: Any) -> Trial:
    import optuna
    import ray

    try:
        outcome: Outcome = ray.get(future)
    except ray.exceptions.RayError as err:
        reason = f"its worker died {_RETRIES + 1} times: {str(err).splitlines()[0]}"[:500]
        outcome = Outcome((), 0.0, reason)
    failed = outcome.reason is not None
    value = None if failed else float(np.mean(outcome.values))
    state = optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE
    study.tell(running.trial, value, state=state)
    status: Literal["complete", "failed"] = "failed" if failed else "complete"
    return Trial(
        number=running.trial.number,
        candidate=labels(declaration.model.candidates)[running.index],
        params=running.params,
        state=status,
        value=value,
        fold_values=outcome.values,
        seconds=outcome.seconds,
        reason=outcome.reason,
        warm=running.warm,
    )


def _best_words(study: optuna.Study, metric: str) -> str:
    try:
        return f"best {metric} {study.best_value:.4f}"
    except ValueError:
        return "none finished yet"


def _study(
    declaration: Declaration,
    trials: list[Trial],
    direction: str,
    rows: int,
    seconds: float,
    workers: int,
) -> Study:
    complete = [trial for trial in trials if trial.value is not None]
    if not complete:
        reasons = Counter(trial.reason for trial in trials)
        why, count = (
            reasons.most_common(1)[0]
            if reasons
            else ("no trial was started before tune.timeout", 0)
        )
        message = (
            f"none of {len(trials)} trials succeeded; the commonest reason ({count} times): {why}"
        )
        raise TrainingError(message, hint="look at model.candidates: params and space")
    sign = -1.0 if direction == "higher" else 1.0
    best = min(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number))
    return Study(
        metric=declaration.tune.metric,
        direction="higher" if direction == "higher" else "lower",
        trials=tuple(sorted(trials, key=lambda trial: trial.number)),
        best=best.number,
        folds=declaration.tune.folds,
        sample_rows=rows,
        seconds=seconds,
        workers=workers,
    )
