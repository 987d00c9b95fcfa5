"""What a run of a plan works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from holdtrue.progress import Reporter, Silent
from holdtrue.registry import Registry
from holdtrue.stack import Stack

if TYPE_CHECKING:
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
    def labelled_until(self) -> datetime:
        """End of the rows whose truth is known."""
        return self.as_of - self.declaration.data.labels_after

    @property
    def reports(self) -> str:
        """Folder of this run's reports, relative to the store."""
        return f"reports/{self.system}/{self.as_of:%Y-%m-%dT%H%M%S}"
