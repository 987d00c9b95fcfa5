"""Records and columns to the matrix that an estimator takes: one table per column."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdtrue.errors import ValueProblem
from holdtrue.models.compiled import _columns
from holdtrue.models.compiled._columns import CLASSES
from holdtrue.models.compiled._rules import EXPECTED, MISSING, checked, key_of, refuse_keys
from holdtrue.times import PARTS, count_of, is_inside, part, parts_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdtrue.models._signature import Signature
    from holdtrue.references import Kind
    from holdtrue.times import Moments

    Floats = npt.NDArray[np.float64]

TOO_LARGE = "a number that is too large"
_Cells = tuple[slice, tuple[float, ...]]


@dataclass(frozen=True)
class Encoded:
    """Rows as an estimator takes them."""

    matrix: Floats
    """shape (n_rows, width)."""
    unknown: dict[str, int]
    """By column, how many of its values are no category that the model knows; without zeros."""

    def __len__(self) -> int:
        return len(self.matrix)


@dataclass(frozen=True)
class Number:
    """A column that is used as a number: (x - mean) / scale."""

    name: str
    kind: Kind
    at: int
    """Its place in the matrix."""
    missing: float
    """What stands for a null, scaled already; NaN where the estimator takes it."""
    mean: float = 0.0
    scale: float = 1.0

    @property
    def width(self) -> int:
        """How many places it has."""
        return 1

    def encoded(self, values: Floats) -> Floats:
        """Scale values, shape (n,), in the order of scikit-learn's operations."""
        with np.errstate(over="ignore", invalid="ignore"):
            scaled: Floats = (values - self.mean) / self.scale
        return scaled


@dataclass(frozen=True)
class Category:
    """A column that is used as categories: each writes its values from its own place on."""

    name: str
    kind: Kind
    at: int
    """First place of the column in the matrix."""
    width: int
    """How many places it has; those that nothing is written to are 0."""
    texts: tuple[str, ...]
    """Names of the known categories."""
    starts: tuple[int, ...]
    """Place of the first value, by category; the last is that of unknown ones."""
    values: tuple[tuple[float, ...], ...]
    """What is written, by category, all of one length; the last is that of unknown ones."""

    @property
    def moves(self) -> bool:
        """Whether each category has a place of its own (one-hot); else all write to the same."""
        return len(self.values[-1]) < self.width

    @property
    def codes(self) -> dict[Any, int]:
        """Number of the category by value; null stands for the missing category."""
        found = {key_of(text, self.kind): code for code, text in enumerate(self.texts)}
        found.pop(None, None)
        if MISSING in self.texts:
            found[None] = self.texts.index(MISSING)
        return found


@dataclass(frozen=True)
class Part:
    """One of the numbers that a moment becomes: (x - mean) / scale."""

    part: str
    """One of `PARTS`."""
    missing: float
    """As of `Number`."""
    mean: float = 0.0
    scale: float = 1.0

    def encoded(self, values: Floats) -> Floats:
        """Scale values, shape (n,), in the order of scikit-learn's operations."""
        scaled: Floats = (values - self.mean) / self.scale
        return scaled


@dataclass(frozen=True)
class Moment:
    """A column of times: each of its parts has a place of its own."""

    name: str
    kind: Kind
    at: int
    """First place of the column in the matrix."""
    parts: tuple[Part, ...]

    @property
    def width(self) -> int:
        """How many places it has."""
        return len(self.parts)


Column = Number | Category | Moment


