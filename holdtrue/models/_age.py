"""How much rows count in a fit by their age: `data.half_life`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

    from holdtrue.declaration import Data

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HalfLife:
    """Rows count half as much for each so much that they are older."""

    time: str
    """Column with the time of the event; never null: rows without one are set aside before."""
    length: timedelta

    @classmethod
    def of(cls, data: Data) -> HalfLife | None:
        """What is declared; None where all rows count the same."""
        if data.half_life is None or data.time is None:
            return None
        return cls(data.time, data.half_life)


def ages_of(rows: pd.DataFrame | Path, half_life: HalfLife | None) -> Floats | None:
    """How old rows are, in half lives.

    Args:
        rows: shape (n_rows, any), or their Parquet file.
        half_life: What is declared.

    Returns:
        shape (n_rows,): before a moment that is the same for all tables, so that only differences
        say anything; None where nothing is declared.
    """
    if half_life is None:
        return None
    import pandas as pd  # not in workers that run trials

    from holdtrue.models._frame import in_utc

    if isinstance(rows, Path):
        rows = pd.read_parquet(rows, columns=[half_life.time])
    moments = in_utc(rows[half_life.time]).astype("int64").to_numpy()  # microseconds
    ages: Floats = -moments / (half_life.length / timedelta(microseconds=1))
    return ages


def even_age(ages: Floats) -> float:
    """The age at which a row counts 1, if all count 1 on average.

    Args:
        ages: shape (n_rows,), at least one, in half lives.
    """
    newest = ages.min()  # counted from it, no number becomes too large
    return float(newest - np.log2(np.mean(0.5 ** (ages - newest))))


def age_weights(ages: Floats, even: float | None = None) -> Floats:
    """How much rows count by their age.

    Rows count 1 on average over what is fitted, as they do without a half life. What estimators
    weigh against the data (`C`, `reg_lambda`, `min_child_weight`) then means the same in a fold, in
    the final fit and for any half life, and it does not matter from which moment age is counted.

    Args:
        ages: shape (n_rows,), in half lives.
        even: Age at which a row counts 1; where left out, that of these rows.

    Returns:
        shape (n_rows,); 0 where a row is more than a thousand half lives older than `even`.
    """
    weights: Floats = 0.5 ** (ages - (even_age(ages) if even is None else even))
    return weights


def by_age(weights: Floats | None, ages: Floats | None) -> Floats | None:
    """Let the rows of a fit count by their age, too.

    Args:
        weights: shape (n_rows,): how much they count otherwise; None: all the same.
        ages: shape (n_rows,), in half lives; None: age does not count.
    """
    if ages is None:
        return weights
    return age_weights(ages) if weights is None else weights * age_weights(ages)


def effective_rows(ages: Floats) -> float:
    """How many rows that count alike say as much as these: at most as many as there are.

    Args:
        ages: shape (n_rows,), in half lives.

    References:
        Kish (1965), Survey Sampling, section 11.7: the variance of a weighted mean.
    """
    weights = age_weights(ages)
    return float(weights.sum() ** 2 / (weights**2).sum())
