"""The values of a column of times, as rows that reach splits are made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.models.compiled._axes import NumberAxis
from holdtrue.models.compiled._encode import Number
from holdtrue.times import (
    DAY,
    FIRST,
    HOUR,
    LAST,
    PARTS,
    count_of,
    part,
    parts_of,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from holdtrue.models.compiled._encode import Moment, Part
    from holdtrue.models.compiled._trees import Trees

    Bits = tuple[int, ...]
    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

_REPEATED = PARTS[1:]
_VALUES = (range(1, 13), range(1, 32), range(7), range(24))
"""Of month, day, weekday and hour."""
_HOURS = _REPEATED.index("hour")
_FEW_DAYS = 64


@dataclass(frozen=True)
class Held:
    """The moments that get to a node of a tree."""

    low: int
    high: int
    allowed: Bits
    """Values of month, day, weekday and hour, as the bits of whole numbers."""
    null: bool
    """Whether the missing one does, too."""
    witness: int | None = None
    """One of them; None where there is none."""


@dataclass(frozen=True)
class Split:
    """A split by one of a moment's parts."""

    number: int
    """Of the part among `PARTS`."""
    near: tuple[int, ...]
    """Of days: moments around the threshold. Of the others: values from the threshold on, first
    those that go left."""
    turn: int
    """Of days: the first moment that goes right. Of the others: bits of the values that go left."""
    null_left: bool


class _DaysAxis(NumberAxis):
    """Moments in their order; what they are encoded as never decreases."""

    def __init__(self, column: Part, *, single: bool) -> None:
        self._part = column
        # In place of a number, whose range is another.
        number = Number(column.part, "integer", 0, column.missing, column.mean, column.scale)
        super().__init__(number, single=single)

    def _ends(self) -> tuple[int, int]:
        return FIRST, LAST

    def _values(self, places: Ints) -> Floats:
        return part(places, "days")


class MomentAxis:
    """The values of a column of times. Its parts depend on each other: a moment has all of them.

    Args:
        column: How the column is encoded.
        single: Whether encoded values are rounded to single precision.
    """

    def __init__(self, column: Moment, *, single: bool) -> None:
        self.column = column
        self._single = single
        every = tuple(sum(1 << value for value in values) for values in _VALUES)
        self.all = Held(FIRST, LAST, every, null=True, witness=0)

    def splits(self, trees: Trees, nodes: Ints, place: int) -> Iterator[tuple[int, Split]]:
        """What is to be known of splits.

        Args:
            trees: Which they are of.
            nodes: Their numbers, shape (n,).
            place: Of the matrix, that they ask for.
        """
        encoded = self.column.parts[place - self.column.at]
        number = PARTS.index(encoded.part)
        null = np.array([encoded.missing])
        if number == 0:
            axis = _DaysAxis(encoded, single=self._single)
            thresholds = trees.threshold[nodes]
            around, turns = axis.around(thresholds), axis.turn(thresholds, strict=trees.strict)
            for node, near, turn in zip(
                nodes.tolist(), around.tolist(), turns.tolist(), strict=True
            ):
                yield (
                    node,
                    Split(0, tuple(near), turn, null_left=bool(trees.goes_left(null, node)[0])),
                )
            return
        values = np.array(_VALUES[number - 1], np.float64)
        for node in nodes.tolist():
            left = trees.goes_left(encoded.encoded(values), node)
            lefts, rights = values[left].astype(int).tolist(), values[~left].astype(int).tolist()
            bits = sum(1 << value for value in lefts)
            near = (*reversed(lefts), *rights)
            yield node, Split(number, near, bits, bool(trees.goes_left(null, node)[0]))

    def at(self, split: Split, held: Held) -> tuple[list[Any], tuple[Held | None, Held | None]]:
        """Values on both sides of a split, and what gets to the nodes below.

        Args:
            split: Which.
            held: What gets to it.
        """
        if split.number == 0:
            left = replace(held, high=min(held.high, split.turn - 1))
            right = replace(held, low=max(held.low, split.turn))
            left, right = _found(left, last=True), _found(right)
            near = [count for count in split.near if _has(held, count)]
        else:
            left, right = (self._side(split, held, on_left=side) for side in (True, False))
            near = []
        near += [side.witness for side in (left, right) if side.witness is not None]
        values: list[Any] = [text_of(count) for count in dict.fromkeys(near)]
        if held.null:
            values.append(None)
        sides = (
            replace(left, null=held.null and split.null_left),
            replace(right, null=held.null and not split.null_left),
        )
        return values, (_possible(sides[0]), _possible(sides[1]))

    def _side(self, split: Split, held: Held, *, on_left: bool) -> Held:
        """One side of a split by a part that is repeated; its witness is nearest to the other."""
        at = split.number - 1
        bits = held.allowed[at] & (split.turn if on_left else ~split.turn)
        side = _with_bits(held, at, bits)
        for value in split.near:
            if bits >> value & 1:
                found = _found(_with_bits(held, at, 1 << value))
                if found.witness is not None:
                    return replace(side, witness=found.witness)
        return replace(side, witness=None)

    def place(self, value: Any) -> int | None:
        """The count of a value; None for a null."""
        return None if value is None else count_of(value)

    def inside(self, own: int | None, held: Held) -> Any:
        """A value that gets to a node: the own one where it does."""
        if own is None and held.null:
            return None
        if own is not None and _has(held, own):
            return text_of(own)
        return None if held.witness is None else text_of(held.witness)