class Encoder:
    """Validates and encodes in one pass; immutable, for any number of threads.

    Args:
        signature: The columns that are taken.
        columns: How each is encoded, in the signature's order.
    """

    def __init__(self, signature: Signature, columns: Sequence[Column]) -> None:
        self.signature = signature
        self.columns = tuple(columns)
        self.width = sum(column.width for column in columns)
        self._codes = {c.name: c.codes for c in columns if isinstance(c, Category)}
        self._tables = {
            c.name: (np.array(c.starts), np.array(c.values, np.float64))
            for c in columns
            if isinstance(c, Category)
        }
        self._template = [0.0] * self.width
        self._numbers: list[tuple[str, int, float, float]] = []
        self._integers: list[tuple[str, int, float, float]] = []
        self._flags: list[tuple[str, int, float, float]] = []
        self._single: list[tuple[str, type, dict[Any, tuple[int, float]], tuple[int, float]]] = []
        self._wide: list[tuple[str, type, dict[Any, _Cells], _Cells]] = []
        self._moments: list[tuple[str, list[tuple[int, int, float, float]]]] = []
        for column in columns:
            if isinstance(column, Number):
                self._plan_number(column)
            elif isinstance(column, Category):
                self._plan_category(column)
            else:
                self._plan_moment(column)

    def _plan_number(self, column: Number) -> None:
        self._template[column.at] = column.missing
        if column.kind == "boolean":
            low, high = ((flag - column.mean) / column.scale for flag in (0.0, 1.0))
            self._flags.append((column.name, column.at, low, high))
        else:
            plan = self._integers if column.kind == "integer" else self._numbers
            plan.append((column.name, column.at, column.mean, column.scale))

    def _plan_category(self, column: Category) -> None:
        wanted, known = CLASSES[column.kind], self._codes[column.name].items()
        each = list(zip(column.starts, column.values, strict=True))
        if len(column.values[-1]) == 1:
            cell = [(start, values[0]) for start, values in each]
            table = {key: cell[code] for key, code in known}
            self._single.append((column.name, wanted, table, cell[-1]))
        else:
            cells = [(slice(start, start + len(values)), values) for start, values in each]
            wide = {key: cells[code] for key, code in known}
            self._wide.append((column.name, wanted, wide, cells[-1]))

    def _plan_moment(self, column: Moment) -> None:
        places = range(column.at, column.at + column.width)
        self._template[column.at : column.at + column.width] = [p.missing for p in column.parts]
        plan = [
            (at, PARTS.index(each.part), each.mean, each.scale)
            for at, each in zip(places, column.parts, strict=True)
        ]
        self._moments.append((column.name, plan))

    def rows(self, records: Sequence[Mapping[str, Any]]) -> Encoded:
        """Validate and encode records by column name; None stands for missing.

        Raises:
            ValueProblem: A record is not acceptable; the first one is named.
        """
        unknown: dict[str, int] = {}
        flat: list[float] = []
        for number, record in enumerate(records):
            flat += self._usual(record, unknown) or self._any(record, number, unknown)
        matrix = np.array(flat, np.float64).reshape(len(records), self.width)
        return Encoded(matrix, unknown)

    def _usual(self, record: Mapping[str, Any], unknown: dict[str, int]) -> list[float] | None:
        """Encode what JSON makes of a row of the expected kinds; None for anything else.

        An infinite or missing number never comes out finite, and one that is too large for the
        scale does not either: one comparison finds all of them.
        """
        if len(record) != len(self.columns):
            return None
        row = self._template.copy()
        missed: list[str] = []
        try:
            usual = (
                self._write_numbers(record, row)
                and self._write_categories(record, row, missed)
                and (not self._moments or self._write_moments(record, row))
            )
        except (KeyError, OverflowError, ValueError):
            return None
        if not usual:
            return None
        for name in missed:
            unknown[name] = unknown.get(name, 0) + 1
        return row

    def _write_numbers(self, record: Mapping[str, Any], row: list[float]) -> bool:
        for name, at, mean, scale in self._numbers:
            value = record[name]
            given = value.__class__
            if given is float or given is int:
                value = (value - mean) / scale
                if value - value != 0.0:
                    return False
                row[at] = value
            elif value is not None:
                return False
        for name, at, mean, scale in self._integers:
            value = record[name]
            if value.__class__ is int:
                value = (value - mean) / scale
                if value - value != 0.0:
                    return False
                row[at] = value
            elif value is not None:
                return False
        for name, at, low, high in self._flags:
            value = record[name]
            if value is True:
                row[at] = high
            elif value is False:
                row[at] = low
            elif value is not None:
                return False
        return True

    def _write_categories(
        self, record: Mapping[str, Any], row: list[float], missed: list[str]
    ) -> bool:
        for name, wanted, table, other in self._single:
            value = record[name]
            given = value.__class__
            if given is not wanted and value is not None:
                return False
            cell = table.get(value)
            if cell is None:
                if given is not str and value is not None:
                    return False  # NaN, infinity and numbers beyond all floats are no category
                missed.append(name)
                cell = other
            row[cell[0]] = cell[1]
        for name, wanted, wide, others in self._wide:
            value = record[name]
            given = value.__class__
            if given is not wanted and value is not None:
                return False
            cells = wide.get(value)
            if cells is None:
                if given is not str and value is not None:
                    return False
                missed.append(name)
                cells = others
            row[cells[0]] = cells[1]
        return True

    def _write_moments(self, record: Mapping[str, Any], row: list[float]) -> bool:
        for name, plan in self._moments:
            value = record[name]
            if value is None:
                continue
            if value.__class__ is not str:
                return False
            count = count_of(value)
            if not is_inside(count):
                return False
            parts = parts_of(count)
            for at, number, mean, scale in plan:
                row[at] = (parts[number] - mean) / scale
        return True

    def _any(self, record: Mapping[str, Any], number: int, unknown: dict[str, int]) -> list[float]:
        """Encode any row value by value, or say what is wrong with it."""
        refuse_keys(number, record, self.signature.columns)
        row = self._template.copy()
        for column in self.columns:
            value = checked(record[column.name], column.kind, column.name, number)
            if isinstance(column, Number):
                if value is not None:
                    scaled = (float(value) - column.mean) / column.scale
                    if scaled - scaled != 0.0:
                        raise _too_large(column, number)
                    row[column.at] = scaled
                continue
            if isinstance(column, Moment):
                if value is not None:
                    parts = dict(zip(PARTS, parts_of(value), strict=True))
                    scaled_parts = [(parts[p.part] - p.mean) / p.scale for p in column.parts]
                    row[column.at : column.at + column.width] = scaled_parts
                continue
            code = self._codes[column.name].get(value, -1)
            if code < 0:
                unknown[column.name] = unknown.get(column.name, 0) + 1
            start, values = column.starts[code], column.values[code]
            row[start : start + len(values)] = values
        return row

    def columns_of(self, columns: Mapping[str, Any], n_rows: int) -> Encoded:
        """Validate and encode whole columns; the same as `rows` for the same values.

        Args:
            columns: By column name: a list (None is null), a NumPy array (without nulls: NaN is
                refused), or a masked array (what is masked is null).
            n_rows: How many values each has.

        Raises:
            ValueProblem: A value is not acceptable; the first one of its column is named.
        """
        _columns.check_columns(columns, n_rows, self.signature)
        matrix = np.zeros((n_rows, self.width))
        unknown: dict[str, int] = {}
        for column in self.columns:
            values = columns[column.name]
            if isinstance(column, Number):
                matrix[:, column.at] = self._scaled(values, column)
                continue
            if isinstance(column, Moment):
                places = slice(column.at, column.at + column.width)
                matrix[:, places] = _moment_parts(_columns.moments(values, column.name), column)
                continue
            other = len(column.texts)
            codes = _columns.codes(
                values, column.kind, column.name, self._codes[column.name], other
            )
            n_unknown = int(np.count_nonzero(codes == other))
            if n_unknown:
                unknown[column.name] = n_unknown
            starts, table = self._tables[column.name]
            if column.moves:
                matrix[np.arange(n_rows), starts[codes]] = table[codes, 0]
            else:
                matrix[:, column.at : column.at + column.width] = table[codes]
        return Encoded(matrix, unknown)

    def _scaled(self, values: Any, column: Number) -> Floats:
        numbers = _columns.numbers(values, column.kind, column.name)
        scaled, null = column.encoded(numbers), np.isnan(numbers)
        large = np.flatnonzero(~np.isfinite(scaled) & ~null)
        if large.size:
            raise _too_large(column, int(large[0]))
        scaled[null] = column.missing
        return scaled

    def problems(self, columns: Mapping[str, Any], n_rows: int) -> list[ValueProblem]:
        """Everything that `columns_of` would refuse, in the order of the rows.

        Raises:
            ValueProblem: The columns are not those of the model, or not all of the same length.
        """
        found = _columns.problems(columns, n_rows, self.signature)
        named = {problem.column for problem in found}
        for column in self.columns:
            if isinstance(column, Number) and column.name not in named:
                numbers = _columns.numbers(columns[column.name], column.kind, column.name)
                large = ~np.isfinite(column.encoded(numbers)) & ~np.isnan(numbers)
                found += [_too_large(column, int(row)) for row in np.flatnonzero(large)]
        return sorted(found, key=lambda problem: problem.row)


