"""The steps from training rows to a fitted model."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pandas as pd

from holdtrue.errors import TrainingError
from holdtrue.models import (
    HalfLife,
    Signature,
    ages_of,
    check_classes,
    check_new,
    constant_params,
    effective_rows,
    read_setting,
    target_of,
)
from holdtrue.models._fit_on_ray import fit_on_ray
from holdtrue.models._fit_plan import columns_of, plan_fit, rows_within
from holdtrue.models._manifest import read_compilation
from holdtrue.models._rows import count_rows, read_sample
from holdtrue.plan._data_steps import _dump
from holdtrue.plan._digest import digest
from holdtrue.plan._step import Step, Work
from holdtrue.references import (
    DataCheck,
    ModelRef,
    Snapshot,
    Split,
    Study,
)
from holdtrue.stack._resources import alive_nodes
from holdtrue.tuning import labels, tune
from holdtrue.tuning._earlier import read_studies

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from holdtrue.declaration import Declaration
    from holdtrue.plan._context import Context
    from holdtrue.plan._step import Inputs
    from holdtrue.references import Trial
    from holdtrue.stack._resources import Node

# Limits of a search: where they change, it goes on.
_LIMITS = {"trials", "timeout", "stop"}
# As many as the smallest table has that the contract lets through: two classes of ten rows.
_FEWEST_ROWS = 20
# Earlier studies that a search learns from, the latest.
_STUDIES = 5


def signature_of(
    declaration: Declaration, snapshot: Snapshot, check: DataCheck, split: Split | None
) -> Signature:
    """What a model of these data takes and gives; it knows the classes that it is taught.

    Args:
        declaration: With target and task.
        snapshot: Has the kinds of the columns.
        check: Has features and classes. The contract lets no class pass of which there are too few
            rows to learn it.
        split: Says which classes have too few training rows; None: all rows are trained on.
    """
    classes = check.classes
    if classes is not None and split is not None:
        classes = tuple(name for name in classes if name not in split.untaught)
    names = (*check.numeric, *check.categorical, *check.temporal, *check.inputs)
    return Signature(
        target=declaration.data.target,
        task=declaration.task,
        classes=classes,
        columns={name: snapshot.columns[name] for name in names},
        categorical=check.categorical,
        derived=check.derived,
        inputs=tuple(check.inputs),
    )


def taught_signature(work: Work, split: Split | None) -> Signature:
    """What a model of this run takes and gives: of the training rows, or of all for None."""
    snapshot, check = work.get("extract", Snapshot), work.get("check", DataCheck)
    return signature_of(work.context.declaration, snapshot, check, split)


def check_refit(work: Work) -> Signature:
    """Refuse what could not be fitted on all rows, as `check_fit` does.

    Returns:
        What a model of all rows takes and gives.
    """
    signature, check = taught_signature(work, None), work.get("check", DataCheck)
    check_fit(work.context.declaration, check, signature, check.kept_rows)
    return signature


def check_fit(declaration: Declaration, check: DataCheck, signature: Signature, rows: int) -> None:
    """Refuse what a fit could not be made of, before a search.

    Args:
        declaration: With candidates, weights and costs of classes, and the limit of the memory.
        check: Has all classes of the data, and which of them are new.
        signature: The columns, and the classes that are taught.
        rows: How many are fitted on.

    Raises:
        ConfigError: As `check_new` and `check_classes`.
        TrainingError: As `check_memory`.
    """
    classes = signature.classes or ()
    learnt = {name: found for name, found in check.new_classes.items() if name in classes}
    check_new(declaration.model, learnt, signature.target)
    check_classes(declaration.model, classes, {*(check.classes or ())} - {*classes})
    check_memory(declaration, rows, signature, alive_nodes())


def check_memory(
    declaration: Declaration, rows: int, signature: Signature, nodes: Sequence[Node]
) -> None:
    """Refuse before a search a candidate that could not be fitted after it, within ``ray.memory``.

    Args:
        declaration: With candidates and the limit.
        rows: Training rows.
        signature: The columns.
        nodes: The cluster.

    Raises:
        TrainingError: As `plan_fit`; names the candidate.
    """
    limit = declaration.ray.memory
    if limit is None:
        return
    candidates = declaration.model.candidates
    for label, candidate in zip(labels(candidates), candidates, strict=True):
        try:
            plan_fit(
                rows,
                signature,
                estimator=candidate.estimator,
                params=constant_params(candidate, declaration.model),
                limit_bytes=limit,
                nodes=nodes,
            )
        except TrainingError as err:
            err.mistakes = [
                one._replace(
                    text=f"{one.text}; candidate {label} could not be fitted after the search"
                )
                for one in err.mistakes
            ]
            raise


def check_ages(ages: np.ndarray | None) -> None:
    """Refuse a half life that leaves next to nothing to learn from, such as ``6m`` for months.

    Args:
        ages: shape (n_rows,), of the training rows in half lives; None: age does not count.

    Raises:
        TrainingError: They count as fewer than 20 rows that count alike.
    """
    if ages is None:
        return
    effective = effective_rows(ages)
    if effective < _FEWEST_ROWS:
        message = f"{len(ages):,} training rows count as {effective:.0f}"
        hint = "declare a longer one; 30d are days, 30m are minutes"
        raise TrainingError(message, hint=hint, key=("data", "half_life"))


def _tune(work: Work) -> Study:
    context = work.context
    declaration, split = context.declaration, work.get("split", Split)
    signature = taught_signature(work, split)
    check_fit(declaration, work.get("check", DataCheck), signature, split.train_rows)
    if declaration.evaluate.refit:  # what it would refuse, before the search
        check_refit(work)
    limit = declaration.ray.memory
    wanted = max(2, round(declaration.tune.sample * split.train_rows))
    most = wanted if limit is None else min(wanted, rows_within(columns_of(signature), limit))
    path = context.store.path(split.train)
    rows = read_sample(path, most, declaration.seed)
    check_ages(ages_of(rows, HalfLife.of(declaration.data)))
    key, log = _study_of(context, work.components)
    earlier, notes = _earlier(context, log)
    study = tune(
        declaration,
        rows,
        target_of(rows, signature),
        signature,
        log=log,
        place=context.store.relative(log),
        name=f"{context.system}-{key[:12]}",
        earlier=earlier,
        champion=_live_setting(context),
        progress=work.progress,
    )
    if most < wanted:
        notes.append(f"trials saw {most:,} of {wanted:,} rows: as many as fit into ray.memory")
    return study.model_copy(update={"notes": (*study.notes, *notes)})


def _study_of(context: Context, components: Mapping[str, Any]) -> tuple[str, Path]:
    """Key and log of a search's study: the same where only its limits have changed."""
    declared = dict(components["declared"])
    declared["tune"] = {k: v for k, v in declared["tune"].items() if k not in _LIMITS}
    key = digest({**components, "declared": declared})
    return key, context.store.path("studies", context.system, f"{key}.log")


