"""Rows that reach the splits of trees, one side and the other, in the units of the raw columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdtrue.models.compiled._encode import Category, Number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from holdtrue.models.compiled._compiled import Compiled
    from holdtrue.models.compiled._trees import Trees

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

_EXACT = 2**53
"""Whole numbers up to here are floating-point numbers."""
UNSEEN = "\x00never seen"


@dataclass
class Reached:
    """What became of the splits; filled in while rows are made."""

    splits: int = 0
    unreachable: int = 0
    """Splits that no row gets to: what leads there contradicts itself."""
    one_sided: int = 0
    """Splits whose rows all go the same way."""


class NumberAxis:
    """The values of a number's column in their order, as whole numbers without gaps.

    Args:
        column: How the column is encoded.
        single: Whether encoded values are rounded to single precision.
    """

    def __init__(self, column: Number, *, single: bool) -> None:
        self.column = column
        self._dtype: type[np.float32 | np.float64] = np.float32 if single else np.float64
        if column.kind == "boolean":
            self.low, self.high = 0, 1
        elif column.kind == "integer":
            self.low, self.high = -_EXACT, _EXACT
        else:
            ends = _ordered(np.array([-np.finfo(np.float64).max, np.finfo(np.float64).max]))
            self.low, self.high = int(ends[0]), int(ends[1])
        # What is too large to be encoded is no row.
        largest = float(np.finfo(self._dtype).max)
        first = self.first(np.array([-largest, np.inf]))
        self.low, self.high = int(first[0]), int(first[1]) - 1

    def first(self, encoded: Floats) -> Ints:
        """Place of the first value that is encoded as that or more; high + 1 where none is."""
        low = np.full(encoded.shape, self.low, np.int64)
        high = np.full(encoded.shape, self.high + 1, np.int64)
        while (low < high).any():
            middle = (low >> 1) + (high >> 1) + (low & high & 1)
            enough = self.encoded(middle) >= encoded
            high = np.where(enough & (low < high), middle, high)
            low = np.where(~enough & (low < high), middle + 1, low)
        return low

    def encoded(self, places: Ints) -> Floats:
        """What the values at these places are encoded as."""
        values = _floats(places) if self.column.kind == "number" else places.astype(np.float64)
        with np.errstate(over="ignore"):
            return self.column.encoded(values).astype(self._dtype).astype(np.float64)

    def around(self, thresholds: Floats) -> Ints:
        """Places at and around thresholds, shape (n, 6).

        The first and the last value that is encoded as the threshold's neighbour below, as the
        threshold, and as its neighbour above.
        """
        up: npt.NDArray[Any] = np.array(np.inf, self._dtype)
        with np.errstate(over="ignore"):
            middle = thresholds.astype(self._dtype)
            below, above = np.nextafter(middle, -up), np.nextafter(middle, up)
            edges = [below, middle, above, np.nextafter(above, up)]
        first = np.stack([self.first(edge.astype(np.float64)) for edge in edges], axis=1)
        return np.stack(
            [
                first[:, 0],
                first[:, 1] - 1,
                first[:, 1],
                first[:, 2] - 1,
                first[:, 2],
                first[:, 3] - 1,
            ],
            axis=1,
        )

    def turn(self, thresholds: Floats, *, strict: bool) -> Ints:
        """Place of the first value that goes right."""
        if strict:
            return self.first(thresholds)
        up: npt.NDArray[Any] = np.array(np.inf, self._dtype)
        with np.errstate(over="ignore"):
            near: npt.NDArray[Any] = thresholds.astype(self._dtype)
            beyond = np.where(near > thresholds, near, np.nextafter(near, up)).astype(np.float64)
        return np.where(np.isposinf(thresholds), self.high + 1, self.first(beyond))

    def place(self, value: Any) -> int | None:
        """Place of a value; None for a null."""
        if value is None:
            return None
        if self.column.kind == "number":
            return int(_ordered(np.array([float(value)]))[0])
        return int(value)

    def value(self, place: int) -> Any:
        """The value at a place."""
        if self.column.kind == "boolean":
            return bool(place)
        if self.column.kind == "integer":
            return place
        return float(_floats(np.array([place], np.int64))[0])


class CategoryAxis:
    """The categories of a column; a set of them is the bits of a whole number.

    Args:
        column: How the column is encoded.
    """

    def __init__(self, column: Category) -> None:
        self.column = column
        self.known = column.codes
        self.values = {code: value for value, code in self.known.items() if value is not None}
        if None in self.known:
            self.values[self.known[None]] = None
        self.unknown = len(column.texts)
        unseen = unseen_values(column)
        if unseen:
            self.values[self.unknown] = unseen[0]
        self.all = sum(1 << code for code in self.values)

    def at(self, place: int) -> Floats:
        """What each category, and last the unknown one, writes to a place of the matrix."""
        found = np.zeros(self.unknown + 1)
        for code, (start, values) in enumerate(
            zip(self.column.starts, self.column.values, strict=True)
        ):
            if 0 <= place - start < len(values):
                found[code] = values[place - start]
        return found


def unseen_values(column: Category) -> list[Any]:
    """Acceptable values that are no known category; none where all are known."""
    known = column.codes
    candidates: list[Any] = [None]
    if column.kind in ("string", "time"):
        candidates = [UNSEEN, None]
    elif column.kind == "boolean":
        candidates = [True, False, None]
    else:
        numbers = [value for value in known if value is not None]
        largest = max(numbers, default=0)
        candidates = [int(largest) + 1 if column.kind == "integer" else float(largest) + 1.5, None]
    return [value for value in candidates if value not in known]


@dataclass
class _Rows:
    """Rows to be: a row of the sample, and what is put in its place."""

    base: list[int] = field(default_factory=list)
    changes: dict[str, tuple[list[int], list[Any]]] = field(default_factory=dict)

    def change(self, row: int, name: str, value: Any) -> None:
        rows, values = self.changes.setdefault(name, ([], []))
        rows.append(row)
        values.append(value)

    def columns(self, sample: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for name, given in sample.items():
            column = [given[row] for row in self.base]
            for row, value in zip(*self.changes.get(name, ((), ())), strict=True):
                column[row] = value
            found[name] = column
        return found


Span = tuple[int, int, bool]
"""Of a number: first and last place, and whether it may be null."""


class Walk:
    """Goes through all trees and makes rows for every split.

    Args:
        compiled: The model; its trees must be known.
        trees: Those that are walked.
        sample: Real rows by column name; they give the columns that do not matter.
        n_rows: How many, at least one.
    """

    def __init__(
        self, compiled: Compiled, trees: Trees, sample: Mapping[str, Sequence[Any]], n_rows: int
    ) -> None:
        self.reached = Reached(splits=trees.n_splits)
        self._trees = trees
        self._sample = sample
        self._n_rows = n_rows
        self._axes: dict[str, NumberAxis | CategoryAxis] = {}
        self._names: dict[int, str] = {}
        self._base: dict[str, list[int | None]] = {}
        for column in compiled.encoder.columns:
            axis: NumberAxis | CategoryAxis
            if isinstance(column, Number):
                axis = NumberAxis(column, single=trees.single_inputs)
                self._base[column.name] = [axis.place(value) for value in sample[column.name]]
            else:
                axis = CategoryAxis(column)
                known = axis.known
                self._base[column.name] = [
                    known.get(value, axis.unknown) for value in sample[column.name]
                ]
            self._axes[column.name] = axis
            for place in range(column.at, column.at + column.width):
                self._names[place] = column.name
        self._around: dict[int, tuple[int, ...]] = {}
        self._turn: dict[int, int] = {}
        self._null_left: dict[int, bool] = {}
        self._sides: dict[int, tuple[int, list[int], list[int]]] = {}
        self._prepare()

    def _prepare(self) -> None:
        """For every split: what lies around its threshold, or which categories go left."""
        trees = self._trees
        for place, name in self._names.items():
            nodes = np.flatnonzero(trees.feature == place)
            if not nodes.size:
                continue
            axis = self._axes[name]
            if isinstance(axis, NumberAxis):
                thresholds = trees.threshold[nodes]
                around, turns = axis.around(thresholds), axis.turn(thresholds, strict=trees.strict)
                null = np.array([axis.column.missing])
                for node, near, turn in zip(
                    nodes.tolist(), around.tolist(), turns.tolist(), strict=True
                ):
                    self._around[node] = tuple(dict.fromkeys(near))
                    self._turn[node] = turn
                    self._null_left[node] = bool(trees.goes_left(null, node)[0])
            else:
                self._prepare_categories(axis, place, nodes)

    def _prepare_categories(self, axis: CategoryAxis, place: int, nodes: Ints) -> None:
        written = axis.at(place)
        order = [
            code for code in np.argsort(written, kind="stable").tolist() if code in axis.values
        ]
        seen: dict[float, tuple[int, list[int], list[int]]] = {}
        for node in nodes.tolist():
            threshold = float(self._trees.threshold[node])
            if threshold not in seen:
                left = self._trees.goes_left(written, node)
                nearest_left = [code for code in reversed(order) if left[code]]
                nearest_right = [code for code in order if not left[code]]
                mask = sum(1 << code for code in nearest_left)
                seen[threshold] = (mask, nearest_left, nearest_right)
            self._sides[node] = seen[threshold]

    def batches(self, n_rows: int) -> Iterator[dict[str, list[Any]]]:
        """Rows as columns, about `n_rows` at a time."""
        rows = _Rows()
        for root in self._trees.roots.tolist():
            stack: list[tuple[int, dict[str, Any] | None]] = [(root, {})]
            while stack:
                node, state = stack.pop()
                if self._trees.feature[node] < 0:
                    continue
                left, right = int(self._trees.left[node]), int(self._trees.right[node])
                if state is None:
                    self.reached.unreachable += 1
                    stack += [(left, None), (right, None)]
                    continue
                name = self._names[int(self._trees.feature[node])]
                axis = self._axes[name]
                sides: tuple[Any, Any]
                if isinstance(axis, NumberAxis):
                    values, sides = self._at_number(axis, node, state.get(name))
                else:
                    values, sides = self._at_category(axis, node, state.get(name, axis.all))
                self._add(rows, node, name, values, state)
                children = [None if side is None else {**state, name: side} for side in sides]
                self.reached.one_sided += None in children
                stack += [(left, children[0]), (right, children[1])]
                if len(rows.base) >= n_rows:
                    yield rows.columns(self._sample)
                    rows = _Rows()
        if rows.base:
            yield rows.columns(self._sample)

    def _at_number(
        self, axis: NumberAxis, node: int, span: Span | None
    ) -> tuple[list[Any], tuple[Span | None, Span | None]]:
        low, high, null = span or (axis.low, axis.high, True)
        places = [place for place in self._around[node] if low <= place <= high]
        if not places and low <= high:
            places = [low] if low == high else [low, high]
        values = [axis.value(place) for place in places]
        if null:
            values.append(None)
        turn, null_left = self._turn[node], self._null_left[node]
        left = (low, min(high, turn - 1), null and null_left)
        right = (max(low, turn), high, null and not null_left)
        return values, (_possible(left), _possible(right))

    def _at_category(
        self, axis: CategoryAxis, node: int, state: int
    ) -> tuple[list[Any], tuple[int | None, int | None]]:
        mask, nearest_left, nearest_right = self._sides[node]
        values = []
        for nearest in (nearest_left, nearest_right):
            code = next((code for code in nearest if state >> code & 1), None)
            if code is not None:
                values.append(axis.values[code])
        return values, (state & mask or None, state & ~mask or None)

    def _add(
        self, rows: _Rows, node: int, name: str, values: Sequence[Any], state: Mapping[str, Any]
    ) -> None:
        base = node % self._n_rows
        kept = [
            (other, self._inside(other, base, node, held))
            for other, held in state.items()
            if other != name
        ]
        for value in values:
            row = len(rows.base)
            rows.base.append(base)
            rows.change(row, name, value)
            for other, inside in kept:
                rows.change(row, other, inside)

    def _inside(self, name: str, base: int, node: int, held: Any) -> Any:
        """A value that is allowed: the sample's own, else one at an end."""
        axis, own = self._axes[name], self._base[name][base]
        if isinstance(axis, CategoryAxis):
            code = own if own is not None and held >> own & 1 else (held & -held).bit_length() - 1
            return axis.values[code]
        low, high, null = held
        if own is None and null:
            return None
        if own is not None and low <= own <= high:
            return self._sample[name][base]
        if low > high:
            return None
        # In turn the ends that are thresholds of the splits above.
        ends = [end for end, free in ((low, axis.low), (high, axis.high)) if end != free]
        return axis.value(ends[node % len(ends)] if ends else low)


def _possible(span: Span) -> Span | None:
    return span if span[0] <= span[1] or span[2] else None


def _ordered(values: Floats) -> Ints:
    """Number floating-point numbers in their order, without gaps: 0.0 is 0."""
    bits = values.astype(np.float64).view(np.int64)
    return np.where(bits < 0, np.int64(-(2**63)) - bits, bits)


def _floats(places: Ints) -> Floats:
    """The inverse of `_ordered`."""
    return np.where(places < 0, np.int64(-(2**63)) - places, places).view(np.float64)
