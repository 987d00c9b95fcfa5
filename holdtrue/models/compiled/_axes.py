"""The values of a column in the units that rows have, beside what they are encoded as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from holdtrue.models.compiled._encode import Category, Number

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

_EXACT = 2**53
"""Whole numbers up to here are floating-point numbers."""
UNSEEN = "\x00never seen"


class NumberAxis:
    """The values of a number's column in their order, as whole numbers without gaps.

    Args:
        column: How the column is encoded.
        single: Whether encoded values are rounded to single precision.
    """

    def __init__(self, column: Number, *, single: bool) -> None:
        self.column = column
        self._dtype: type[np.float32 | np.float64] = np.float32 if single else np.float64
        self.low, self.high = self._ends()
        # What is too large to be encoded is no row.
        largest = float(np.finfo(self._dtype).max)
        first = self.first(np.array([-largest, np.inf]))
        self.low, self.high = int(first[0]), int(first[1]) - 1

    def _ends(self) -> tuple[int, int]:
        """Places of the smallest and the largest value."""
        if self.column.kind == "boolean":
            return 0, 1
        if self.column.kind == "integer":
            return -_EXACT, _EXACT
        ends = _ordered(np.array([-np.finfo(np.float64).max, np.finfo(np.float64).max]))
        return int(ends[0]), int(ends[1])

    def _values(self, places: Ints) -> Floats:
        return _floats(places) if self.column.kind == "number" else places.astype(np.float64)

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
        with np.errstate(over="ignore"):
            return self.column.encoded(self._values(places)).astype(self._dtype).astype(np.float64)

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
    if column.kind == "string":
        candidates = [UNSEEN, None]
    elif column.kind == "boolean":
        candidates = [True, False, None]
    else:
        numbers = [value for value in known if value is not None]
        largest = max(numbers, default=0)
        candidates = [int(largest) + 1 if column.kind == "integer" else float(largest) + 1.5, None]
    return [value for value in candidates if value not in known]


def _ordered(values: Floats) -> Ints:
    """Number floating-point numbers in their order, without gaps: 0.0 is 0."""
    bits = values.astype(np.float64).view(np.int64)
    return np.where(bits < 0, np.int64(-(2**63)) - bits, bits)


def _floats(places: Ints) -> Floats:
    """The inverse of `_ordered`."""
    return np.where(places < 0, np.int64(-(2**63)) - places, places).view(np.float64)
