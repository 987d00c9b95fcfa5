"""What is derived, once the kinds of the columns are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.errors import NAME, DataError, Key
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
        key: Key = ("features", "derive", name)
        if name in kinds:
            message = f"{name} is a column of the data"
            hint = "take another name; an expression replaces no column"
            raise DataError(message, hint=hint, key=(*key, NAME))
        try:
            program = compile_expression(parse(text), types)
        except ExpressionError as err:
            message = f"{text} cannot be computed: {err}"
            hint = "docs/guide/features.md has what may be written"
            raise DataError(message, hint=hint, key=key) from err
        if program.type == "text" and name in features.numeric:
            message = f"{name} gives text"
            hint = "name it in features.categorical, or make number(...) of it"
            key = ("features", "numeric", features.numeric.index(name))
            raise DataError(message, hint=hint, key=key)
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
