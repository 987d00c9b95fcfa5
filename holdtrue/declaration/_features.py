"""Which columns a model sees, and what is computed of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, model_validator

from holdtrue.declaration._section import Section
from holdtrue.declaration._values import Formula
from holdtrue.expressions import parse


def names_of(expression: str) -> tuple[str, ...]:
    """The columns that an expression is made of."""
    return parse(expression).names


class Features(Section):
    """Which columns the model sees.

    Left out: every column but target, time and key, by its type.
    """

    numeric: tuple[str, ...] = ()
    """Columns used as numbers."""
    categorical: tuple[str, ...] = ()
    """Columns used as categories."""
    temporal: tuple[str, ...] = ()
    """Columns of times; month, weekday and so on are made of them."""
    exclude: tuple[str, ...] = ()
    """Columns that are never used, when the others are found by type."""
    derive: dict[Annotated[str, Field(min_length=1)], Formula] = Field(default={}, max_length=200)
    """Columns that are computed of others, by name, such as ``speed: distance / hours``.

    They are features, but for those in `exclude`; text is a category, all else a number unless it
    is in `categorical`. What answers computes them of the columns that a request has.
    """

    @property
    def times(self) -> tuple[str, ...]:
        """Columns of the data that must be times."""
        asked = {name for text in self.derive.values() for name in parse(text).times}
        return tuple(sorted({*self.temporal, *asked} - self.derive.keys()))

    @property
    def inputs(self) -> frozenset[str]:
        """Columns of the data that derived ones are made of."""
        asked = {name for text in self.derive.values() for name in names_of(text)}
        return frozenset(asked - self.derive.keys())

    @model_validator(mode="after")
    def _derived_in_order(self) -> Self:
        names = [*self.derive]
        for place, (name, text) in enumerate(self.derive.items()):
            later = sorted({*names_of(text)} & {*names[place:]})
            if later:
                what = "itself" if later[0] == name else f"{later[0]}, which is declared after it"
                message = f"derive: {name} is made of {what}"
                raise ValueError(message)
        wrong = sorted({*self.temporal} & self.derive.keys())
        if wrong:
            message = f"temporal: {wrong[0]} is derived, and what is derived is no time"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        kinds = ("numeric", "categorical", "temporal", "numeric")
        for one, other in pairwise(kinds):
            twice = sorted(set(getattr(self, one)) & set(getattr(self, other)))
            if twice:
                message = f"both {one} and {other}: {', '.join(twice)}"
                raise ValueError(message)
        used = {*self.numeric, *self.categorical, *self.temporal}
        left_out = sorted(used & {*self.exclude})
        if left_out:
            message = f"both used and in exclude: {', '.join(left_out)}"
            raise ValueError(message)
        return self