def next_study(context: Context) -> Path | None:
    """The log with which a search would go on, or which it would begin.

    None where steps before it have to be done first: it would then begin one.
    """
    from holdtrue.plan._plan import NotDoneError, Runner

    try:
        components = Runner(context)._components("tune")
    except NotDoneError:
        return None
    return _study_of(context, components)[1]


def _earlier(context: Context, log: Path) -> tuple[list[list[Trial]], list[str]]:
    """Finished trials of this system's latest studies by the same metric, and what was no log."""
    declaration = context.declaration
    if not declaration.tune.warm_start:
        return [], []
    folder = log.parent
    logs = [path for path in folder.glob("*.log") if path != log]
    newest = sorted(logs, key=lambda path: path.stat().st_mtime, reverse=True)[:_STUDIES]
    return read_studies(newest, declaration.tune.metric)


def _live_setting(context: Context) -> tuple[str, dict[str, Any]] | None:
    """Estimator and arguments of the champion."""
    champion = context.registry.champion(context.system)
    if champion is None or not context.declaration.tune.warm_start:
        return None
    version = champion.version
    return read_setting(context.store.path(version.bundle), version.digest)


def _fit(work: Work) -> ModelRef:
    split = work.get("split", Split)
    return fit_best(work, work.context.store.path(split.train), taught_signature(work, split))


