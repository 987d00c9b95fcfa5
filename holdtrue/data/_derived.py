"""What is derived, once the kinds of the columns are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.errors import DataError
from holdtrue.expressions import KIND_OF, ExpressionError, compile_expression, parse, type_of
from holdtrue.references import Derived

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from holdtrue.declaration import Features
    from holdtrue.references import Kind


def derived_of(features: Features, kinds: Mapping[str, Kind]) -> tuple[Derived, ...]:
    """The declared expressions with the kinds of what they give, in order.

    Args:
        features: As declared.
        kinds: Kinds of the columns of the data.

    Raises:
        DataError: An expression names a column that there is not, does with one what cannot be
            done with its values, or has the name of one.
    """
    types = {name: type_of(kind) for name, kind in kinds.items()}
    found = []
    for name, text in features.derive.items():
        place = f"features.derive: {name}"
        if name in kinds:
            message = f"{place} is a column of the data"
            raise DataError(message, hint="take another name; an expression replaces no column")
        try:
            program = compile_expression(parse(text), types)
        except ExpressionError as err:
            message = f"{place} = {text} cannot be computed: {err}"
            raise DataError(message, hint="docs/guide/features.md has what may be written") from err
        if program.type == "text" and name in features.numeric:
            message = f"features.numeric: {name} gives text"
            raise DataError(
                message, hint="name it in features.categorical, or make number(...) of it"
            )
        types[name] = program.type
        kind = KIND_OF[program.type]
        used = "categorical" if kind == "string" or name in features.categorical else "numeric"
        found.append(
            Derived(
                name=name,
                expression=text,
                kind=kind,
                used=None if name in features.exclude else used,
            )
        )
    return tuple(found)


def inputs_of(
    derived: Collection[Derived], kinds: Mapping[str, Kind], seen: Collection[str]
) -> dict[str, Kind]:
    """The columns of the data that only derived ones are made of, with their kinds.

    Args:
        derived: From `derived_of`.
        kinds: Kinds of the columns of the data.
        seen: Columns that are features by themselves.
    """
    names = {name: None for one in derived for name in parse(one.expression).names}
    return {name: kinds[name] for name in names if name in kinds and name not in seen}
