"""Train one model by several processes, each on its part of the rows."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from holdtrue.errors import HoldtrueError, TrainingError
from holdtrue.models._age import ages_of, even_age
from holdtrue.models._estimator import construct
from holdtrue.models._fit_plan import batch_rows_within, columns_of, rows_within
from holdtrue.models._rows import count_rows
from holdtrue.stack._resources import alive_nodes, cpus_each, reserved

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sklearn.pipeline import Pipeline

    from holdtrue.models._age import HalfLife
    from holdtrue.models._shard import Encoders, Job
    from holdtrue.models._signature import Signature

_TRIES = 3
_POLL_S = 1.0
_PATIENCE_S = 600
# After one process has failed, the others fail too, or never will.
_AFTERMATH_S = 30.0


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
    half_life: HalfLife | None = None,
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
        half_life: How rows count by their age, too; all the same where left out.
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
    ages = ages_of(rows, half_life)
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
        half_life=half_life,
        even=0.0 if ages is None else even_age(ages),
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