def _possible(held: Held) -> Held | None:
    return None if held.witness is None and not held.null else held


def _with_bits(held: Held, at: int, bits: int) -> Held:
    return replace(held, allowed=(*held.allowed[:at], bits, *held.allowed[at + 1 :]))


def _has(held: Held, count: int) -> bool:
    if not held.low <= count <= held.high:
        return False
    repeated = parts_of(count)[1:]
    return all(bits >> value & 1 for bits, value in zip(held.allowed, repeated, strict=True))


def _found(held: Held, *, last: bool = False) -> Held:
    """With the first, or the last, of its moments as witness."""
    if held.low > held.high or not all(held.allowed):
        return replace(held, witness=None)
    for day in _days(held.low // DAY, held.high // DAY, held.allowed[:_HOURS], last=last):
        hours = [hour for hour in _VALUES[_HOURS] if held.allowed[_HOURS] >> hour & 1]
        for hour in reversed(hours) if last else hours:
            start = max(held.low, day * DAY + hour * HOUR)
            end = min(held.high, day * DAY + (hour + 1) * HOUR - 1)
            if start <= end:
                return replace(held, witness=end if last else start)
    return replace(held, witness=None)


def _days(low: int, high: int, allowed: Bits, *, last: bool) -> Iterator[int]:
    """The days from low to high with an allowed month, day and weekday; in order, or the reverse.

    Some at a time, and then more: mostly one of the first is what is wanted.
    """
    first, table = _calendar()
    wanted = [_chosen(bits) for bits in allowed]
    step = _FEW_DAYS
    while low <= high:
        start, end = (max(low, high - step + 1), high) if last else (low, min(high, low + step - 1))
        fits = np.ones(end - start + 1, np.bool_)
        for column, chosen in zip(table, wanted, strict=True):
            fits &= chosen[column[start - first : end - first + 1]]
        days = (np.flatnonzero(fits) + start).tolist()
        yield from reversed(days) if last else days
        low, high, step = (low, start - 1, step * 8) if last else (end + 1, high, step * 8)


@cache
def _calendar() -> tuple[int, tuple[npt.NDArray[np.uint8], ...]]:
    """The first of all days, and of each day the month, day and weekday."""
    days = np.arange(FIRST // DAY, LAST // DAY + 1, dtype=np.int64)
    return int(days[0]), tuple(part(days * DAY, n).astype(np.uint8) for n in _REPEATED[:_HOURS])


@cache
def _chosen(bits: int) -> npt.NDArray[np.bool_]:
    return np.array([bool(bits >> value & 1) for value in range(32)])
