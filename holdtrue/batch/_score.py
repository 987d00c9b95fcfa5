"""Rows to answers, a bounded number at a time; what is not acceptable is set aside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdtrue.errors import DataError, ValueProblem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from holdtrue.models._served import Rows, ServedModel
    from holdtrue.models._signature import Signature

# Encoded at a time: with 100 columns 50 MB.
_SLICE_ROWS = 65_536


@dataclass(frozen=True)
class Reject:
    """A value, or a row as a whole, that is not acceptable."""

    row: int
    """Number of the row, from 0."""
    column: str | None
    """None where the row as a whole is not acceptable."""
    reason: str


@dataclass(frozen=True)
class Answers:
    """What a model says to rows."""

    columns: dict[str, npt.NDArray[Any]]
    """By name of the new column, a value for each row that was scored."""
    kept: npt.NDArray[np.bool_]
    """shape (n_rows,): which rows were scored."""
    rejects: tuple[Reject, ...]
    """Why the others were not, in the order of the rows."""
    unknown: dict[str, int]
    """By column, how many of its values are no category that the model knows."""


def score(bundle: Path, digest: str, rows: pd.DataFrame, *, explain: bool = False) -> pd.DataFrame:
    """Score a table with a bundle, by the numbers that its endpoint answers.

    Args:
        bundle: Folder of the bundle.
        digest: Digest of its manifest.
        rows: shape (n_rows, any): with at least the feature columns.
        explain: Whether to say, too, how much each column adds to the score.

    Returns:
        The rows with ``prediction`` and, for classification, ``probability_<class>``; where an
        interval is declared, with ``interval_low`` and ``interval_high``; where explained, with
        ``why_<column>``.

    Raises:
        DataError: There are no rows, a feature column is missing or of the wrong kind, or a value
            is not acceptable.
        ServingError: The bundle is damaged, or of a kind that is not explained.
    """
    from holdtrue.models._served import ServedModel

    if rows.empty:
        message = "there are no rows to score"
        raise DataError(message)
    model = ServedModel.load(bundle, digest)
    found = answer(model, features_of(rows, model.signature, "the rows"), len(rows), explain)
    if found.rejects:
        first = found.rejects[0]
        message = f"row {first.row}, column {first.column}: {first.reason}"
        raise DataError(message, hint="leave the row out, or `holdtrue predict` it from a file")
    result = rows.reset_index(drop=True).copy()
    for name, values in found.columns.items():
        result[name] = values
    return result


def answer(
    model: ServedModel, columns: Mapping[str, Any], n_rows: int, explain: bool = False
) -> Answers:
    """Score columns, slice by slice.

    Args:
        model: Which.
        columns: Values by feature column: Arrow arrays in the types of snapshots, or lists.
        n_rows: How many each has.
        explain: Whether contributions are added.

    Raises:
        ServingError: The model is of a kind that is not explained.
    """
    kept = np.ones(n_rows, dtype=bool)
    parts: list[dict[str, npt.NDArray[Any]]] = []
    rejects: list[Reject] = []
    unknown: dict[str, int] = {}
    for start in range(0, n_rows, _SLICE_ROWS):
        stop = min(start + _SLICE_ROWS, n_rows)
        part = {name: values_of(values[start:stop]) for name, values in columns.items()}
        encoded, bad = _encoded(model, part, stop - start)
        for problem in bad:
            reason = f"expected {problem.expected}, got {problem.found}"
            rejects.append(Reject(start + problem.row, problem.column, reason))
            kept[start + problem.row] = False
        if encoded is None:
            continue
        for name, count in encoded.unknown.items():
            unknown[name] = unknown.get(name, 0) + count
        scores = model.predict(encoded)
        parts.append(answer_columns(model, scores))
        if explain:
            parts[-1] |= _why(model, encoded, scores)
    names = parts[0] if parts else {}
    joined = {name: np.concatenate([part[name] for part in parts]) for name in names}
    return Answers(joined, kept, tuple(rejects), unknown)


def _why(model: ServedModel, encoded: Rows, scores: npt.NDArray[np.float64]) -> dict[str, Any]:
    from holdtrue.models._explain import why_columns

    decided = None if model.signature.classes is None else model.answering.decide(scores)
    return {**why_columns(model.contributions(encoded), decided)}


def _encoded(
    model: ServedModel, columns: dict[str, Any], n_rows: int
) -> tuple[Rows | None, list[ValueProblem]]:
    """Encode the acceptable rows; None where there are none."""
    try:
        return model.encode_columns(columns, n_rows), []
    except ValueProblem:
        bad = model.problems(columns, n_rows)
    rows = np.setdiff1d(np.arange(n_rows), [problem.row for problem in bad])
    if not len(rows):
        return None, bad
    left = {name: _taken(values, rows) for name, values in columns.items()}
    return model.encode_columns(left, len(rows)), bad


def _taken(values: Any, rows: npt.NDArray[np.int64]) -> Any:
    if isinstance(values, np.ndarray):
        return values[rows]
    return [values[row] for row in rows]


def answer_columns(model: ServedModel, scores: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Scores as the columns of a table.

    Args:
        model: Which has scored.
        scores: shape (n_rows, n_classes), or (n_rows,) for regression; calibrated.

    Returns:
        ``prediction``, then ``probability_<class>``, or ``interval_low`` and ``interval_high``
        where an interval is declared.
    """
    classes = model.signature.classes
    if classes is not None:
        decided = np.asarray(classes, dtype=object)[model.answering.decide(scores)]
        named = {f"probability_{name}": scores[:, at] for at, name in enumerate(classes)}
        return {"prediction": decided, **named}
    ends = model.answering.intervals(scores)
    if ends is None:
        return {"prediction": scores}
    return {"prediction": scores, "interval_low": ends[:, 0], "interval_high": ends[:, 1]}


def features_of(rows: Any, signature: Signature, name: str) -> dict[str, Any]:
    """The feature columns of a table, as `answer` takes them.

    Args:
        rows: A DataFrame or Arrow table.
        signature: Which columns are wanted.
        name: What the table is, for messages.

    Raises:
        DataError: A column is missing, or holds values of another kind.
    """
    import pyarrow as pa

    from holdtrue.data import as_table, kinds_compatible, require_columns

    names = rows.column_names if isinstance(rows, pa.Table) else [*rows.columns]
    require_columns(names, dict.fromkeys(signature.columns, "feature"), name)
    wanted = [*signature.columns]
    table = as_table(rows.select(wanted) if isinstance(rows, pa.Table) else rows[wanted], name)
    kinds_compatible(table, signature.columns)
    return {column: table[column] for column in wanted}


def values_of(column: Any) -> Any:
    """A column as models take it: numbers as an array, masked where null, the rest as a list."""
    if isinstance(column, list):
        return column
    import pyarrow as pa
    import pyarrow.compute as pc

    types = pa.types
    if types.is_timestamp(column.type):
        import pandas as pd

        texts = column.to_pandas().astype(object)
        return [None if pd.isna(value) else str(value) for value in texts]
    if types.is_integer(column.type) or types.is_floating(column.type):
        plain = column.to_numpy() if column.null_count == 0 else None
        if plain is not None:
            return plain
        mask = pc.is_null(column).to_numpy()
        return np.ma.array(pc.fill_null(column, 0).to_numpy(), mask=mask)
    return column.to_pylist()