def fit_best(work: Work, rows: Path, signature: Signature, name: str = "") -> ModelRef:
    """Fit the setting that the search has chosen, on Ray, and write its bundle.

    Args:
        work: Of a step that takes the results of `tune`; its digest names the bundle's folder.
        rows: Parquet file with the rows, in order of time where they have one.
        signature: The columns, and the classes that these rows are of.
        name: Added to the name of that folder, where a step fits several.

    Raises:
        TrainingError: As `fit_on_ray`.
    """
    context = work.context
    declaration, store = context.declaration, context.store
    best = work.get("tune", Study).best_trial
    every = labels(declaration.model.candidates)
    candidate = declaration.model.candidates[every.index(best.candidate)]
    target = None
    if declaration.model.loss is not None:
        column = pd.read_parquet(rows, columns=[signature.target])
        target = target_of(column, signature)
    params = constant_params(candidate, declaration.model, target) | best.params
    work.progress(0, 0, f"fitting {candidate.estimator} on {count_rows(rows):,} rows")
    folder = store.path("bundles", context.system, f"{work.digest}{name}")
    half_life = HalfLife.of(declaration.data)
    started = time.monotonic()
    fitted = fit_on_ray(
        rows,
        folder,
        signature,
        candidate.estimator,
        params,
        seed=declaration.seed,
        model=declaration.model,
        folds=declaration.tune.folds,
        ordered=declaration.data.time is not None,
        cpus=declaration.tune.cpus,
        gpus=declaration.tune.gpus,
        deterministic=declaration.tune.deterministic,
        limit_bytes=declaration.ray.memory,
        half_life=half_life,
        say=lambda words: work.progress(0, 0, words),
    )
    ages = ages_of(rows, half_life)
    return ModelRef(
        bundle=store.relative(folder),
        digest=fitted.digest,
        estimator=candidate.estimator,
        params=params,
        rows=fitted.rows,
        # A random sample of the rows is as old as all of them are.
        effective_rows=None if ages is None else effective_rows(ages) * fitted.rows / len(ages),
        shards=fitted.shards,
        seconds=time.monotonic() - started,
        compilation=read_compilation(folder, fitted.digest),
    )


def _libraries(context: Context, inputs: Inputs) -> dict[str, Any]:
    """Versions of the estimators' libraries, or the source of those that the project defines."""
    import inspect
    from importlib import metadata
    from pathlib import Path

    from holdtrue.data import import_from
    from holdtrue.models import digest_of

    del inputs
    seen: dict[str, str] = {}
    for number, candidate in enumerate(context.declaration.model.candidates):
        package = candidate.estimator.partition(".")[0]
        name = {"sklearn": "scikit-learn"}.get(package, package)
        try:
            seen[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            estimator = import_from(
                context.project,
                candidate.estimator,
                "estimator",
                ("model", "candidates", number, "estimator"),
            )
            file = inspect.getsourcefile(estimator)
            seen[candidate.estimator] = digest_of(Path(file).read_bytes()) if file else ""
    return seen


def _rows_read(declaration: Declaration) -> set[str]:
    """What `data` says to a fit; a half life that is not declared changes no digest."""
    aged = {"half_life"} if declaration.data.half_life is not None else set()
    return {"target", "time"} | aged


def _reads_search(declaration: Declaration) -> dict[str, Any]:
    parts = _dump(
        declaration,
        name=True,  # the studies of a system are its own
        task=True,
        data=_rows_read(declaration),
        model={"candidates", "class_weight", "loss"},
        tune=True,
        ray={"memory"},
        seed=True,
    )
    del parts["tune"]["parallel"]  # how many at a time changes nothing but the time it takes
    return parts


def reads_fit(declaration: Declaration) -> dict[str, Any]:
    """The part of the declaration that a fit depends on, beside the setting that was found."""
    return _dump(
        declaration,
        task=True,
        data=_rows_read(declaration),
        model=True,
        tune={"folds", "cpus", "gpus", "deterministic"},
        ray={"memory"},
        seed=True,
    )


MODEL_STEPS = (
    Step(
        name="tune",
        says="search the best setting",
        output=Study,
        run=_tune,
        reads=_reads_search,
        rooms=("tuning", "models", "expressions", "times.py", "evaluation/_metrics.py"),
        inputs=("extract", "check", "split"),
        outside=_libraries,
        uses_ray=True,
    ),
    Step(
        name="fit",
        says="fit it on all training rows",
        output=ModelRef,
        run=_fit,
        reads=reads_fit,
        rooms=("models", "expressions", "times.py", "tuning/_folds.py"),
        inputs=("extract", "check", "split", "tune"),
        paths=lambda r: (r.bundle,) if isinstance(r, ModelRef) else (),
        uses_ray=True,
    ),
)
