"""What a model takes and gives."""

from __future__ import annotations

from typing import Literal

from holdtrue.references import Derived, Kind, Reference, Roles, roles


class Signature(Reference):
    """The columns that a model takes, in order, and what it answers."""

    target: str
    task: Literal["classification", "regression"]
    classes: tuple[str, ...] | None
    """Names of the classes in the order of the probabilities; None for regression."""
    columns: dict[str, Kind]
    """Columns that a row has, in order, with the kind of their values."""
    categorical: tuple[str, ...]
    """Those of the columns that are used as categories."""
    derived: tuple[Derived, ...] = ()
    """Columns that are computed of these, in order; the model sees them, too."""
    inputs: tuple[str, ...] = ()
    """Those of the columns that nothing but the derived ones are made of."""

    @property
    def numeric(self) -> tuple[str, ...]:
        """The columns that are used as numbers."""
        return tuple(
            name
            for name, kind in self.columns.items()
            if kind != "time" and name not in self.categorical and name not in self.inputs
        )

    @property
    def temporal(self) -> tuple[str, ...]:
        """The columns that are used as times."""
        return tuple(
            name
            for name, kind in self.columns.items()
            if kind == "time" and name not in self.inputs
        )

    @property
    def roles(self) -> Roles:
        """All columns as a profile takes them."""
        inputs = {name: self.columns[name] for name in self.inputs}
        return roles(self.numeric, self.categorical, self.temporal, inputs)

    @property
    def encoded(self) -> Signature:
        """The same of what the encoder sees: without the inputs, with what is derived."""
        if not self.derived:
            return self
        kept = {name: kind for name, kind in self.columns.items() if name not in self.inputs}
        seen = [one for one in self.derived if one.used is not None]
        categories = [one.name for one in seen if one.used == "categorical"]
        return Signature(
            target=self.target,
            task=self.task,
            classes=self.classes,
            columns=kept | {one.name: one.kind for one in seen},
            categorical=(*self.categorical, *categories),
        )
