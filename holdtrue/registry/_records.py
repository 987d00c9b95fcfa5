"""What the registry tells: versions, the champion, and how it changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from holdtrue.references import Estimate

if TYPE_CHECKING:
    from sqlalchemy import Row


@dataclass(frozen=True)
class RegisteredVersion:
    """A model that was evaluated."""

    system: str
    number: int
    digest: str
    """Of the bundle that is served."""
    bundle: str
    """Its folder, relative to the store."""
    as_of: datetime
    """The moment that its data end at."""
    created: datetime
    passed: bool
    """Whether every gate held."""
    reason: str
    """Why it was trained, such as ``apply`` or ``drift``; after a colon what the gates said."""
    incumbent: int | None
    """Version that was the champion when this one was judged."""
    metrics: dict[str, Estimate]
    profile: str
    """Folder of the reference profile, relative to the store."""
    lineage: dict[str, str]
    """Digests by step."""
    measured_digest: str
    """Of the bundle that metrics and gates are about: where it was refitted, not of that which is
    served, which has seen the test rows."""
    measured_bundle: str
    """Its folder, relative to the store."""

    @property
    def refitted(self) -> bool:
        """Whether it was fitted once more on all rows after the gates."""
        return self.measured_bundle != self.bundle

    @property
    def told(self) -> str:
        """The reason for people."""
        return verdict_first(self.reason)


@dataclass(frozen=True)
class Champion:
    """The version that answers."""

    version: RegisteredVersion
    generation: int
    """Counts changes of the champion, without gaps."""
    since: datetime
    reason: str


@dataclass(frozen=True)
class Change:
    """One change of the champion."""

    generation: int
    number: int
    previous: int | None
    at: datetime
    action: str
    """``gate``: it passed, and a rollout where one is declared; ``restore``: its declaration is
    back; ``promote`` and ``rollback``: by a person."""
    reason: str


# Actions that no person asked for.
BY_ITSELF = frozenset({"gate", "restore"})


REFITTED = "served is its refit, on the test rows too; measured and judged was the fit before"
"""Said beside the metrics of a version that was refitted."""


def verdict_first(reason: str) -> str:
    """The reason of a version with what the gates said before why it was trained."""
    trigger, colon, verdict = reason.partition(": ")
    return f"{verdict} (trigger: {trigger})" if colon else reason


def version_of(row: Row[Any]) -> RegisteredVersion:
    """The version that a row of its table is."""
    return RegisteredVersion(
        system=row.system,
        number=row.number,
        digest=row.digest,
        bundle=row.bundle,
        as_of=datetime.fromisoformat(row.as_of),
        created=datetime.fromisoformat(row.created),
        passed=row.passed,
        reason=row.reason,
        incumbent=row.incumbent,
        metrics={name: Estimate.model_validate(value) for name, value in row.metrics.items()},
        profile=row.profile,
        lineage=row.lineage,
        measured_digest=row.measured_digest or row.digest,
        measured_bundle=row.measured_bundle or row.bundle,
    )
