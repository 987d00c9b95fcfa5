"""How a model is fitted within a limit of memory: whole, in parts, or on a sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdtrue.errors import TrainingError
from holdtrue.models._bundle import SAMPLE_ROWS
from holdtrue.models._estimator import construct, encoding
from holdtrue.models._rows import BATCH_ROWS
from holdtrue.times import PARTS

if TYPE_CHECKING:
    from collections.abc import Sequence

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


@dataclass(frozen=True)
class FitPlan:
    """How a model is fitted within a limit of memory."""

    rows: int
    """Training rows that it learns from; fewer than there are where only a sample fits."""
    shards: int = 1
    """Processes that train together, each on its part of the rows."""


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
    classes, seen = len(signature.classes or ()), signature.encoded
    categories = len(seen.categorical) * (classes if classes > 2 else 1)
    return len(seen.numeric) + categories + len(seen.temporal) * len(PARTS)


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
        f"to train on {rows:,} rows within {limit_bytes / 1e6:,.0f} MB {takes}, "
        f"and the cluster has {cpus} CPU{'s' if cpus != 1 else ''}"
    )
    enough = math.ceil((need / max(cpus, 2) + limit_bytes - left) / 1e6)
    hint = f"declare {enough}MB or more"
    if shards:
        hint += f", or a cluster with {shards} CPUs in ray.address"
    if cpus < 2:
        hint = "give a cluster with 2 CPUs or more in ray.address, or leave out ray.memory"
    raise TrainingError(message, hint=hint, key=("ray", "memory"))


def shardable(model: Any) -> bool:
    """Whether an estimator can be trained by several processes: XGBoost's trees on histograms."""
    if type(model).__module__.partition(".")[0] != "xgboost":
        return False
    from xgboost import XGBClassifier, XGBRegressor

    trees = model.booster != "gblinear" and model.tree_method in (None, "auto", "hist")
    return isinstance(model, XGBClassifier | XGBRegressor) and trees
