"""The search that a declaration asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.declaration import METRICS
from holdtrue.errors import SearchStoppedError, TrainingError
from holdtrue.models import (
    FEWEST_TO_FIT,
    HalfLife,
    ages_of,
    constant_params,
    construct,
    digest_of,
    encoding,
    sample_weights,
    typed,
    untaught,
)
from holdtrue.progress import search_words
from holdtrue.references import Study
from holdtrue.tuning._checkpoint import checkpoints, remove_checkpoints
from holdtrue.tuning._choice import choose_trial
from holdtrue.tuning._drive import Driven, drive
from holdtrue.tuning._earlier import read_own
from holdtrue.tuning._failures import reasons_of
from holdtrue.tuning._folds import FEWER_FOLDS, cut, encode_folds
from holdtrue.tuning._space import Space
from holdtrue.tuning._trial import Contender, FoldsObjective
from holdtrue.tuning._types import Search
from holdtrue.tuning._warm import choose, recall

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from holdtrue.declaration import Declaration
    from holdtrue.models import Signature
    from holdtrue.progress import Progress
    from holdtrue.references import Trial
    from holdtrue.tuning._folds import Parts
    from holdtrue.tuning._types import Live

# With more than two classes these are means over classes, each against the rest.
_MEANS = {"roc_auc", "average_precision"}
_LATER_ROWS = (
    "use fewer tune.folds or a larger tune.sample; in order of time, a data.window that begins "
    "nearer to the first rows of another class"
)


def tune(
    declaration: Declaration,
    rows: pd.DataFrame,
    target: np.ndarray,
    signature: Signature,
    *,
    log: Path,
    place: str,
    name: str,
    earlier: Sequence[Sequence[Trial]] = (),
    champion: tuple[str, Mapping[str, Any]] | None = None,
    progress: Progress,
) -> Study:
    """Search the declared spaces, or go on with a search that was left. Ray must be connected.

    Args:
        declaration: With candidates and ``tune``.
        rows: shape (n_rows, any): the training rows that trials see, in order of time where there
            is a time column.
        target: shape (n_rows,): class index or value.
        signature: The feature columns.
        log: File of the search.
        place: The same, relative to the store.
        name: Of the study in it.
        earlier: Trials of each earlier study, newest first.
        champion: Import path and arguments of the live model; tried first.
        progress: Shows how far it is.

    Raises:
        TrainingError: No trial succeeded (gives the commonest reason), there are too few rows for
            the folds, or a fold has rows of one class only.
        StackError: Another process has the log.
        SearchStoppedError: Ctrl-C; the log has what was finished, and the next call goes on.
    """
    plan = declaration.tune
    direction = METRICS[plan.metric][0]
    space = Space(declaration.model.candidates)
    search = Search(
        metric=plan.metric,
        direction=direction,
        trials=plan.trials,
        timeout_s=plan.timeout.total_seconds(),
        stop=plan.stop,
        sampler=plan.sampler,
        pruner=plan.pruner,
        seed=_seed(declaration.seed, name),
        deterministic=plan.deterministic,
        parallel=plan.parallel,
        cpus=plan.cpus,
        gpus=plan.gpus,
        limits=plan.limits.given,
        past=recall(earlier, space, direction=direction),
    )
    first, notes = choose(earlier, champion, space, plan.trials, direction=direction)
    parts = _parts(declaration, target, signature.classes)
    notes += _unlearnt(parts, target, signature.classes)
    notes += _unjudged(parts, target, signature.classes, plan.metric)
    objective = _objective(declaration, space, rows, target, signature, parts, name)
    if not plan.deterministic:  # trees that go on from a file differ in the last digits
        objective = replace(objective, checkpoints=str(checkpoints(log)))

    def show(live: Live) -> None:
        progress(live.done, live.wanted, search_words(live, plan.metric))

    driven = drive(
        objective,
        space,
        search,
        log=log,
        study_name=name,
        first=first,
        progress=show,
        about={"rows": len(rows)},
    )
    if not driven.interrupted:
        remove_checkpoints(log)
    study = _study(declaration, driven, tuple(notes), place, len(rows))
    if driven.interrupted:
        raise SearchStoppedError(study)
    return study


def read_study(declaration: Declaration, log: Path, place: str) -> Study | None:
    """What a search that is not finished has found: it is running, or was left.

    Args:
        declaration: What it is by.
        log: File of the search.
        place: The same, relative to the store.

    Returns:
        None where no trial is complete.

    Raises:
        DataError: The log cannot be read.
    """
    about, trials = read_own(log, Space(declaration.model.candidates))
    if not any(trial.state == "complete" for trial in trials):
        return None
    driven = Driven(
        trials=tuple(trials),
        seconds=float(about.get("seconds", 0.0)),
        workers=int(about.get("workers", 1)),
        stopped=about.get("stopped") or "not at all yet: it is running, or its process was killed",
    )
    return _study(declaration, driven, (), place, int(about.get("rows", 0)))


def _seed(seed: int, name: str) -> int:
    """Another seed for each study: a retraining would draw the settings again that it knows."""
    return int(digest_of(f"{seed} {name}".encode())[:8], 16)


def _parts(declaration: Declaration, target: np.ndarray, classes: Sequence[str] | None) -> Parts:
    parts = list(
        cut(
            target,
            declaration.tune.folds,
            ordered=declaration.data.time is not None,
            classification=declaration.task == "classification",
            seed=declaration.seed,
        )
    )
    _check_folds(parts, target, classes, declaration.tune.metric)
    return parts


def _objective(
    declaration: Declaration,
    space: Space,
    rows: pd.DataFrame,
    target: np.ndarray,
    signature: Signature,
    parts: Parts,
    name: str,
) -> FoldsObjective:
    """Encode the folds once for each kind of encoding and put them into the object store once."""
    import ray

    frame = typed(rows, signature)
    weight = None
    if signature.classes is not None:
        weight = sample_weights(target, signature.classes, declaration.model.class_weight)
    weights = weight, ages_of(rows, HalfLife.of(declaration.data))
    by_kind: dict[str, Any] = {}
    contenders = {}
    for label, candidate in zip(space.labels, declaration.model.candidates, strict=True):
        params = constant_params(candidate, declaration.model, target)
        kind = encoding(construct(candidate.estimator, params, seed=0, threads=1))
        if kind not in by_kind:
            folds = encode_folds(frame, target, parts, kind, signature, declaration.seed, *weights)
            by_kind[kind] = ray.put(folds)
        contenders[label] = Contender(candidate.estimator, params, kind, by_kind[kind])
    return FoldsObjective(
        contenders=contenders,
        metric=declaration.tune.metric,
        classes=signature.classes,
        seed=declaration.seed,
        threads=declaration.tune.cpus,
        rule=declaration.tune.pruner,
        costs=declaration.tune.costs,
        limits=declaration.tune.limits.given,
        study=name,
    )


def _check_folds(
    parts: Parts, target: np.ndarray, classes: Sequence[str] | None, metric: str
) -> None:
    """Refuse folds on which every trial would fail."""
    for number, (fit, judge) in enumerate(parts, start=1):
        what, hint = _unfit(target[fit], target[judge], classes, metric)
        if what:
            message = f"fold {number} of {len(parts)} {what}"
            raise TrainingError(message, hint=hint)


def _unfit(
    fit: np.ndarray, judge: np.ndarray, classes: Sequence[str] | None, metric: str
) -> tuple[str, str]:
    """Why no trial could succeed on a fold with these targets, and what helps; else nothing."""
    if classes is None:
        if metric == "r2" and np.ptp(judge) == 0:
            what = "is judged on rows with a single target, and r2 needs different ones"
            return what, FEWER_FOLDS
        return "", ""
    few, absent = untaught(fit, classes), _without_rows(judge, classes)
    known = [name for name in classes if name not in few]
    if len(known) < 2:
        only = f"rows of class {known[0]} only" if known else "too few rows of any class"
        return f"is fitted on {only}", _LATER_ROWS
    judged = [name for name in classes if name not in absent]
    if len(judged) < 2:
        return f"is judged on rows of class {judged[0]} only", FEWER_FOLDS
    return "", ""


def _without_rows(target: np.ndarray, classes: Sequence[str]) -> list[str]:
    counts = np.bincount(target, minlength=len(classes))
    return [name for name, count in zip(classes, counts, strict=True) if count == 0]


def _unlearnt(parts: Parts, target: np.ndarray, classes: Sequence[str] | None) -> list[str]:
    """Of which classes a fold could learn nothing, in words."""
    if classes is None:
        return []
    each = [untaught(target[fit], classes) for fit, _ in parts]
    notes = []
    for name in classes:
        lacking = [number for number, few in enumerate(each, start=1) if name in few]
        if lacking:
            some = any(each[number - 1][name] for number in lacking)
            few = f"fewer than {FEWEST_TO_FIT} rows" if some else "no rows"
            said = f"{_folds(lacking, len(parts))} {few} of class {name}"
            notes.append(f"{said}, so that no setting could be right about them there")
    return notes


def _unjudged(
    parts: Parts, target: np.ndarray, classes: Sequence[str] | None, metric: str
) -> list[str]:
    """Over which classes a metric that is a mean over them is not taken, in words."""
    if classes is None or metric not in _MEANS:
        return []
    each = [_without_rows(target[judge], classes) for _, judge in parts]
    notes = []
    for name in classes:
        lacking = [number for number, absent in enumerate(each, start=1) if name in absent]
        if lacking:
            said = f"{_folds(lacking, len(parts))} no rows of class {name} to be judged on"
            notes.append(f"{said}: {metric} is the mean over the others there")
    return notes


def _folds(numbers: Sequence[int], n_folds: int) -> str:
    if len(numbers) == 1:
        return f"fold {numbers[0]} of {n_folds} has"
    return f"folds {', '.join(map(str, numbers[:-1]))} and {numbers[-1]} of {n_folds} have"


def _study(
    declaration: Declaration, driven: Driven, notes: tuple[str, ...], place: str, rows: int
) -> Study:
    plan, direction = declaration.tune, METRICS[declaration.tune.metric][0]
    complete = [trial for trial in driven.trials if trial.state == "complete"]
    if not complete:
        why = f"the search ended by this: {driven.stopped}"
        if reasons := reasons_of(driven.trials):
            reason, count = reasons[0]
            why = f"the commonest reason ({count} time{'s' if count > 1 else ''}): {reason}"
        message = f"none of {len(driven.trials)} trials succeeded; {why}"
        raise TrainingError(message, hint="look at model.candidates: params and space")
    best, choice = choose_trial(plan, complete)
    return Study(
        metric=plan.metric,
        direction=direction,
        trials=driven.trials,
        best=best.number,
        choice=choice,
        folds=plan.folds,
        sample_rows=rows,
        seconds=driven.seconds,
        workers=driven.workers,
        log=place,
        stopped=driven.stopped,
        sampler=plan.sampler,
        pruner=plan.pruner.rule if plan.pruner else None,
        seed=declaration.seed,
        deterministic=plan.deterministic,
        notes=(*notes, *driven.notes),
    )
