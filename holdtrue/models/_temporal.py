"""Times as numbers, as a scikit-learn transformer; imported where pipelines are only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from holdtrue.times import DAY

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import pandas as pd

# By the names in `holdtrue.times`. Computed by pandas: what is compiled
# computes them by itself, and is proven against it.
_FIELDS = {"month": "month", "day": "day", "weekday": "day_of_week", "hour": "hour"}


class TemporalEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Makes numbers of times: days since 1970, and month, day, weekday and hour where they vary.

    Args:
        parts: Which numbers, by column in its order; where left out, those that differ between the
            rows of the fit. Days are there in any case.
    """

    def __init__(self, parts: Sequence[Sequence[str]] | None = None) -> None:
        self.parts = parts

    def fit(self, X: pd.DataFrame, y: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Choose the parts.

        Args:
            X: shape (n_rows, n_columns), datetime64 without a zone, in UTC.
            y: Not looked at.
        """
        del y
        self.feature_names_in_ = np.array(X.columns, dtype=object)
        self.n_features_in_ = len(X.columns)
        self.parts_ = self.parts
        if self.parts is None:
            self.parts_ = [
                ["days", *(n for n in _FIELDS if _part(X[column], n).nunique() > 1)] for column in X
            ]
        return self

    def transform(self, X: pd.DataFrame) -> npt.NDArray[np.float64]:  # noqa: N803
        """Encode rows.

        Args:
            X: As for `fit`.

        Returns:
            shape (n_rows, n_parts), NaN for missing.
        """
        parts = [
            _part(X[column], name).to_numpy(dtype="float64")
            for column, names in zip(X, self.parts_ or (), strict=True)
            for name in names
        ]
        return np.column_stack(parts)

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[Any]:
        """Names of the parts, such as ``departure: hour``."""
        del input_features
        names = zip(self.feature_names_in_, self.parts_ or (), strict=True)
        return np.array(
            [f"{name}: {part}" for name, parts in names for part in parts], dtype=object
        )


def _part(times: pd.Series, name: str) -> pd.Series:
    if name != "days":
        found: pd.Series = getattr(times.dt, _FIELDS[name])
        return found
    counts = times.astype("datetime64[us]").astype("int64").astype("float64")
    return (counts / DAY).where(times.notna())
