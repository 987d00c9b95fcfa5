"""Which rows are trained on and which are only tested on."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from holdtrue.data._contract import GROUP_ROWS
from holdtrue.declaration import format_duration
from holdtrue.errors import DataError
from holdtrue.models import FEWEST_TO_FIT
from holdtrue.references import Split

if TYPE_CHECKING:
    from datetime import datetime

    from holdtrue.declaration import Declaration
    from holdtrue.references import DataCheck
    from holdtrue.store import Store


def split_frame(
    declaration: Declaration, frame: pd.DataFrame, end: datetime | None
) -> tuple[pd.DataFrame, pd.DataFrame, datetime | None]:
    """Cut rows into training and test rows: by time where there is a time column, else at random.

    Args:
        declaration: With ``evaluate.test``.
        frame: The rows to learn from; in order of time where there is a time column.
        end: End of the window; where None, the last row's time.

    Returns:
        Training rows, test rows and the first moment of the test rows. Classes of which there are
        too few training rows to learn them may be in either.

    Raises:
        DataError: One of the two is empty, or has rows of a single class that can be learnt.
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
    ended = "" if time is None else ended_early(declaration, frame[time], end)
    _refuse_poor(declaration, train, held, boundary, ended)
    return train.reset_index(drop=True), held.reset_index(drop=True), boundary


def ended_early(declaration: Declaration, when: pd.Series, end: datetime | None) -> str:
    """Say that more than half of the time that test rows are of has none; empty where it has.

    Args:
        declaration: With ``evaluate.test``.
        when: shape (n_rows,): the times of all rows.
        end: End of the window.
    """
    test, last = declaration.evaluate.test, when.max()
    if end is None or not isinstance(test, timedelta) or end - last <= test / 2:
        return ""
    return (
        f"evaluate.test: {format_duration(test)} counts back from {end:%Y-%m-%d %H:%M} UTC (now, "
        f"less data.labels_after), and the newest row is of {last:%Y-%m-%d %H:%M} UTC"
    )


def _strata(frame: pd.DataFrame, declaration: Declaration) -> list[np.ndarray]:
    """Row numbers that keep their share in both parts: by class, or all."""
    if declaration.task == "regression":
        return [np.arange(len(frame))]
    return list(frame.groupby(declaration.data.target).indices.values())


def untaught_classes(
    train: pd.DataFrame, test: pd.DataFrame, target: str
) -> dict[str, tuple[int, int]]:
    """Classes of which there are too few training rows to learn them, with their rows in both."""
    first, second = (Counter(part[target]) for part in (train, test))
    few = sorted(name for name in first | second if first[name] < FEWEST_TO_FIT)
    return {name: (first[name], second[name]) for name in few}


def _refuse_poor(
    declaration: Declaration,
    train: pd.DataFrame,
    test: pd.DataFrame,
    boundary: datetime | None,
    ended: str,
) -> None:
    at = "" if boundary is None else f" (cut at {boundary:%Y-%m-%d %H:%M} UTC)"
    parts = {"training": train, "test": test}
    poor = [f"no {said} rows" for said, part in parts.items() if len(part) == 0]
    if declaration.task == "classification" and not poor:
        target = declaration.data.target
        unknown = [*untaught_classes(train, test, target)]
        for said, part in parts.items():
            known = part[target][~part[target].isin(unknown)].unique()
            if len(known) == 0:
                poor.append(f"no {said} rows of a class with training rows enough to learn it")
            elif len(known) == 1:
                poor.append(f"only one class in the {said} rows: {known[0]}")
    if poor:
        message = f"the split{at} leaves {poor[0]}"
        hint = "look at evaluate.test and data.window"
        if ended and len(test) == 0:
            message += f": {ended.removeprefix('evaluate.test: ')}"
            hint = "a longer evaluate.test, a share such as 20%, or data.as_of for data that ended"
        raise DataError(message, hint=hint, key=("evaluate", "test"))


def write_split(
    store: Store, folder: str, declaration: Declaration, check: DataCheck, end: datetime | None
) -> Split:
    """Cut the rows that the contract left and keep both parts."""
    frame = pd.read_parquet(store.path(check.kept))
    train, test, boundary = split_frame(declaration, frame, end)
    time = declaration.data.time
    ended = "" if time is None else ended_early(declaration, frame[time], end)
    untaught, shares = {}, {}
    if check.classes is not None:
        target = declaration.data.target
        untaught = untaught_classes(train, test, target)
        train = train[~train[target].isin(list(untaught))].reset_index(drop=True)
        shares = {
            name: (float((train[target] == name).mean()), float((test[target] == name).mean()))
            for name in check.classes
        }
    path = store.path(folder)
    path.mkdir(parents=True, exist_ok=True)
    train.to_parquet(path / "train.parquet", index=False, row_group_size=GROUP_ROWS)
    test.to_parquet(path / "test.parquet", index=False)
    return Split(
        train=store.relative(path / "train.parquet"),
        test=store.relative(path / "test.parquet"),
        train_rows=len(train),
        test_rows=len(test),
        boundary=boundary,
        target_share=shares,
        untaught=untaught,
        note=ended and f"only {len(test):,} test rows: {ended}",
    )
