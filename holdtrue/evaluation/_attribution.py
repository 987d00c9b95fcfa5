"""What makes up a model's scores, and whether that is still what it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.errors import ValueProblem
from holdtrue.references import Attribution, ColumnAttribution

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdtrue.evaluation._metrics import Floats
    from holdtrue.models import ServedModel
    from holdtrue.models._explain import Contributions

# What explaining a row takes goes by the splits of the trees: up to half a microsecond for each.
_SPLITS_TO_LEARN, _SPLITS_TO_COMPARE = 40_000_000, 10_000_000
_ROWS_TO_LEARN, _ROWS_TO_COMPARE = 4_000, 2_000
_STRETCHES = 20
_FEWEST_STRETCHES = 5
_STRETCH_ROWS = 200
_NO_MATTER = 0.01
"""Of what all columns together move a score on average, what is no matter."""


def rows_explained(model: ServedModel, *, learn: bool) -> int:
    """How many rows of a model are explained, at most: fewer of large ones, which take longer.

    Args:
        model: A compiled one.
        learn: Whether to learn from them, or to compare a window with what was learnt.

    Returns:
        0 where nothing could be learnt from so few.

    Raises:
        ServingError: The model is of a kind that is not explained.
    """
    most, splits, fewest = _ROWS_TO_COMPARE, _SPLITS_TO_COMPARE, 0
    if learn:
        most, splits = _ROWS_TO_LEARN, _SPLITS_TO_LEARN
        fewest = _FEWEST_STRETCHES * _STRETCH_ROWS
    wanted = min(most, splits // max(1, model.explained_splits))
    return wanted if wanted >= fewest else 0


def explained(model: ServedModel, columns: Mapping[str, Any], n_rows: int) -> Contributions:
    """The Shapley values of rows; those that the model does not take are left out.

    Args:
        model: A compiled one.
        columns: As for `ServedModel.encode_columns`.
        n_rows: How many values each has.

    Raises:
        ServingError: The model is of a kind that is not explained.
    """
    from holdtrue.models.compiled._columns import some_of

    try:
        return model.contributions(model.encode_columns(columns, n_rows))
    except ValueProblem:
        wrong = {problem.row for problem in model.problems(columns, n_rows)}
        good = [row for row in range(n_rows) if row not in wrong]
        kept = {name: some_of(values, good) for name, values in columns.items()}
        return model.contributions(model.encode_columns(kept, len(good)))


def learn_attribution(found: Contributions) -> Attribution | None:
    """Learn on the test rows what makes up the scores, and how much that varies by itself.

    The rows are cut into 20 stretches, fewer of less than 4,000 rows; where they are in order of
    time, what days do is in the differences between them.

    Args:
        found: Of the test rows, in their order.

    Returns:
        None for fewer than 1,000 rows (5 stretches of 200), as of a model with more than 40,000
        splits, and where nothing moves any score.

    References:
        Lundberg and Lee (2017), A unified approach to interpreting model predictions: the values
        of a row add up to its score, so their means add up to the mean score.
    """
    values = found.values
    n_stretches = min(_STRETCHES, len(values) // _STRETCH_ROWS)
    if n_stretches < _FEWEST_STRETCHES or not values.any():
        return None
    means, share = values.mean(axis=0), shares(values)
    apart = np.array([p.mean(axis=0) for p in np.array_split(values, n_stretches)]) - means
    spreads = np.maximum(apart.std(axis=0), _NO_MATTER * np.abs(values).mean(axis=0).sum(axis=0))
    order = np.argsort(-share, kind="stable")
    return Attribution(
        unit=found.unit,
        outputs=found.outputs,
        scores=tuple(found.scores.mean(axis=0).tolist()),
        columns={
            found.columns[i]: ColumnAttribution(
                means=tuple(means[i].tolist()),
                spreads=tuple(spreads[i].tolist()),
                share=float(share[i]),
            )
            for i in order
        },
        limit=float(np.max(np.abs(apart) / spreads)),
        stretches=n_stretches,
    )


def shares(values: Floats) -> Floats:
    """The share that each column has in what moves scores, in either direction.

    Args:
        values: Shape (n_rows, n_columns, n_outputs): Shapley values; one row at least.

    Returns:
        Shape (n_columns,), of sum 1; all 0 where nothing moves any score.
    """
    moved = np.abs(values).mean(axis=(0, 2))
    whole = moved.sum()
    found: Floats = moved / whole if whole > 0 else np.zeros(len(moved))
    return found


def evenly(n_rows: int, wanted: int) -> slice:
    """Every so many-th of some rows, so that at most `wanted` are taken."""
    return slice(None, None, max(1, -(-n_rows // wanted)))
