"""The test rows of a version with what it answered: the rows behind its metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.batch._score import PREDICTION, answer_columns
from holdtrue.errors import ConfigError, DataError
from holdtrue.lineage import records_of, rows_of
from holdtrue.models import target_of, typed
from holdtrue.plan._measured import measured_version, parts_of, rolling_of
from holdtrue.references import Split

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from holdtrue.models import Signature
    from holdtrue.registry import RegisteredVersion
    from holdtrue.store import Store

LOSS = "loss"
"""How wrong an answer was: of classes, minus the logarithm of the probability of the true one; of
numbers, the distance. What a training never saw is no class, and has none."""


def answers_of(
    store: Store,
    version: RegisteredVersion,
    time: str | None,
    *,
    true: str | None = None,
    said: str | None = None,
) -> pd.DataFrame:
    """The test rows of a version with what its evaluation had it answer.

    They are answered by the fit that was evaluated, which has learnt none of them; with
    `evaluate.rolling` each by that of its part.

    Args:
        store: Of the project.
        version: Which one.
        time: Column with the times of the rows, if there is one.
        true: Only rows of this class.
        said: Only rows that were answered with this class: with both, those behind a cell of the
            confusion matrix.

    Returns:
        The rows as they were, with ``prediction``, ``probability_<class>`` (of classes), or
        ``interval_low`` and ``interval_high`` (where declared), and `LOSS`; the most wrong first.

    Raises:
        ConfigError: There are no classes, or there is no such class.
        DataError: The rows are not there any more, or are not what was written.
        ServingError: The model is damaged.
    """
    rows = rows_of(store, version, "test")
    split = Split.model_validate(records_of(store, version)["split"].output)
    measured = measured_version(store, version)
    signature = measured.signature
    parts = parts_of(rolling_of(store, version), split.boundary)
    moments = None if time is None or split.boundary is None else rows.get(time)
    scores = measured.predict(typed(rows, signature), measured.which(moments, len(rows), parts))
    columns = answer_columns(signature.classes, measured.newest.answering, scores)
    taken = [name for name in (*columns, LOSS) if name in rows]
    if taken:
        message = f"the test rows have a column {taken[0]}, which is the name of an answer's"
        raise DataError(message, hint="rename it in the source, and train again")
    answered = rows.assign(**columns, **{LOSS: _loss(rows, signature, scores)})
    for column, wanted in ((signature.target, true), (PREDICTION, said)):
        if wanted is not None:
            _require(wanted, rows[signature.target], signature.classes)
            answered = answered[answered[column].astype(str) == wanted]
    return answered.sort_values(LOSS, ascending=False, kind="stable", na_position="first")


def _loss(rows: pd.DataFrame, signature: Signature, scores: np.ndarray) -> np.ndarray:
    truth = target_of(rows, signature)
    if signature.classes is None:
        distance: np.ndarray = np.abs(truth - scores)
        return distance
    chosen = scores[np.arange(len(truth)), np.maximum(truth, 0)]
    with np.errstate(divide="ignore"):
        loss: np.ndarray = np.where(truth < 0, np.nan, np.abs(np.log(chosen)))
    return loss


def _require(wanted: str, truth: pd.Series[Any], classes: Sequence[str] | None) -> None:
    if classes is None:
        message = f"numbers are predicted: there is no class {wanted}"
        raise ConfigError(message, hint="leave out --true and --answered")
    # The model may not know all of them.
    known = sorted({*classes, *truth.astype(str)})
    if wanted not in known:
        message = f"there is no class {wanted}"
        raise ConfigError(message, hint=f"classes: {', '.join(known)}")
