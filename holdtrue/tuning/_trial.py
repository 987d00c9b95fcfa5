"""One trial: what a Ray worker does with a setting."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdtrue.evaluation import measure
from holdtrue.models import construct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdtrue.tuning._folds import Fold


@dataclass(frozen=True)
class Outcome:
    """What came of a trial."""

    values: tuple[float, ...]
    """The metric on each fold; as many as were finished."""
    seconds: float
    reason: str | None
    """Why it failed; None where it did not."""


def run_trial(
    folds: Sequence[Fold],
    estimator: str,
    params: dict[str, Any],
    metric: str,
    classes: tuple[str, ...] | None,
    seed: int,
) -> Outcome:
    """Fit and judge a setting on each fold. Whatever the estimator raises fails this trial only."""
    started = time.perf_counter()
    values: list[float] = []
    reason = None
    try:
        for fold in folds:
            model = construct(estimator, params, seed=seed, threads=1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a setting that converges badly shows in its score
                model.fit(fold.fit_x, fold.fit_y)
                answer = (
                    model.predict(fold.judge_x)
                    if classes is None
                    else model.predict_proba(fold.judge_x)
                )
            value = measure(metric, fold.judge_y, answer, classes)
            if not math.isfinite(value):
                reason = f"{metric} is {value} on fold {len(values) + 1}"
                break
            values.append(float(value))
    except Exception as err:  # noqa: BLE001 - an estimator may raise anything
        reason = f"{type(err).__name__}: {err}"[:500]
    return Outcome(tuple(values), time.perf_counter() - started, reason)
