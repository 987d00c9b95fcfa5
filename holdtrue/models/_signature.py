"""What a model takes and gives."""

from __future__ import annotations

from typing import Literal

from holdtrue.references import Kind, Reference


class Signature(Reference):
    """The columns that a model takes, in order, and what it answers."""

    target: str
    task: Literal["classification", "regression"]
    classes: tuple[str, ...] | None
    """Names of the classes in the order of the probabilities; None for regression."""
    columns: dict[str, Kind]
    """Feature columns in order, with the kind of their values."""
    categorical: tuple[str, ...]
    """Those of the columns that are used as categories."""

    @property
    def numeric(self) -> tuple[str, ...]:
        """The columns that are used as numbers."""
        return tuple(
            name
            for name, kind in self.columns.items()
            if kind != "time" and name not in self.categorical
        )

    @property
    def temporal(self) -> tuple[str, ...]:
        """The columns that are used as times."""
        return tuple(name for name, kind in self.columns.items() if kind == "time")
