"""Which rows are trained on and which are only tested on."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from holdtrue.errors import DataError
from holdtrue.references import Split

if TYPE_CHECKING:
    from datetime import datetime

    from holdtrue.declaration import Declaration
    from holdtrue.references import DataCheck
    from holdtrue.store import Store

# So that whoever trains on a part of the rows need not read those before them.
_GROUP_ROWS = 65_536


def split_frame(
    declaration: Declaration, frame: pd.DataFrame, end: datetime | None
) -> tuple[pd.DataFrame, pd.DataFrame, datetime | None]:
    """Cut rows into training and test rows: by time where there is a time column, else at random.

    Args:
        declaration: With ``evaluate.test``.
        frame: The rows to learn from; in order of time where there is a time column.
        end: End of the window; where None, the last row's time.

    Returns:
        Training rows, test rows and the first moment of the test rows.

    Raises:
        DataError: One of the two is empty, or has too few rows of a class.
    """
    time, test = declaration.data.time, declaration.evaluate.test
    boundary: datetime | None = None
    if time is None:
        share = test if isinstance(test, float) else 0.0
        chosen = np.zeros(len(frame), dtype=bool)
        for rows in _strata(frame, declaration):
            shuffled = np.random.default_rng(declaration.seed).permutation(rows)
            chosen[shuffled[: round(share * len(rows))]] = True
    else:
        when = frame[time]
        if isinstance(test, timedelta):
            last: Any = pd.Timestamp(end) if end is not None else when.max() + pd.Timedelta(1, "us")
            start = last - test
        else:
            start = when.iloc[min(round((1 - test) * len(frame)), len(frame) - 1)]
        chosen = (when >= start).to_numpy()
        boundary = start.to_pydatetime()
    train, held = frame[~chosen], frame[chosen]
    _refuse_poor(declaration, train, held, boundary)
    return train.reset_index(drop=True), held.reset_index(drop=True), boundary


def _strata(frame: pd.DataFrame, declaration: Declaration) -> list[np.ndarray]:
    """Row numbers that keep their share in both parts: by class, or all."""
    if declaration.task == "regression":
        return [np.arange(len(frame))]
    return list(frame.groupby(declaration.data.target).indices.values())


def _refuse_poor(
    declaration: Declaration, train: pd.DataFrame, test: pd.DataFrame, boundary: datetime | None
) -> None:
    at = "" if boundary is None else f" (cut at {boundary:%Y-%m-%d %H:%M} UTC)"
    for said, part in (("training", train), ("test", test)):
        if len(part) == 0:
            message = f"the split{at} leaves no {said} rows"
            raise DataError(message, hint="look at evaluate.test and data.window")
        if declaration.task == "classification" and part[declaration.data.target].nunique() < 2:
            only = part[declaration.data.target].iloc[0]
            message = f"the split{at} leaves only one class in the {said} rows: {only}"
            raise DataError(message, hint="look at evaluate.test and data.window")


def write_split(
    store: Store, folder: str, declaration: Declaration, check: DataCheck, end: datetime | None
) -> Split:
    """Cut the rows that the contract left and keep both parts."""
    frame = pd.read_parquet(store.path(check.kept))
    train, test, boundary = split_frame(declaration, frame, end)
    path = store.path(folder)
    path.mkdir(parents=True, exist_ok=True)
    train.to_parquet(path / "train.parquet", index=False, row_group_size=_GROUP_ROWS)
    test.to_parquet(path / "test.parquet", index=False)
    shares = {}
    if check.classes is not None:
        target = declaration.data.target
        shares = {
            name: (float((train[target] == name).mean()), float((test[target] == name).mean()))
            for name in check.classes
        }
    return Split(
        train=store.relative(path / "train.parquet"),
        test=store.relative(path / "test.parquet"),
        train_rows=len(train),
        test_rows=len(test),
        boundary=boundary,
        target_share=shares,
    )
