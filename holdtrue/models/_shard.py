"""One of the processes that train an XGBoost model together; imported in Ray workers only."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import xgboost
from xgboost import collective
from xgboost.callback import TrainingCallback
from xgboost.tracker import RabitTracker

from holdtrue.models._age import age_weights, ages_of
from holdtrue.models._estimator import construct, encoder, limited
from holdtrue.models._frame import target_of, typed
from holdtrue.models._rows import read_range, read_sample
from holdtrue.priority import give_way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pandas as pd

    from holdtrue.models._age import HalfLife
    from holdtrue.models._signature import Signature

Batch = tuple[np.ndarray, ...]
"""Matrix and target, and how much each row counts where not all count the same."""

ENCODER_FOLDS = 5
# 2^64 divided by the golden ratio: its multiples are spread evenly and never fall into a rhythm
# (Knuth, The Art of Computer Programming 3, section 6.4).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Job:
    """What is trained, on which rows."""

    rows: Path
    """Parquet file with the training rows."""
    n_rows: int
    signature: Signature
    estimator: str
    params: dict[str, Any]
    seed: int
    shards: int
    threads: int
    """Of each process."""
    batch_rows: int
    sample_rows: int
    """Rows that the encoder is fitted on."""
    patience_s: int
    """How long a process waits for the others."""
    weights: tuple[float, ...] | None = None
    """How much a row counts, by class; None: all the same."""
    half_life: HalfLife | None = None
    """How rows count by their age, too; None: all the same."""
    even: float = 0.0
    """Age at which a row counts 1, in half lives, if all rows of the file count 1 on average."""
    cpus: int = 1
    """CPUs of each process; with fewer than threads it takes longer, and the model is the same."""

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        times = () if self.half_life is None else (self.half_life.time,)
        # The time of the event may be a feature, too.
        return [*dict.fromkeys((*self.signature.columns, self.signature.target, *times))]

    def weigh(self, rows: pd.DataFrame, target: np.ndarray) -> np.ndarray | None:
        """How much each row of a batch counts, shape (n_rows,), float32; None: all the same."""
        parts = []
        if self.weights is not None:
            parts.append(np.array(self.weights)[target])
        if (ages := ages_of(rows, self.half_life)) is not None:
            parts.append(age_weights(ages, self.even))
        return np.prod(parts, axis=0).astype("float32") if parts else None


def fold_of(rows: np.ndarray) -> np.ndarray:
    """Fold of the encoder's cross-fitting, 0..ENCODER_FOLDS-1, from row numbers (n_rows,).

    From the number alone, so that it needs no table and is the same however rows are shared out.
    """
    mixed = rows.astype("uint64") * _GOLDEN  # wraps around, as it should
    folds: np.ndarray = ((mixed >> np.uint64(32)) % np.uint64(ENCODER_FOLDS)).astype("int64")
    return folds


@dataclass(frozen=True)
class Encoders:
    """The encoder of the finished model, and those that training rows are encoded by.

    A target encoder replaces a category by the mean target of its rows, so that the code of a
    rare category is nearly the target of the row itself. A model that is trained on such codes
    trusts them, and is wrong about rows that the encoder has not seen. So each training row is
    encoded by an encoder that was fitted without the row's fold. (Micci-Barreca 2001 for the
    encoding; the cross-fitting as in scikit-learn's TargetEncoder.fit_transform.)
    """

    final: Any
    """Fitted on the whole sample."""
    without: tuple[Any, ...]
    """By fold: fitted on the sample's rows outside it. Empty where nothing looks at the target."""

    def training(self, frame: pd.DataFrame, start: int) -> np.ndarray:
        """Encode training rows.

        Args:
            frame: shape (n_rows, n_features), typed.
            start: Number of the first row in the file.

        Returns:
            shape (n_rows, n_encoded), float32, NaN for missing; with more than two classes a
            category becomes a column for each of them.
        """
        if not self.without:
            whole: np.ndarray = np.asarray(self.final.transform(frame), dtype="float32")
            return whole
        folds = fold_of(np.arange(start, start + len(frame)))
        width = len(self.final.get_feature_names_out())
        encoded = np.empty((len(frame), width), dtype="float32")
        for fold, features in enumerate(self.without):
            mine = folds == fold
            if mine.any():
                encoded[mine] = features.transform(frame[mine])
        return encoded


def fit_encoders(job: Job) -> Encoders:
    """Fit the encoders on a random sample of the training rows."""
    sample = read_sample(job.rows, job.sample_rows, job.seed, job.columns)
    frame, target = typed(sample, job.signature), target_of(sample, job.signature)
    folds = fold_of(sample.index.to_numpy())

    def fitted(mine: np.ndarray, parts: Any = None) -> Any:
        features = encoder("plain", job.signature, seed=job.seed, parts=parts)
        return features.fit(frame[mine], target[mine])

    final = fitted(np.ones(len(frame), dtype=bool))
    without: tuple[Any, ...] = ()
    if job.signature.encoded.categorical:
        # The same numbers of a time, whatever varies in the rows outside a fold.
        times = final.named_transformers_.get("temporal")
        parts = None if times is None else times.parts_
        without = tuple(fitted(folds != fold, parts) for fold in range(ENCODER_FOLDS))
    return Encoders(final, without)


