"""Fit on rows that do not fit into one process: in parts, or on a sample."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.errors import HoldtrueError, TrainingError
from holdtrue.models._bundle import SAMPLE_ROWS
from holdtrue.models._classes import class_weights
from holdtrue.models._estimator import construct, encoding, limited
from holdtrue.models._fit import (
    PROOF_ROWS,
    fit_bundle,
    write_fitted,
)
from holdtrue.models._frame import target_of, typed
from holdtrue.models._rows import BATCH_ROWS, count_rows, read_range, read_sample
from holdtrue.models.compiled._calendar import PARTS
from holdtrue.priority import later
from holdtrue.stack._resources import alive_nodes, cpus_each, fit_cpus, reserved

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sklearn.pipeline import Pipeline

    from holdtrue.declaration import Model
    from holdtrue.models._shard import Encoders, Job
    from holdtrue.models._signature import Signature
    from holdtrue.stack._resources import Node

# Peak growth of a process that reads, types, encodes and fits, measured on 327,346 rows of 15
# numbers and 3 categories: 45 bytes a value with XGBoost, 52 with histogram gradient boosting (the
# frame, its typed copy, the float64 matrix, XGBoost's bins); 145 with one-hot columns.
_WHOLE_BYTES = {"plain": 56, "scaled": 160}
# The same of one that bins batch by batch, beside the batch, measured on 1,000,000 rows of 5 and of
# 20 columns: 66 bytes a row and 1.5 to 3 a value; with three classes 24 bytes a row more (gradients
# and sums of each class).
_SHARD_VALUE_BYTES = 4
_SHARD_ROW_BYTES = 66
_SHARD_CLASS_BYTES = 12
# What it takes to read a column, whatever the rows: pages and dictionaries of 1 MB each.
_SHARD_COLUMN_BYTES = 3_000_000
# Share of what is left that one batch on its way to the bins may take.
_BATCH_SHARE = 0.25
_LEAST_BATCH = 1_024
_TRIES = 3
_POLL_S = 1.0
_PATIENCE_S = 600
# After one process has failed, the others fail too, or never will.
_AFTERMATH_S = 30.0


@dataclass(frozen=True)
class FitPlan:
    """How a model is fitted within a limit of memory."""

    rows: int
    """Training rows that it learns from; fewer than there are where only a sample fits."""
    shards: int = 1
    """Processes that train together, each on its part of the rows."""


@dataclass(frozen=True)
class Fitted:
    """A model on disk, and what it was fitted on."""

    digest: str
    """Of the bundle's manifest."""
    rows: int
    """Training rows that it has learnt from."""
    shards: int
    """Processes that trained together."""


