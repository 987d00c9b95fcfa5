"""Rows to answers, a bounded number at a time; what is not acceptable is set aside."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdtrue.errors import DataError, HoldtrueError, ServingError, ValueProblem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from holdtrue.models._answering import Answering
    from holdtrue.models._served import Rows, ServedModel
    from holdtrue.models._signature import Signature

# Encoded at a time: with 100 columns 50 MB.
_SLICE_ROWS = 65_536
PREDICTION = "prediction"
"""The column of what is answered."""
_NOT_FINITE = "the model answers it with no finite number"
_MOST_WORDS = 300


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
        The rows with their index, with ``prediction`` and, for classification,
        ``probability_<class>``; where an interval is declared, with ``interval_low`` and
        ``interval_high``; where explained, with ``why_<column>``. What they have under these names
        already is replaced.

    Raises:
        DataError: They are no DataFrame, there are no rows, a feature column is missing or of the
            wrong kind, a value is not acceptable, or the model fails on a row.
        ServingError: The bundle is damaged, or of a kind that is not explained.
    """
    import pandas as pd

    from holdtrue.models._served import ServedModel

    if not isinstance(rows, pd.DataFrame):
        message = f"the rows are {type(rows).__name__}, expected a pandas DataFrame"
        raise DataError(message, hint="pandas.DataFrame(rows) makes one of a list of records")
    if not len(rows):
        message = "there are no rows to score"
        raise DataError(message)
    model = ServedModel.load(bundle, digest)
    found = answer(model, features_of(rows, model.signature, "the rows"), len(rows), explain)
    if found.rejects:
        first = found.rejects[0]
        place = f"row {first.row}" + (f", column {first.column}" if first.column else "")
        message = f"{place}: {first.reason}"
        raise DataError(message, hint="leave the row out, or `holdtrue predict` it from a file")
    result = rows.copy()
    for name, values in found.columns.items():
        result[name] = values
    return result


def answer(
    model: ServedModel, columns: Mapping[str, Any], n_rows: int, explain: bool = False
) -> Answers:
    """Score columns, slice by slice.

    Rows that are not acceptable are set aside, and so are those that the model has no number for,
    or fails on: where a slice fails, its halves are tried.

    Args:
        model: Which.
        columns: Values by feature column: Arrow arrays in the types of snapshots, or lists.
        n_rows: How many each has.
        explain: Whether contributions are added.

    Raises:
        ServingError: The model is of a kind that is not explained, or fails on its own sample.
    """
    scorer = _Scorer(model, explain)
    parts = []
    for start in range(0, n_rows, _SLICE_ROWS):
        stop = min(start + _SLICE_ROWS, n_rows)
        part = {name: values_of(values[start:stop]) for name, values in columns.items()}
        parts.append(scorer.answers(part, stop - start))
    return _joined(parts)


class _Scorer:
    """Scores slices, and tries parts of those that it fails on."""

    def __init__(self, model: ServedModel, explain: bool) -> None:
        self._model = model
        self._explain = explain
        self._proven = False

    def answers(self, columns: dict[str, Any], n_rows: int) -> Answers:
        """Score rows, but for those that are not acceptable or that the model fails on."""
        model = self._model
        try:
            encoded = model.encode_columns(columns, n_rows)
        except ValueProblem:
            bad = model.problems(columns, n_rows)
            if not bad:
                raise
            rejects = [
                Reject(each.row, each.column, f"expected {each.expected}, got {each.found}")
                for each in bad
            ]
            return self._without(rejects, columns, n_rows)
        try:
            scores = model.predict(encoded)
            odd = ~np.isfinite(scores.reshape(n_rows, -1)).all(axis=1)
            if odd.any():  # the endpoint answers 500 to them
                rejects = [Reject(row, None, _NOT_FINITE) for row in np.flatnonzero(odd).tolist()]
                return self._without(rejects, columns, n_rows)
            found = answer_columns(model.signature.classes, model.answering, scores)
            if self._explain:
                found |= _why(model, encoded, scores)
        except (HoldtrueError, MemoryError):
            raise
        except Exception as err:  # noqa: BLE001 - an estimator may raise anything
            self._refuse_broken(err)
            if n_rows == 1:
                reason = f"the model fails on it: {_words(err)}"
                return self._without([Reject(0, None, reason)], columns, n_rows)
            halves = np.array_split(np.arange(n_rows), 2)
            return _joined([self.answers(_taken(columns, half), len(half)) for half in halves])
        return Answers(found, np.ones(n_rows, dtype=bool), (), encoded.unknown)

    def _without(self, rejects: list[Reject], columns: dict[str, Any], n_rows: int) -> Answers:
        """Score the rows that are not rejected."""
        rows = np.setdiff1d(np.arange(n_rows), [reject.row for reject in rejects])
        kept = np.zeros(n_rows, dtype=bool)
        if not len(rows):
            return Answers({}, kept, tuple(rejects), {})
        found = self.answers(_taken(columns, rows), len(rows))
        kept[rows[found.kept]] = True
        more = [replace(reject, row=int(rows[reject.row])) for reject in found.rejects]
        every = sorted([*rejects, *more], key=lambda reject: reject.row)
        return replace(found, kept=kept, rejects=tuple(every))

    def _refuse_broken(self, err: Exception) -> None:
        """Refuse a model that does not answer its own sample either: no row is to blame.

        Raises:
            ServingError: It does not.
        """
        if self._proven:
            return
        try:
            self._model.verify()
        except HoldtrueError:
            raise
        except Exception:  # noqa: BLE001 - as where it was found
            message = f"the model fails: {_words(err)}"
            raise ServingError(message, hint="train again with `holdtrue apply`") from err
        self._proven = True


