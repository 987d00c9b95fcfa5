"""What a run of the plan came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdtrue.references import Release, Version

if TYPE_CHECKING:
    from holdtrue.plan._context import Context
    from holdtrue.plan._plan import Done


@dataclass(frozen=True)
class Applied:
    """What a run of the plan came to."""

    steps: tuple[Done, ...]
    endpoint: str | None
    """URL that predictions are posted to; None where nothing is served."""
    champion: int | None
    """Version of the champion; None where no version has passed yet."""
    refused: str | None
    """Why the gates refused the model; None where they did not, or a person promoted it."""

    @property
    def ran(self) -> tuple[str, ...]:
        """Names of the steps that were not found done."""
        return tuple(done.step for done in self.steps if not done.cached)


def applied(context: Context, finished: list[Done]) -> Applied:
    """Say what a run came to."""
    outputs: dict[str, Any] = {done.step: done.output for done in finished}
    champion = context.registry.champion(context.system)
    release, version = outputs.get("serve"), outputs.get("register")
    refused = None
    if isinstance(version, Version):
        registered = context.registry.version(context.system, version.number)
        # One that was promoted all the same is the champion, whatever the gates said.
        live = champion is not None and champion.version.number == registered.number
        refused = None if registered.passed or live else registered.reason
    return Applied(
        steps=tuple(finished),
        endpoint=release.endpoint if isinstance(release, Release) else None,
        champion=None if champion is None else champion.version.number,
        refused=refused,
    )
