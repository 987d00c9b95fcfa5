"""Rows that reach the splits of trees, one side and the other, in the units of the raw columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdtrue.models.compiled._axes import CategoryAxis, NumberAxis
from holdtrue.models.compiled._encode import Moment, Number
from holdtrue.models.compiled._moments import MomentAxis, Split

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from holdtrue.models.compiled._compiled import Compiled
    from holdtrue.models.compiled._trees import Trees

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]


@dataclass
class Reached:
    """What became of the splits; filled in while rows are made."""

    splits: int = 0
    unreachable: int = 0
    """Splits that no row gets to: what leads there contradicts itself."""
    one_sided: int = 0
    """Splits whose rows all go the same way."""


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
        self._axes: dict[str, NumberAxis | CategoryAxis | MomentAxis] = {}
        self._names: dict[int, str] = {}
        self._base: dict[str, list[int | None]] = {}
        for column in compiled.encoder.columns:
            axis: NumberAxis | CategoryAxis | MomentAxis
            if isinstance(column, Number):
                axis = NumberAxis(column, single=trees.single_inputs)
                self._base[column.name] = [axis.place(value) for value in sample[column.name]]
            elif isinstance(column, Moment):
                axis = MomentAxis(column, single=trees.single_inputs)
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
        self._moments: dict[int, Split] = {}
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
            elif isinstance(axis, MomentAxis):
                self._moments.update(axis.splits(trees, nodes, place))
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
                elif isinstance(axis, MomentAxis):
                    values, sides = axis.at(self._moments[node], state.get(name, axis.all))
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
        if isinstance(axis, MomentAxis):
            return axis.inside(own, held)
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