def _joined(parts: list[Answers]) -> Answers:
    """Answers to rows that follow each other."""
    scored = [part.columns for part in parts if part.columns]
    names = scored[0] if scored else {}
    rejects: list[Reject] = []
    unknown: dict[str, int] = {}
    start = 0
    for part in parts:
        rejects += [replace(reject, row=start + reject.row) for reject in part.rejects]
        start += len(part.kept)
        for name, count in part.unknown.items():
            unknown[name] = unknown.get(name, 0) + count
    return Answers(
        {name: np.concatenate([columns[name] for columns in scored]) for name in names},
        np.concatenate([part.kept for part in parts]) if parts else np.ones(0, dtype=bool),
        tuple(rejects),
        unknown,
    )


def _words(err: Exception) -> str:
    """An exception in one line that is not too long."""
    return f"{type(err).__name__}: {' '.join(str(err).split())}"[:_MOST_WORDS]


def _why(model: ServedModel, encoded: Rows, scores: npt.NDArray[np.float64]) -> dict[str, Any]:
    from holdtrue.models._explain import why_columns

    decided = None if model.signature.classes is None else model.answering.decide(scores)
    return {**why_columns(model.contributions(encoded), decided)}


def _taken(columns: dict[str, Any], rows: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Some rows of columns."""
    return {
        name: values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]
        for name, values in columns.items()
    }


def answer_columns(
    classes: tuple[str, ...] | None, answering: Answering, scores: npt.NDArray[np.float64]
) -> dict[str, Any]:
    """Scores as the columns of a table.

    Args:
        classes: That the model knows; None for regression.
        answering: How it answers.
        scores: shape (n_rows, n_classes), or (n_rows,) for regression; calibrated.

    Returns:
        ``prediction``, then ``probability_<class>``, or ``interval_low`` and ``interval_high``
        where an interval is declared.
    """
    if classes is not None:
        decided = np.asarray(classes, dtype=object)[answering.decide(scores)]
        named = {f"probability_{name}": scores[:, at] for at, name in enumerate(classes)}
        return {PREDICTION: decided, **named}
    ends = answering.intervals(scores)
    if ends is None:
        return {PREDICTION: scores}
    return {PREDICTION: scores, "interval_low": ends[:, 0], "interval_high": ends[:, 1]}


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

    from holdtrue.data import as_table, kinds_compatible, require_features

    names = rows.column_names if isinstance(rows, pa.Table) else [*rows.columns]
    require_features(names, signature.columns, name)
    wanted = [*signature.columns]
    table = as_table(rows.select(wanted) if isinstance(rows, pa.Table) else rows[wanted], name)
    try:
        kinds_compatible(table, signature.columns)
    except DataError as err:
        message = f"{name}: {err.message}"
        raise DataError(message, hint=err.hint) from err
    return {column: table[column] for column in wanted}


def values_of(column: Any) -> Any:
    """A column as models take it: numbers as an array, masked where null, the rest as a list.

    Times are an array of datetime64[us], with NaT where null.
    """
    if isinstance(column, list):
        return column
    import pyarrow as pa
    import pyarrow.compute as pc

    from holdtrue.times import NULL

    types = pa.types
    if types.is_timestamp(column.type):
        counts = pc.fill_null(column.cast(pa.int64()), int(NULL)).to_numpy()
        return np.array(counts, np.int64).view("M8[us]")
    if types.is_integer(column.type) or types.is_floating(column.type):
        plain = column.to_numpy() if column.null_count == 0 else None
        if plain is not None:
            return plain
        mask = pc.is_null(column).to_numpy()
        return np.ma.array(pc.fill_null(column, 0).to_numpy(), mask=mask)
    return column.to_pylist()
