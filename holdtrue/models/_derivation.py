"""Columns that are computed of others, the same in training and in answering."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.expressions import Program, compile_expression, parse, type_of
from holdtrue.models.compiled._columns import CLASSES, as_list, moments, numbers
from holdtrue.models.compiled._rules import checked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdtrue.expressions import Type, Value
    from holdtrue.models._signature import Signature
    from holdtrue.references import Derived, Kind


_FLOATS = ("integer", "number", "boolean")


@dataclass(frozen=True)
class Derivation:
    """The declared expressions of a model; immutable, for any number of threads."""

    derived: tuple[Derived, ...]
    programs: tuple[Program, ...]
    takes: dict[str, Kind]
    """The columns that they are made of."""

    @classmethod
    def of(cls, derived: tuple[Derived, ...], columns: Mapping[str, Kind]) -> Derivation:
        """What computes derived columns.

        Args:
            derived: In order.
            columns: Of a row, by name.

        Raises:
            ExpressionError: An expression does not fit the kinds of the columns.
        """
        return _made(derived, tuple(columns.items()))

    def columns(self, values: Mapping[str, Value], n_rows: int) -> dict[str, Value]:
        """Compute the columns that the model sees.

        Args:
            values: Of `takes`, as expressions take them.
            n_rows: How many each has.
        """
        every = dict(values)
        with np.errstate(all="ignore"):
            for one, program in zip(self.derived, self.programs, strict=True):
                every[one.name] = program.run(every, n_rows)
        return {one.name: every[one.name] for one in self.derived if one.used is not None}

    def record(self, record: Mapping[str, Any], row: int) -> dict[str, Any]:
        """The same of one row as JSON has it: what the model sees of it besides.

        Args:
            record: By column name; None stands for missing.
            row: Its number.

        Raises:
            ValueProblem: A value of a column that an expression takes is not acceptable.
        """
        every: dict[str, Any] = {}
        for name, kind in self.takes.items():
            value = checked(record[name], kind, name, row)
            every[name] = float(value) if kind in _FLOATS and value is not None else value
        with np.errstate(all="ignore"):
            for one, program in zip(self.derived, self.programs, strict=True):
                every[one.name] = program.one(every)
        return {one.name: every[one.name] for one in self.derived if one.used is not None}

    def given(self, columns: Mapping[str, Any], n_rows: int) -> dict[str, Any]:
        """The same of columns from outside, as if they had been sent, too.

        Args:
            columns: By name: lists (None is null), NumPy arrays (without nulls) or masked arrays.
            n_rows: How many values each has.

        Raises:
            ValueProblem: A value of a column that an expression takes is not acceptable.
        """
        values = {name: _plain(columns[name], kind, name) for name, kind in self.takes.items()}
        return {name: _sent(value) for name, value in self.columns(values, n_rows).items()}


def extended(columns: Mapping[str, Any], n_rows: int, signature: Signature) -> dict[str, Any]:
    """Columns from outside as the encoder takes them: with what is derived, and no others.

    Args:
        columns: All of the signature's, as for `Derivation.given`.
        n_rows: How many values each has.
        signature: Has derived columns.

    Raises:
        ValueProblem: As `Derivation.given`.
    """
    made = Derivation.of(signature.derived, signature.columns).given(columns, n_rows)
    kept = {name: values for name, values in columns.items() if name not in signature.inputs}
    return kept | made


def extended_records(
    records: Sequence[Mapping[str, Any]], signature: Signature
) -> list[dict[str, Any]]:
    """Records as the encoder takes them; what `extended` makes of the same values.

    Args:
        records: With all of the signature's columns, and no others.
        signature: Has derived columns.

    Raises:
        ValueProblem: As `Derivation.record`.
    """
    derivation, inputs = Derivation.of(signature.derived, signature.columns), signature.inputs
    return [
        {name: value for name, value in record.items() if name not in inputs}
        | derivation.record(record, row)
        for row, record in enumerate(records)
    ]


def difference(columns: Mapping[str, Sequence[Any]], signature: Signature) -> str | None:
    """Compare what is derived of rows one by one and of whole columns, to the bit.

    Args:
        columns: Rows as columns of JSON's values, all of the signature's.
        signature: The columns.

    Returns:
        Which column differs, in words; None where none does.
    """
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if not rows or not signature.derived:
        return None
    # With a null in each column in turn, too.
    rows += [{**rows[place % len(rows)], name: None} for place, name in enumerate(columns)]
    together = extended(
        {name: [row[name] for row in rows] for name in columns}, len(rows), signature
    )
    alone = extended_records(rows, signature)
    for name, values in together.items():
        if [record[name] for record in alone] != as_list(values):
            return f"{name} of a row alone is not what it is among others"
    return None


@lru_cache(maxsize=64)
def _made(derived: tuple[Derived, ...], columns: tuple[tuple[str, Kind], ...]) -> Derivation:
    kinds = dict(columns)
    types: dict[str, Type] = {name: type_of(kind) for name, kind in columns}
    programs: list[Program] = []
    takes: dict[str, Kind] = {}
    for one in derived:
        expression = parse(one.expression)
        takes |= {name: kinds[name] for name in expression.names if name in kinds}
        program = compile_expression(expression, types)
        programs.append(program)
        types[one.name] = program.type
    return Derivation(derived, tuple(programs), takes)


def _plain(values: Any, kind: Kind, name: str) -> Value:
    if kind == "time":
        return moments(values, name)
    if kind != "string":
        return numbers(values, kind, name)
    items = as_list(values)
    if not set(map(type, items)) <= {CLASSES[kind], type(None)}:
        items = [checked(value, kind, name, row) for row, value in enumerate(items)]
    made = np.empty(len(items), object)
    made[:] = items
    return made


def _sent(values: Value) -> Any:
    if values.dtype == object:
        return values.tolist()
    lost = np.isnan(values)
    return np.ma.masked_array(values, lost) if lost.any() else values
