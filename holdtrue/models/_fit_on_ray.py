"""Fit the model that is kept, on a cluster, however many rows there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.models._age import ages_of
from holdtrue.models._classes import class_weights
from holdtrue.models._estimator import limited
from holdtrue.models._fit import PROOF_ROWS, fit_bundle, write_fitted
from holdtrue.models._fit_plan import columns_of, plan_fit, rows_within
from holdtrue.models._frame import target_of, typed
from holdtrue.models._rows import count_rows, read_range, read_sample
from holdtrue.models._sharded import fit_sharded
from holdtrue.priority import later
from holdtrue.stack._resources import alive_nodes, fit_cpus, reserved

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sklearn.pipeline import Pipeline

    from holdtrue.declaration import Model
    from holdtrue.models._age import HalfLife
    from holdtrue.models._signature import Signature


@dataclass(frozen=True)
class Fitted:
    """A model on disk, and what it was fitted on."""

    digest: str
    """Of the bundle's manifest."""
    rows: int
    """Training rows that it has learnt from."""
    shards: int
    """Processes that trained together."""


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
    half_life: HalfLife | None = None,
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
        half_life: How rows count by their age; None: all the same.
        say: Told in words how it goes.

    Raises:
        TrainingError: As `plan_fit`, and as `fit_bundle` or `fit_sharded`.
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
    declared = {
        "model": model,
        "folds": folds,
        "ordered": ordered,
        "seed": seed,
        "half_life": half_life,
    }
    if plan.shards > 1 and limit_bytes is not None:
        fitted = fit_sharded(
            *(rows, signature, estimator, params),
            seed=seed,
            shards=plan.shards,
            limit_bytes=limit_bytes,
            weights=_weights(rows, signature, model),
            half_life=half_life,
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
    half_life: HalfLife | None,
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
            ages=ages_of(train, half_life),
        )
