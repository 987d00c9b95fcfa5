"""What a fitted estimator costs those who use it: its size, and its time for a row."""

from __future__ import annotations

import pickle
import time
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np

    from holdtrue.declaration import Cost

_ASKS = 21


def costs_of(
    wanted: Sequence[Cost], model: Any, answer: Callable[[np.ndarray], Any], row: np.ndarray
) -> dict[Cost, float]:
    """Measure a fitted estimator.

    Args:
        wanted: What is measured.
        model: A fitted estimator, or a booster of XGBoost.
        answer: Its method that gives the scores of rows.
        row: shape (1, n_columns).

    Returns:
        ``model_kb``: thousands of bytes, of XGBoost's JSON or pickled; ``predict_ms``: the median
        of 21 calls with one row.
    """
    found: dict[Cost, float] = {}
    if "model_kb" in wanted:
        found["model_kb"] = _size(model) / 1_000
    if "predict_ms" in wanted:
        found["predict_ms"] = 1_000 * median(_seconds(answer, row) for _ in range(_ASKS))
    return found


def mean_costs(folds: Sequence[Mapping[Cost, float]]) -> dict[Cost, float]:
    """The mean over the folds' models; nothing where there are none."""
    names: Iterable[Cost] = folds[0] if folds else ()
    return {name: fmean(fold[name] for fold in folds) for name in names}


def constraints_of(costs: Mapping[Cost, float], limits: Mapping[Cost, float]) -> dict[Cost, float]:
    """How far costs are beyond their limits, as a share of these; within them 0 or less."""
    return {name: costs[name] / limit - 1 for name, limit in limits.items() if name in costs}


def is_within(constraints: Mapping[Any, float]) -> bool:
    """Whether no constraint is broken."""
    return all(by <= 0 for by in constraints.values())


def _size(model: Any) -> int:
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    if hasattr(booster, "save_raw"):
        return len(booster.save_raw("json"))
    return len(pickle.dumps(model, protocol=5))


def _seconds(answer: Callable[[np.ndarray], Any], row: np.ndarray) -> float:
    began = time.perf_counter()
    answer(row)
    return time.perf_counter() - began
