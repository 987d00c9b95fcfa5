"""Whether a compiled model answers as the pipeline does."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdtrue.errors import ValueProblem
from holdtrue.models.compiled._axes import unseen_values
from holdtrue.models.compiled._compiled import NEVER, SWITCH_ROWS, Compiled
from holdtrue.models.compiled._encode import Category, Moment, Number
from holdtrue.models.compiled._paths import Walk
from holdtrue.times import DAY, FIRST, HOUR, LAST, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from holdtrue.models.compiled._compiled import Engine

    Floats = npt.NDArray[np.float64]
    Columns = Mapping[str, Sequence[Any]]

TOLERANCE = 1e-6
"""Largest difference of an answer: of a probability as it is, of a value relative to its size."""
_BATCH_ROWS = 10_000
_BASE_ROWS = 500
_ALONE_ROWS = 200
# Of each engine and number of rows: a moment in which the machine is busy must not decide.
_REPEATS = 9
_LARGE = 1e6
"""In standard deviations, or beyond the largest threshold: as far out as is tried."""


@dataclass(frozen=True)
class Proof:
    """What a comparison of a compiled model with its pipeline found."""

    rows: int
    """Rows that were compared."""
    alone: int
    """Those of them that were also answered one by one."""
    splits: int
    """Splits of all trees."""
    split_rows: int
    """Rows at thresholds and their neighbours."""
    unreachable: int
    """Splits that no row gets to: what leads there contradicts itself."""
    max_difference: float
    """Largest difference of two answers; infinite where one is not a number."""
    differences: dict[str, float] = field(default_factory=dict)
    """The same by kind of rows."""
    identical: bool = True
    """Whether all ways to compute an answer gave the same bits."""
    refusal: str | None = None
    """What is wrong besides differences, in words."""

    @property
    def holds(self) -> bool:
        """Whether the compiled model may answer."""
        return self.refusal is None and self.max_difference <= TOLERANCE

    @property
    def reason(self) -> str | None:
        """Why it may not, in one sentence; None where it may."""
        if self.refusal is not None:
            return self.refusal
        if self.holds:
            return None
        worst = max(self.differences, key=lambda kind: self.differences[kind])
        return (
            f"its answers differ from the pipeline's by {self.max_difference:.3g} ({worst}), "
            f"more than {TOLERANCE:g}"
        )


def prove(
    compiled: Compiled,
    predict: Callable[[Columns], Floats],
    sample: Columns,
    *,
    calibrated: Callable[[Floats], Floats] | None = None,
) -> Proof:
    """Compare a compiled model, as it is read back from its files, with its pipeline.

    Compared are the sample; of trees, rows at every threshold and its neighbours; rows with a null
    in each column and in all; every category, and unseen ones; numbers far out; times of every
    month, day, weekday and hour, and the first and last there are. Each by every way that answers
    are computed: rows and columns, ONNX Runtime and XGBoost's library, and some of them alone.
    Infinite numbers, NaN and times that are too early or too late must be refused.

    Args:
        compiled: From `compile_pipeline`.
        predict: Scores of the pipeline, without calibration, for columns of JSON's values by name
            (None for null): shape (n_rows, n_classes) or (n_rows,).
        sample: Real rows, as columns of JSON's values; at least one row.
        calibrated: From scores to answers; left out, they are the answers.
    """
    return _Comparison(compiled, predict, calibrated or (lambda scores: scores)).run(sample)


class _Comparison:
    def __init__(
        self,
        compiled: Compiled,
        predict: Callable[[Columns], Floats],
        calibrated: Callable[[Floats], Floats],
    ) -> None:
        self._trees = compiled.trees
        self._served = Compiled.read(compiled.files(), compiled.signature)
        self._predict = predict
        self._calibrated = calibrated
        self._engines: tuple[Engine | None, ...] = self._served.engines or (None,)
        self._differences: dict[str, float] = {}
        self._rows = self._alone = self._split_rows = 0
        self._identical = True
        self._refusal: str | None = None

    def run(self, sample: Columns) -> Proof:
        n_rows = len(next(iter(sample.values())))
        self._refuses_what_is_beyond({name: values[0] for name, values in sample.items()})
        for start in range(0, n_rows, _BATCH_ROWS):
            part = {name: values[start : start + _BATCH_ROWS] for name, values in sample.items()}
            self._compare("sample", part)
        base = {name: list(values[:_BASE_ROWS]) for name, values in sample.items()}
        for kind, columns in _variations(self._served, base):
            self._compare(kind, columns)
        unreachable = 0
        if self._trees is not None:
            walk = Walk(self._served, self._trees, base, min(n_rows, _BASE_ROWS))
            for columns in walk.batches(_BATCH_ROWS):
                self._split_rows += len(next(iter(columns.values())))
                self._compare("splits", columns)
            unreachable = walk.reached.unreachable
        return Proof(
            rows=self._rows,
            alone=self._alone,
            splits=0 if self._trees is None else self._trees.n_splits,
            split_rows=self._split_rows,
            unreachable=unreachable,
            max_difference=max(self._differences.values()),
            differences=self._differences,
            identical=self._identical,
            refusal=self._refusal,
        )

    def _compare(self, kind: str, columns: Columns) -> None:
        n_rows = len(next(iter(columns.values())))
        expected = self._calibrated(self._predict(columns))
        encoded = self._served.encode_columns(columns, n_rows)
        names = list(columns)
        records = [
            dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
        by_row = self._served.encode(records)
        if not np.array_equal(by_row.matrix, encoded.matrix, equal_nan=True):
            self._refusal = "rows and columns with the same values are encoded differently"
        if by_row.unknown != encoded.unknown:
            self._refusal = "unknown categories are counted differently in rows and in columns"
        found = [self._served.scores(encoded.matrix, engine) for engine in self._engines]
        self._identical &= all(np.array_equal(found[0], other) for other in found[1:])
        for scores in found:
            self._note(kind, self._calibrated(scores), expected)
        # Encoded is every row by itself above; that the sums are the same alone, some show.
        step = max(1, n_rows // _ALONE_ROWS)
        for row in range(0, n_rows, step):
            alone = self._served.scores(self._served.encode([records[row]]).matrix)
            self._identical &= np.array_equal(alone[0], found[0][row])
            self._note(kind, self._calibrated(alone), expected[row : row + 1])
            self._alone += 1
        self._rows += n_rows

    def _note(self, kind: str, found: Floats, expected: Floats) -> None:
        size = 1.0 if expected.ndim == 2 else np.maximum(1.0, np.abs(expected))
        difference = np.abs(found - expected) / size
        worst = float(np.max(np.where(np.isfinite(difference), difference, math.inf)))
        self._differences[kind] = max(self._differences.get(kind, 0.0), worst)

    def _refuses_what_is_beyond(self, record: Mapping[str, Any]) -> None:
        for name, kind in self._served.signature.columns.items():
            for value in _REFUSED.get(kind, ()):
                wrong = {**record, name: value}
                if not (self._refused(wrong) and self._refused_columns(wrong)):
                    self._refusal = f"column {name} takes {value}"

    def _refused(self, record: Mapping[str, Any]) -> bool:
        try:
            self._served.encode([record])
        except ValueProblem:
            return True
        return False

    def _refused_columns(self, record: Mapping[str, Any]) -> bool:
        try:
            self._served.encode_columns({name: [value] for name, value in record.items()}, 1)
        except ValueProblem:
            return True
        return False


def _variations(compiled: Compiled, base: Columns) -> Iterator[tuple[str, dict[str, list[Any]]]]:
    """Rows of the sample with one thing changed, by kind."""
    nulls, categories, unseen, far, times = (_Changed(base) for _ in range(5))
    nulls.add(dict.fromkeys(base))
    for column in compiled.encoder.columns:
        nulls.add({column.name: None})
        if isinstance(column, Category):
            for value in column.codes:
                categories.add({column.name: value})
            for value in unseen_values(column):
                unseen.add({column.name: value})
        elif isinstance(column, Moment):
            for count in _TIMES:
                times.add({column.name: text_of(count)})
        else:
            for value in _far(column, single=compiled.single_inputs):
                far.add({column.name: value})
    for kind, changed in (
        ("nulls", nulls),
        ("categories", categories),
        ("unseen categories", unseen),
        ("far numbers", far),
        ("times", times),
    ):
        if changed.n_rows:
            yield kind, changed.columns


_REFUSED: dict[str, tuple[Any, ...]] = dict.fromkeys(
    ("integer", "number"), (math.inf, -math.inf, math.nan)
) | {"time": ("1677-12-31T23:59:59.999999Z", "2262-01-01", "9999-12-31T23:59:59Z", "today", 0)}
# In 400 days and hours is one of every month, day, weekday and hour; 1900 and 2100 have no leap
# day.
_TIMES = (
    *(FIRST, FIRST + HOUR - 1, LAST - DAY, LAST, -DAY, -HOUR - 1, -1, 0, 1, DAY - 1, DAY),
    *(year * DAY + day * DAY for year in (-25_567, 10_957, 47_482) for day in range(57, 61)),
    *(19_700 * DAY + hours * (DAY + HOUR) for hours in range(400)),
)


class _Changed:
    def __init__(self, base: Columns) -> None:
        self._base = base
        self._n_base = len(next(iter(base.values())))
        self.columns: dict[str, list[Any]] = {name: [] for name in base}
        self.n_rows = 0

    def add(self, changes: Mapping[str, Any]) -> None:
        row = self.n_rows % self._n_base
        for name, values in self._base.items():
            self.columns[name].append(changes[name] if name in changes else values[row])
        self.n_rows += 1


def _far(column: Number, *, single: bool) -> list[Any]:
    if column.kind == "boolean":
        return [True, False]
    size = _LARGE * column.scale
    far: list[Any] = [column.mean - size, column.mean + size, 0.0]
    if single and column.scale == 1.0:
        far += [-1e30, 1e30, 1e-45]
    return [math.trunc(value) if column.kind == "integer" else value for value in far]


def break_even(
    compiled: Compiled,
    matrix: Floats,
    *,
    most_rows: int = 1_024,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Measure from how many rows on XGBoost's library is faster than ONNX Runtime.

    Args:
        compiled: Any model.
        matrix: Encoded rows, at least one, as different from each other as in use: the way of a
            row that is repeated through the trees is one that the processor has just learnt.
        most_rows: As many are measured; a power of two.
        clock: Gives seconds.

    Returns:
        The number of rows, a power of two: XGBoost was faster for it, and for all larger ones up
        to `most_rows`. `NEVER` where ONNX Runtime was faster for `most_rows`, or there is no
        XGBoost. Where there were too few rows to find out, the first number that was not measured,
        and at least `SWITCH_ROWS`.
    """
    if "xgboost" not in compiled.engines:
        return NEVER
    largest = most_rows
    while largest > len(matrix):
        largest //= 2
    n_rows = largest
    while n_rows and _xgboost_is_faster(compiled, matrix[:largest], n_rows, clock):
        n_rows //= 2
    if n_rows < largest:
        return max(1, 2 * n_rows)
    return NEVER if largest == most_rows else max(SWITCH_ROWS, 2 * largest)


def _xgboost_is_faster(
    compiled: Compiled, matrix: Floats, n_rows: int, clock: Callable[[], float]
) -> bool:
    taken: dict[Engine, list[float]] = {"onnx": [], "xgboost": []}
    for repeat in range(_REPEATS):
        # Other rows each time, as far as there are; each engine is given the same ones.
        places = range(repeat * n_rows, (repeat + 1) * n_rows)
        part = np.ascontiguousarray(matrix.take(places, axis=0, mode="wrap"))
        for engine, seconds in taken.items():
            start = clock()
            compiled.raw(part, engine)
            seconds.append(clock() - start)
    return median(taken["xgboost"]) < median(taken["onnx"])