def _moment_parts(moments: Moments, column: Moment) -> Floats:
    """What moments are encoded as, shape (n_rows, width)."""
    null = np.isnat(moments)
    counts = np.where(null, 0, moments.view(np.int64))
    found = np.empty((len(moments), column.width))
    for place, each in enumerate(column.parts):
        found[:, place] = np.where(null, each.missing, each.encoded(part(counts, each.part)))
    return found


def _too_large(column: Number, row: int) -> ValueProblem:
    return ValueProblem(row, column.name, TOO_LARGE, EXPECTED[column.kind])


def to_json(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Columns as JSON; a missing NaN is null."""
    written: list[dict[str, Any]] = []
    for column in columns:
        item = asdict(column)
        for each in item.get("parts", [item]):
            if "missing" in each and each["missing"] != each["missing"]:
                each["missing"] = None
        written.append(item)
    return written


def from_json(written: Sequence[Mapping[str, Any]]) -> list[Column]:
    """What `to_json` wrote."""
    found: list[Column] = []
    for item in written:
        if "texts" in item:
            lists = {
                "texts": tuple(item["texts"]),
                "starts": tuple(item["starts"]),
                "values": tuple(map(tuple, item["values"])),
            }
            found.append(Category(**{**item, **lists}))
        elif "parts" in item:
            parts = tuple(Part(**_with_missing(each)) for each in item["parts"])
            found.append(Moment(**{**item, "parts": parts}))
        else:
            found.append(Number(**_with_missing(item)))
    return found


def _with_missing(item: Mapping[str, Any]) -> dict[str, Any]:
    return {**item, "missing": float("nan") if item["missing"] is None else item["missing"]}