class _Batches(xgboost.DataIter):
    """Hands encoded batches to XGBoost, which goes through them four times and keeps only bins.

    The first time they are written to a file, float32, since encoding takes far longer than
    reading them back.

    Args:
        batches: One after the other, of the same number of parts.
        file: Empty; may have no name, so that nothing is left of it however this ends.
    """

    def __init__(self, batches: Iterator[Batch], file: IO[bytes]) -> None:
        super().__init__()
        self._source: Iterator[Batch] | None = batches
        self._file = file
        self._parts = self._written = self._read = 0

    def next(self, input_data: Callable[..., None]) -> bool:
        batch = self._stored() if self._source is None else self._fresh(self._source)
        if batch is None:
            return False
        input_data(**dict(zip(("data", "label", "weight"), batch, strict=False)))
        return True

    def _fresh(self, source: Iterator[Batch]) -> Batch | None:
        batch = next(source, None)
        if batch is None:
            self._source = None
            return None
        for part in batch:
            np.save(self._file, part, allow_pickle=False)
        self._parts = len(batch)
        self._written += 1
        return batch

    def _stored(self) -> Batch | None:
        if self._read == self._written:
            return None
        self._read += 1
        return tuple(np.load(self._file, allow_pickle=False) for _ in range(self._parts))

    def reset(self) -> None:
        if self._source is None:
            self._file.seek(0)
            self._read = 0


@dataclass
class _Moves:
    """What a process has done so far, for those who wait for it."""

    steps: int = 0
    rounds: int = 0


class _Count(TrainingCallback):
    def __init__(self, moves: _Moves) -> None:
        self._moves = moves

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        del model, evals_log
        self._moves.steps += 1
        self._moves.rounds = epoch + 1
        return False


@dataclass
class Shard:
    """A process that trains on its part of the rows; a Ray actor with two threads.

    Args:
        job: What is trained.
        rank: 0..job.shards-1.
    """

    job: Job
    rank: int
    _moves: _Moves = field(default_factory=_Moves)
    _tracker: Any = None

    def start(self) -> None:
        """Be there; the first call."""
        give_way()

    def meet(self) -> dict[str, Any]:
        """Open the place where the processes find each other; asked of the first one."""
        import ray

        # Sorted by the task's name, so that a rank always has the same rows.
        self._tracker = RabitTracker(
            n_workers=self.job.shards,
            host_ip=ray.util.get_node_ip_address(),  # type: ignore[no-untyped-call]
            sortby="task",
            timeout=self.job.patience_s,
        )
        self._tracker.start()
        return dict(self._tracker.worker_args())

    def encoders(self) -> Encoders:
        """Fit the encoders that all processes use."""
        return fit_encoders(self.job)

    def moves(self) -> tuple[int, int]:
        """(anything done, boosting rounds done) so far; answered at any time."""
        return self._moves.steps, self._moves.rounds

    def train(self, encoders: Encoders, place: dict[str, Any]) -> bytes | None:
        """Train with the others.

        Returns:
            Of the first process the model as JSON; None of the others, which have the same.
        """
        task = {"dmlc_task_id": f"{self.rank:06d}", "dmlc_timeout": self.job.patience_s}
        job = self.job
        with (
            limited(job.estimator, job.threads),
            collective.CommunicatorContext(**(place | task)),
        ):
            booster = self._boost(encoders)
        return bytes(booster.save_raw(raw_format="json")) if self.rank == 0 else None

    def _boost(self, encoders: Encoders) -> xgboost.Booster:
        job = self.job
        model = construct(job.estimator, job.params, seed=job.seed, threads=job.threads)
        # On GPUs each process would need one to itself, and NCCL to add up with the others.
        params = model.get_xgb_params() | {"nthread": job.threads, "device": "cpu"}
        params.pop("n_jobs", None)
        classes = len(job.signature.classes or ())
        if classes > 2:  # as XGBClassifier.fit does it
            if params.get("objective") != "multi:softmax":
                params["objective"] = "multi:softprob"
            params["num_class"] = classes
        # Beside the rows, which lie on a disk with room; temporary folders are often memory.
        with TemporaryFile(dir=job.rows.parent) as file:
            rows = xgboost.QuantileDMatrix(
                _Batches(self._encoded(encoders), file),
                missing=model.missing,
                max_bin=model.max_bin,
                nthread=job.threads,
            )
        rounds = model.get_num_boosting_rounds()
        return xgboost.train(params, rows, rounds, callbacks=[_Count(self._moves)])

    def _encoded(self, encoders: Encoders) -> Iterator[Batch]:
        job = self.job
        start, stop = bounds(job.n_rows, job.shards)[self.rank]
        for first, batch in read_range(
            job.rows, start, stop, job.columns, batch_rows=job.batch_rows
        ):
            matrix = encoders.training(typed(batch, job.signature), first)
            target = target_of(batch, job.signature)
            weight = job.weigh(batch, target)
            label = target.astype("float32")
            yield (matrix, label) if weight is None else (matrix, label, weight)
            self._moves.steps += 1


def bounds(n_rows: int, shards: int) -> Sequence[tuple[int, int]]:
    """The rows [start, stop) of each shard: sizes differ by at most one."""
    cuts = [n_rows * i // shards for i in range(shards + 1)]
    return list(pairwise(cuts))
