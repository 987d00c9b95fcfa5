"""Versions that passed the gates and wait for a person: ``serve.approve``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from holdtrue.references import Reference

if TYPE_CHECKING:
    from holdtrue.declaration import Declaration
    from holdtrue.registry import Registry


class Approval(Reference):
    """What a person is asked for."""

    version: int
    until: datetime
    """Afterwards the champion stays."""
    over: bool
    """Whether that moment has passed."""
    by_steps: bool
    """Whether ``serve.rollout`` is declared."""
    reason: str
    """What the gates said."""

    def __str__(self) -> str:
        until = f"{self.until:%Y-%m-%d %H:%M} UTC"
        if self.over:
            return (
                f"Nobody approved version {self.version} until {until}, and the champion stays: "
                f"`holdtrue promote --to {self.version} --force` takes it all the same"
            )
        steps = f", or by steps `holdtrue rollout start --to {self.version}`"
        return (
            f"Version {self.version} passed, and waits until {until} for a person: "
            f"`holdtrue promote --to {self.version}`{steps if self.by_steps else ''}; "
            "else the champion stays"
        )


def approval_of(registry: Registry, declaration: Declaration) -> Approval | None:
    """What a person is asked for now, or was asked for last.

    That is the newest version where ``serve.approve`` is declared, if it passed its gates and has
    neither been the champion nor begun a rollout. None where there is no such version, and for
    the first one: nothing answers that could stay.
    """
    name, within = declaration.name, declaration.serve.approve
    versions = registry.versions(name)
    if within is None or not versions or registry.champion(name) is None:
        return None
    newest = versions[-1]
    begun = {one.challenger for one in registry.rollouts(name) if not one.withdrawn}
    if not newest.passed or newest.number in begun or registry.was_champion(name, newest.number):
        return None
    until = newest.created + within
    return Approval(
        version=newest.number,
        until=until,
        over=datetime.now(UTC) > until,
        by_steps=declaration.serve.rollout is not None,
        reason=newest.told,
    )
