"""Which features a model leans on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from holdtrue.declaration import METRICS
from holdtrue.evaluation._metrics import UndefinedError, measure

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    import pandas as pd


def importance(
    predict: Callable[[pd.DataFrame], npt.NDArray[np.float64]],
    frame: pd.DataFrame,
    target: npt.ArrayLike,
    metric: str,
    classes: tuple[str, ...] | None,
    *,
    seed: int,
    sample: int = 2_000,
    repeats: int = 1,
) -> dict[str, float]:
    """Measure how much a metric worsens when the values of one feature are shuffled.

    Args:
        predict: The model.
        frame: Shape (n_rows, n_features): the feature columns.
        target: Shape (n_rows,): indices into `classes`, or numbers for regression.
        metric: What is looked at.
        classes: Names of the classes; None for regression.
        seed: Of the choice of rows and of the shuffling.
        sample: At most so many rows are used.
        repeats: How often each feature is shuffled; the mean is given.

    Returns:
        By feature, most important first; positive where the model needs the feature. Empty where
        the metric is undefined for the chosen rows.

    References:
        Breiman (2001), Random forests, Machine Learning 45, 5-32, section 10.
    """
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.permutation(len(frame))[:sample])
    rows = frame.iloc[chosen]
    truth = np.asarray(target)[chosen]
    sign = 1.0 if METRICS[metric][0] == "higher" else -1.0
    try:
        whole = measure(metric, truth, predict(rows), classes)
    except UndefinedError:
        return {}
    losses = {}
    for column in frame.columns:
        values = []
        for _ in range(repeats):
            shuffled = rows.copy(deep=False)
            order = generator.permutation(len(rows))
            shuffled[column] = rows[column].iloc[order].set_axis(rows.index)
            values.append(measure(metric, truth, predict(shuffled), classes))
        losses[str(column)] = sign * (whole - float(np.mean(values)))
    return dict(sorted(losses.items(), key=lambda item: -item[1]))
