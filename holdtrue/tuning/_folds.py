"""The parts that a setting is judged on, encoded once and shared by all trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from holdtrue.models import encoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from holdtrue.models import Signature


@dataclass(frozen=True)
class Fold:
    """Encoded rows to fit on and to judge on.

    ``fit_x`` and ``judge_x``: float32, shape (n_rows, n_encoded); ``fit_y`` and ``judge_y``:
    class index or value, shape (n_rows,).
    """

    fit_x: np.ndarray
    fit_y: np.ndarray
    judge_x: np.ndarray
    judge_y: np.ndarray


def sample_rows(n_rows: int, share: float, seed: int) -> np.ndarray:
    """Row numbers of a random sample, in their order.

    Args:
        n_rows: How many there are.
        share: Wanted share, 0..1.
        seed: Of the sample.
    """
    if share >= 1:
        return np.arange(n_rows)
    size = max(min(n_rows, 2), round(share * n_rows))
    return np.sort(np.random.default_rng(seed).choice(n_rows, size, replace=False))


def cut(
    target: np.ndarray, n_folds: int, *, ordered: bool, classification: bool, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers to fit on and to judge on.

    Args:
        target: shape (n_rows,), in order of time where `ordered`.
        n_folds: How many pairs.
        ordered: Whether a fold must be judged on rows later than those it was fitted on.
        classification: Whether the folds keep the share of each class (where not ordered).
        seed: Of the shuffling (where not ordered).
    """
    from sklearn.model_selection import KFold, StratifiedKFold, TimeSeriesSplit

    if ordered:
        folds = TimeSeriesSplit(n_folds)
    elif classification:
        folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    else:
        folds = KFold(n_folds, shuffle=True, random_state=seed)
    yield from folds.split(target, target)


def encode_folds(
    frame: pd.DataFrame,
    target: np.ndarray,
    parts: list[tuple[np.ndarray, np.ndarray]],
    kind: str,
    signature: Signature,
    seed: int,
) -> list[Fold]:
    """Fit the encoder on each fold's own rows, so that no fold sees what it is judged on."""
    folds = []
    for fit, judge in parts:
        features = encoder(kind, signature, seed=seed)
        fit_x = features.fit_transform(frame.iloc[fit], target[fit])
        judge_x = features.transform(frame.iloc[judge])
        folds.append(
            Fold(
                np.ascontiguousarray(fit_x, dtype="float32"),
                target[fit],
                np.ascontiguousarray(judge_x, dtype="float32"),
                target[judge],
            )
        )
    return folds
