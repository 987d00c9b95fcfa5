"""The parts that a setting is judged on, encoded once and shared by all trials."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.errors import TrainingError
from holdtrue.models import by_age, encoder, taught

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    import pandas as pd

    from holdtrue.models import Signature

Parts = list[tuple[np.ndarray, np.ndarray]]
"""By fold: numbers of the rows to fit on and to judge on."""

FEWER_FOLDS = "use fewer tune.folds, a larger tune.sample or a longer data.window"
"""What to do where the folds do not suit the rows."""


@dataclass(frozen=True)
class Fold:
    """Encoded rows to fit on and to judge on.

    ``fit_x`` and ``judge_x``: float32, shape (n_rows, n_encoded); ``fit_y`` and ``judge_y``:
    class index or value, shape (n_rows,). ``fit_weight``: how much each row counts in the fit,
    shape (n_rows,), 0 or more; None: all the same. The rows to judge on all count the same.
    """

    fit_x: np.ndarray
    fit_y: np.ndarray
    judge_x: np.ndarray
    judge_y: np.ndarray
    fit_weight: np.ndarray | None = None
    places: np.ndarray | None = None
    """Where the classes that ``fit_y`` counts in are among all, shape (n_taught,); None: they are
    all. ``judge_y`` always counts in all."""


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

    Raises:
        TrainingError: There are too few rows for so many folds.
    """
    from sklearn.model_selection import KFold, StratifiedKFold, TimeSeriesSplit

    n_rows = len(target)
    # The first rows in order of time are judged by no fold.
    if n_rows < n_folds + ordered:
        raise _too_few(n_folds, f"{n_rows} row{'s' * (n_rows != 1)}")
    if classification and not ordered:
        most = int(np.unique(target, return_counts=True)[1].max())
        if most < n_folds:
            raise _too_few(n_folds, f"{n_rows} rows with at most {most} of a class")
    if ordered:
        folds = TimeSeriesSplit(n_folds)
    elif classification:
        folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    else:
        folds = KFold(n_folds, shuffle=True, random_state=seed)
    yield from folds.split(target, target)


def _too_few(n_folds: int, rows: str) -> TrainingError:
    message = f"{rows} cannot be cut into {n_folds} folds"
    return TrainingError(message, hint=FEWER_FOLDS)


def encode_folds(
    frame: pd.DataFrame,
    target: np.ndarray,
    parts: Parts,
    kind: str,
    signature: Signature,
    seed: int,
    weight: np.ndarray | None = None,
    ages: np.ndarray | None = None,
) -> list[Fold]:
    """Fit the encoder on each fold's own rows, so that no fold sees what it is judged on.

    Rows of a class of which a fold has too few are not fitted on (see `taught`).

    Args:
        frame: shape (n_rows, n_features): typed rows.
        target: shape (n_rows,): class index or value.
        parts: The rows of each fold.
        kind: Of the encoding, see `holdtrue.models.encoding`.
        signature: The columns.
        seed: Of the encoder's cross-fitting.
        weight: shape (n_rows,): how much each row counts in a fit; None: all the same.
        ages: shape (n_rows,), in half lives: rows count by their age, too, on average 1 over what a
            fold is fitted on; None: age does not count.

    Raises:
        TrainingError: A fold has too few rows to fit the encoder on.
    """
    folds = []
    for number, (fit, judge) in enumerate(parts, start=1):
        rows, fit_y, known, places = taught(fit, target, signature)
        features = encoder(kind, known, seed=seed)
        try:
            fit_x = features.fit_transform(frame.iloc[rows], fit_y)
        except ValueError as err:  # of scikit-learn: too few rows for its own cross-fitting
            message = (
                f"the {len(rows)} rows that fold {number} of {len(parts)} is fitted on "
                f"cannot be encoded: {err}"
            )
            raise TrainingError(message, hint=FEWER_FOLDS) from err
        judge_x = features.transform(frame.iloc[judge])
        fit_weight = by_age(*(None if each is None else each[rows] for each in (weight, ages)))
        folds.append(
            Fold(
                np.ascontiguousarray(fit_x, dtype="float32"),
                fit_y,
                np.ascontiguousarray(judge_x, dtype="float32"),
                target[judge],
                None if fit_weight is None else np.ascontiguousarray(fit_weight, dtype="float32"),
                places,
            )
        )
    return folds


class Kept:
    """What a worker process keeps from trial to trial of one study, up to a number of bytes.

    What was not used for longest goes first; what belongs to another study goes at once.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._study = ""
        self._things: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, study: str, key: Hashable, n_bytes: int, make: Callable[[], Any]) -> Any:
        """Find something, or make it and keep it.

        Args:
            study: Names the study; empty: keep nothing.
            key: Names the thing within the study.
            n_bytes: Its size, roughly.
            make: Called where it is not there.
        """
        if not study:
            return make()
        if study != self._study:
            self._things.clear()
            self._study = study
        if key in self._things:
            self._things.move_to_end(key)
            return self._things[key][0]
        thing = make()
        self._things[key] = thing, n_bytes
        while self.n_bytes > self._limit_bytes:
            self._things.popitem(last=False)
        return thing

    @property
    def n_bytes(self) -> int:
        """Size of what is kept."""
        return sum(size for _, size in self._things.values())
