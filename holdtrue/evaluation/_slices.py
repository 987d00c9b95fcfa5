"""Which rows are of which slice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

SLICE_VALUES = 50
"""At most so many values of a column are looked at, those with most rows."""


def slice_texts(values: pd.Series[Any]) -> npt.NDArray[np.str_]:
    """The slice of each row, as text, shape (n_rows,).

    Whole numbers are written alike whether they came as integers or not, so that the slices of
    rows that were read today are those of an evaluation.

    Args:
        values: shape (n_rows,): of the column; what is missing is a slice of its own.
    """
    from pandas.api.types import is_float_dtype

    from holdtrue.models import MISSING

    known = values.notna()
    if is_float_dtype(values.dtype) and (values[known] % 1 == 0).all():
        values = values.astype("Int64")
    texts: npt.NDArray[np.str_] = values.astype(str).where(known, MISSING).to_numpy(dtype=str)
    return texts


def most_frequent(
    texts: npt.NDArray[np.str_], fewest: int
) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """The slices with most rows, 50 at most, and which rows they have.

    Args:
        texts: shape (n_rows,): the slice of each row.
        fewest: Slices with fewer rows are left out.
    """
    names, index, counts = np.unique(texts, return_inverse=True, return_counts=True)
    order = [i for i in np.argsort(-counts, kind="stable") if counts[i] >= fewest]
    return [(str(names[i]), index == i) for i in order[:SLICE_VALUES]]
