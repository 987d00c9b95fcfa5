"""What a run of a plan works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from holdtrue.declaration import Places
from holdtrue.progress import Reporter, Silent
from holdtrue.registry import Registry
from holdtrue.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from holdtrue.declaration import Declaration
    from holdtrue.store import Store


@dataclass(frozen=True)
class Context:
    """The declaration, where things lie, and the moment that the run takes for now."""

    declaration: Declaration
    project: Path
    """Folder that the declaration's paths start from."""
    store: Store
    as_of: datetime
    """In UTC. Nothing later is looked at."""
    reporter: Reporter = field(default_factory=Silent)
    trigger: str = "apply"
    """Why it runs, in words; recorded with the version."""
    seen: Mapping[str, str] | None = None
    """What the source looked like when the run began, where it goes on elsewhere: see `source`."""
    places: Places = field(default_factory=Places)
    """Where the declaration's files say what, for errors."""

    @cached_property
    def source(self) -> Mapping[str, str]:
        """What the source looks like, as `source_state` has it, once for a run.

        A run that has read its rows does not depend on the source any more: what becomes of it
        meanwhile is the next one's.
        """
        if self.seen is not None:
            return self.seen
        from holdtrue.preparation import source_state

        return source_state(self.declaration, self.project)

    @cached_property
    def registry(self) -> Registry:
        """The store's registry."""
        return Registry(self.store)

    @cached_property
    def stack(self) -> Stack:
        """What runs on this machine."""
        return Stack(self.store)

    @property
    def system(self) -> str:
        """Name of the system."""
        return self.declaration.name

    @property
    def serves(self) -> bool:
        """Whether the champion is to answer now: an endpoint is declared, and Ray is up."""
        return self.declaration.serve.endpoint and self.stack.state().ray_address is not None

    @property
    def labelled_until(self) -> datetime:
        """End of the rows whose truth is known."""
        return self.as_of - self.declaration.data.labels_after

    @property
    def reports(self) -> str:
        """Folder of this run's reports, relative to the store."""
        return f"reports/{self.system}/{self.as_of:%Y-%m-%dT%H%M%S}"
