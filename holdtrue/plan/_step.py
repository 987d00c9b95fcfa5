"""What a step is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from holdtrue.plan._digest import digest
from holdtrue.references import Reference

if TYPE_CHECKING:
    from holdtrue.declaration import Declaration
    from holdtrue.plan._context import Context
    from holdtrue.progress import Progress

Inputs = Mapping[str, Reference]
Kind = TypeVar("Kind", bound=Reference)


@dataclass(frozen=True)
class Work:
    """What a step is given."""

    context: Context
    inputs: Inputs
    components: Mapping[str, Any]
    """Everything that the step's result depends on."""
    progress: Progress

    @property
    def digest(self) -> str:
        """Of this step; names the folder of what it writes."""
        return digest(self.components)

    def get(self, step: str, kind: type[Kind]) -> Kind:
        """The result of an earlier step.

        Raises:
            TypeError: It is not of this kind: the graph is wired wrongly.
        """
        reference = self.inputs[step]
        if not isinstance(reference, kind):
            message = f"step {step} gave {type(reference).__name__}, expected {kind.__name__}"
            raise TypeError(message)
        return reference


@dataclass(frozen=True)
class Step:
    """One step of the lifecycle."""

    name: str
    says: str
    """What it does, for people."""
    output: type[Reference]
    run: Callable[[Work], Reference]
    reads: Callable[[Declaration], dict[str, Any]]
    """The part of the declaration that its result depends on."""
    rooms: tuple[str, ...]
    """The code that its result depends on."""
    inputs: tuple[str, ...] = ()
    """Earlier steps whose results it takes, as far as they are part of the plan."""
    wanted: Callable[[Declaration], bool] | None = None
    """Whether it is part of the plan of a declaration; None: of each."""
    outside: Callable[[Context, Inputs], dict[str, Any]] | None = None
    """Other things that its result depends on: the moment, the source, the champion."""
    holds: Callable[[Context, Reference], str | None] | None = None
    """Why a finished step is not true any more; None where it is."""
    paths: Callable[[Reference], tuple[str, ...]] | None = None
    """What it has written, relative to the store."""
    sealed: bool = False
    """Whether its record has a digest of each of these files: nothing else has."""
    uses_ray: bool = False
    serves: bool = False
    """Whether it leaves something running."""