def rows_within(columns: int, limit_bytes: int, kind: str = "plain") -> int:
    """Most rows that one process can be fitted on.

    Args:
        columns: Feature columns.
        limit_bytes: Memory for them.
        kind: Encoding of the estimator (see `encoding`).
    """
    return max(SAMPLE_ROWS, limit_bytes // (_WHOLE_BYTES[kind] * (columns + 1)))


def batch_rows_within(columns: int, limit_bytes: int) -> int:
    """Rows that a process of several encodes at a time."""
    fit = int(_left(columns, limit_bytes) * _BATCH_SHARE) // (_WHOLE_BYTES["plain"] * (columns + 1))
    return min(BATCH_ROWS, max(_LEAST_BATCH, fit))


def _left(columns: int, limit_bytes: int) -> int:
    """What a process of several may take for batches and bins."""
    return limit_bytes - columns * _SHARD_COLUMN_BYTES


def columns_of(signature: Signature) -> int:
    """Columns of the matrix, at most: with more than two classes a category has one for each."""
    classes = len(signature.classes or ())
    categories = len(signature.categorical) * (classes if classes > 2 else 1)
    return len(signature.numeric) + categories + len(signature.temporal) * len(PARTS)


def plan_fit(
    rows: int,
    signature: Signature,
    *,
    estimator: str,
    params: dict[str, Any],
    limit_bytes: int | None,
    nodes: Sequence[Node],
) -> FitPlan:
    """Decide how a model is fitted: in one process, by several on a part each, or on a sample.

    Args:
        rows: Training rows.
        signature: The columns.
        estimator: Import path of its class.
        params: Its arguments.
        limit_bytes: ``ray.memory``; None: one process is always enough.
        nodes: The cluster.

    Raises:
        TrainingError: It takes more processes than the cluster has CPUs, or more memory whatever
            their number.
    """
    model = construct(estimator, params, seed=0, threads=1)
    columns, kind = columns_of(signature), encoding(model)
    if limit_bytes is None or rows <= rows_within(columns, limit_bytes, kind):
        return FitPlan(rows)
    if not shardable(model):
        return FitPlan(rows_within(columns, limit_bytes, kind))
    classes = len(signature.classes or ())
    outputs = classes if classes > 2 else 1
    row_bytes = columns * _SHARD_VALUE_BYTES + _SHARD_ROW_BYTES + outputs * _SHARD_CLASS_BYTES
    need = math.ceil(rows * row_bytes / (1 - _BATCH_SHARE))
    left, cpus = _left(columns, limit_bytes), sum(node.cpus for node in nodes)
    shards = max(2, math.ceil(need / left)) if left > 0 else 0
    if 0 < shards <= cpus:
        return FitPlan(rows, shards)
    takes = f"takes {shards} processes" if shards else "takes more for each of its columns"
    message = (
        f"ray.memory: to train on {rows:,} rows within {limit_bytes / 1e6:,.0f} MB {takes}, "
        f"and the cluster has {cpus} CPU{'s' if cpus != 1 else ''}"
    )
    enough = math.ceil((need / max(cpus, 2) + limit_bytes - left) / 1e6)
    hint = f"declare {enough}MB or more"
    if shards:
        hint += f", or a cluster with {shards} CPUs in ray.address"
    if cpus < 2:
        hint = "give a cluster with 2 CPUs or more in ray.address, or leave out ray.memory"
    raise TrainingError(message, hint=hint)


def shardable(model: Any) -> bool:
    """Whether an estimator can be trained by several processes: XGBoost's trees on histograms."""
    if type(model).__module__.partition(".")[0] != "xgboost":
        return False
    from xgboost import XGBClassifier, XGBRegressor

    trees = model.booster != "gblinear" and model.tree_method in (None, "auto", "hist")
    return isinstance(model, XGBClassifier | XGBRegressor) and trees


def fit_on_ray(
    rows: Path,
    folder: Path,
    signature: Signature,
    estimator: str,
    params: dict[str, Any],
    *,
    seed: int,
    model: Model,
    folds: int,
    ordered: bool,
    cpus: int = 1,
    gpus: float = 0.0,
    deterministic: bool = False,
    limit_bytes: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Fitted:
    """Fit on the training rows and write the bundle, on the Ray cluster that is connected.

    Args:
        rows: Parquet file with the training rows, on a path that all nodes can read.
        folder: Of the bundle.
        signature: The columns.
        estimator: Import path of its class.
        params: All its arguments.
        seed: Seed of everything random.
        model: Declares weights, calibration, costs and interval.
        folds: In how many parts the rows are cut where some must be set aside.
        ordered: Whether a part is judged by a model of earlier rows only.
        cpus: CPUs of a trial. So many, and as many threads, are taken where `deterministic`, and
            beside a GPU, whose node may have few; else as many as are free.
        gpus: GPUs of a trial. One process takes as many; several together are trained on CPUs.
        deterministic: Whether the same model must come out however many CPUs there are.
        limit_bytes: ``ray.memory``: rows that need more than this in one process are trained on
            in parts, or a random sample of them where the estimator cannot be.
        say: Told in words how it goes.

    Raises:
        TrainingError: It did not go, in `_TRIES` tries; or as `fit_bundle`, or as `plan_fit`.
    """
    import ray

    n_rows, nodes = count_rows(rows), alive_nodes()
    plan = plan_fit(
        n_rows,
        signature,
        estimator=estimator,
        params=params,
        limit_bytes=limit_bytes,
        nodes=nodes,
    )
    declared = {"model": model, "folds": folds, "ordered": ordered, "seed": seed}
    if plan.shards > 1 and limit_bytes is not None:
        fitted = fit_sharded(
            *(rows, signature, estimator, params),
            seed=seed,
            shards=plan.shards,
            limit_bytes=limit_bytes,
            weights=_weights(rows, signature, model),
            threads=cpus if deterministic else None,
            say=say,
        )
        write: Any = later(_write)
        job: Any = ray.remote(write)
        few = rows_within(columns_of(signature), limit_bytes)
        digest = ray.get(
            job.options(num_cpus=1, num_gpus=gpus or None, max_retries=1).remote(
                rows, few, folder, fitted, signature, estimator, params, **declared
            )
        )
        return Fitted(digest, plan.rows, plan.shards)
    if not deterministic and not gpus:
        cpus = fit_cpus()
    with reserved(cpus, 1, say, gpus=gpus) as (place,):
        say(f"fitting {estimator} on {plan.rows:,} rows")
        task = ray.remote(later(_fit_sample)).options(
            num_cpus=cpus, num_gpus=gpus or None, max_retries=1, scheduling_strategy=place
        )
        chosen = None if plan.rows == n_rows else plan.rows
        digest = ray.get(
            task.remote(
                rows, chosen, folder, signature, estimator, params, threads=cpus, **declared
            )
        )
    return Fitted(digest, plan.rows, 1)


def _fit_sample(rows: Path, few: int | None, *arguments: Any, **declared: Any) -> str:
    """Fit on all rows, or on a few at random; runs in a Ray worker."""
    given = rows if few is None else read_sample(rows, few, declared["seed"])
    return fit_bundle(given, *arguments, **declared)


def _weights(rows: Path, signature: Signature, model: Model) -> tuple[float, ...] | None:
    """How much a row of each class counts, from all rows."""
    if signature.classes is None or model.class_weight is None:
        return None
    counts = np.zeros(len(signature.classes), dtype="int64")
    for _, batch in read_range(rows, 0, count_rows(rows), [signature.target]):
        counts += np.bincount(target_of(batch, signature), minlength=len(counts))
    weights = class_weights(counts, signature.classes, model.class_weight)
    return None if weights is None else tuple(weights.tolist())


def _write(
    rows: Path,
    few: int,
    folder: Path,
    fitted: Pipeline,
    signature: Signature,
    estimator: str,
    params: dict[str, Any],
    *,
    model: Model,
    folds: int,
    ordered: bool,
    seed: int,
) -> str:
    """Learn calibration or interval from models of a few rows, and write; in a Ray worker.

    Models of fewer rows are no better than the one that is written, so that its interval is wide
    enough.
    """
    needed = model.calibrate is not None or model.interval is not None
    wanted = few if needed else min(few, PROOF_ROWS)
    train = read_sample(rows, wanted, seed).reset_index(drop=True)
    with limited(estimator, 1):
        return write_fitted(
            *(folder, fitted, train, typed(train, signature), target_of(train, signature)),
            *(signature, estimator, params),
            seed=seed,
            threads=1,
            model=model,
            folds=folds,
            ordered=ordered,
        )


def fit_sharded(
    rows: Path,
    signature: Signature,
    estimator: str,
    params: dict[str, Any],
    *,
    seed: int,
    shards: int,
    limit_bytes: int,
    weights: Sequence[float] | None = None,
    threads: int | None = None,
    say: Callable[[str], None] = lambda _: None,
    patience_s: int = _PATIENCE_S,
) -> Pipeline:
    """Train an XGBoost model by several processes, each of which reads its part of the rows.

    A process reads, encodes and bins its rows batch by batch, so that neither the table nor its
    matrix is ever in memory; only the bins stay. The processes add up their histograms at each
    level of a tree (`xgboost.collective`) and so grow the same trees. The same model comes out for
    the same rows, seed and numbers of shards and threads.

    Args:
        rows: Parquet file with the training rows, on a path that all nodes can read.
        signature: The columns.
        estimator: Import path of one of XGBoost's classes (see `shardable`).
        params: Its arguments.
        seed: Seed of the estimator and of the sample that encoders are fitted on.
        shards: Processes, at least 1.
        limit_bytes: Memory for the rows in each process.
        weights: By class, how much a row counts; all the same where left out.
        threads: Of each process, however few CPUs there are for it; as many as there are CPUs
            where left out.
        say: Told in words how it goes.
        patience_s: The fit is given up where no process does anything for so long.

    Returns:
        The fitted pipeline, of the same form as that of one process.

    Raises:
        TrainingError: The cluster has fewer CPUs than there are shards, XGBoost refuses the
            setting, or processes died in each of 3 tries.
    """
    from holdtrue.models._shard import Job

    cpus = cpus_each(shards, alive_nodes())
    if cpus == 0:
        message = f"{shards} processes are to train together, and the cluster has fewer CPUs"
        raise TrainingError(message, hint="raise ray.memory, or give a larger cluster")
    columns = columns_of(signature)
    n_rows = count_rows(rows)
    job = Job(
        rows=rows,
        n_rows=n_rows,
        signature=signature,
        estimator=estimator,
        params=params,
        seed=seed,
        shards=shards,
        cpus=cpus if threads is None else min(cpus, threads),
        threads=threads or cpus,
        batch_rows=batch_rows_within(columns, limit_bytes),
        sample_rows=min(n_rows, rows_within(columns, limit_bytes)),
        patience_s=patience_s,
        weights=None if weights is None else tuple(weights),
    )
    with reserved(job.cpus, shards, say) as places:
        return _as_pipeline(job, *_tried(job, places, say))


def _tried(job: Job, places: Sequence[Any], say: Callable[[str], None]) -> tuple[Encoders, bytes]:
    """Train; again where a process died."""
    tries = 1
    while True:
        try:
            return _train(job, places, say)
        except _Died as err:
            if tries == _TRIES:
                message = f"training in {job.shards} processes failed {tries} times: {err}"
                hint = "lower ray.memory, so that each process takes less, or look at Ray's logs"
                raise TrainingError(message, hint=hint) from err
            say("a process died: training starts again")
            tries += 1


def _as_pipeline(job: Job, encoders: Encoders, booster: bytes) -> Pipeline:
    from sklearn.pipeline import Pipeline

    model = construct(job.estimator, job.params, seed=job.seed, threads=job.threads)
    model.load_model(bytearray(booster))
    return Pipeline([("features", encoders.final), ("model", model)])


class _Died(Exception):  # noqa: N818 - caught here, never seen
    """A process ended, or did nothing for too long."""


def _train(job: Job, places: Sequence[Any], say: Callable[[str], None]) -> tuple[Encoders, bytes]:
    """One try: start the processes, let them train, end them."""
    import ray

    from holdtrue.models._shard import Shard

    actor: Any = ray.remote(Shard)
    shards = [
        # A second thread, which says how far the first is.
        actor.options(num_cpus=job.cpus, max_concurrency=2, scheduling_strategy=place).remote(
            job, rank
        )
        for rank, place in enumerate(places)
    ]
    try:
        say(f"starting {job.shards} processes")
        _result([shard.start.remote() for shard in shards], job.patience_s)
        say(f"fitting the encoding on {job.sample_rows:,} rows")
        encoders = shards[0].encoders.remote()
        _result([encoders], job.patience_s)
        (place,) = _result([shards[0].meet.remote()], job.patience_s)
        running = [shard.train.remote(encoders, place) for shard in shards]
        _watch(running, shards, job, say)
        return ray.get(encoders), _result(running, _AFTERMATH_S)[0]
    finally:
        for shard in shards:
            ray.kill(shard)


def _watch(
    running: Sequence[Any], shards: Sequence[Any], job: Job, say: Callable[[str], None]
) -> None:
    """Wait until all have ended, one has failed, or none does anything any more."""
    import ray

    moved, steps = time.monotonic(), -1
    said = f"training on {job.n_rows:,} rows in {job.shards} processes"
    left = list(running)
    while left:
        done, left = ray.wait(left, timeout=_POLL_S)
        if done and _failed(done):
            return
        asked = [shard.moves.remote() for shard in shards]
        there, _ = ray.wait(asked, num_returns=len(asked), timeout=_POLL_S)
        if _failed(there):
            return
        moves = ray.get(there)
        now = sum(done for done, _ in moves)
        if now > steps:
            moved, steps = time.monotonic(), now
            say(f"{said}: {max((rounds for _, rounds in moves), default=0)} rounds done")
        elif time.monotonic() - moved > job.patience_s:
            message = f"none of the processes did anything for {job.patience_s:g} s"
            raise _Died(message)


def _failed(references: Sequence[Any]) -> bool:
    import ray

    try:
        ray.get(list(references))
    except Exception:  # noqa: BLE001 - `_result` says which
        return True
    return False


def _result(references: Sequence[Any], timeout_s: float) -> list[Any]:
    """What all of them came to.

    Raises:
        _Died: One of them ended without an answer, or did not answer in time.
        HoldtrueError: What one of them raised.
        TrainingError: XGBoost refused the setting.
    """
    import ray
    from ray.exceptions import RayTaskError

    # Where one has failed, the others end because of it: look at all, to find the first cause.
    ray.wait(list(references), num_returns=len(references), timeout=timeout_s)
    results, died, refused = [], "", ""
    for reference in references:
        try:
            results.append(ray.get(reference, timeout=0))
        except RayTaskError as err:
            if isinstance(err.cause, HoldtrueError):
                raise err.cause from err
            if type(err.cause).__name__ != "XGBoostError":
                message = f"training failed: {type(err.cause).__name__}: {err.cause}"
                raise TrainingError(message[:500]) from err
            refused = str(err.cause)
        except Exception as err:  # noqa: BLE001 - Ray has no common class for a lost process
            died = died or str(err).partition("\n")[0] or type(err).__name__
    if died:
        raise _Died(died)
    if refused:
        message = f"XGBoost refused the setting: {_reason(refused)}"
        raise TrainingError(message)
    return results


def _reason(text: str) -> str:
    """The first line of XGBoost's message, without time and place; a stack trace may follow."""
    return re.sub(r"^\[[^]]*\] \S+:\d+: ", "", text.strip().partition("\n")[0])[:300]
