"""What a run of the plan came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdtrue.approval import approval_of
from holdtrue.references import Release, Split, Version

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
    stays_back: str | None = None
    """Why a model that passed is neither the champion nor rolled out; None where it is."""

    @property
    def note(self) -> str:
        """That the rows end long before the test rows do, in a sentence; empty where not."""
        return next((step.output.note for step in self.steps if isinstance(step.output, Split)), "")

    @property
    def ran(self) -> tuple[str, ...]:
        """Names of the steps that were not found done."""
        return tuple(done.step for done in self.steps if not done.cached)


def applied(context: Context, finished: list[Done]) -> Applied:
    """Say what a run came to."""
    outputs: dict[str, Any] = {done.step: done.output for done in finished}
    champion = context.registry.champion(context.system)
    release, version = outputs.get("serve"), outputs.get("register")
    refused = stays_back = None
    if isinstance(version, Version):
        registered = context.registry.version(context.system, version.number)
        # One that was promoted all the same is the champion, whatever the gates said.
        live = champion is not None and champion.version.number == registered.number
        refused = None if registered.passed or live else registered.told
        if registered.passed and not live:
            asked = approval_of(context.registry, context.declaration)
            if asked is not None and asked.version == registered.number:
                stays_back = str(asked)
            else:
                stays_back = _why_back(context, registered.number)
    return Applied(
        steps=tuple(finished),
        endpoint=release.endpoint if isinstance(release, Release) else None,
        champion=None if champion is None else champion.version.number,
        refused=refused,
        stays_back=stays_back,
    )


def _why_back(context: Context, number: int) -> str | None:
    """What ended a version that passed: as the champion, or in its rollout."""
    registry, system = context.registry, context.system
    judged = registry.version(system, number).measured_digest
    twins = {one.number for one in registry.of_fit(system, judged)}
    ended = [change for change in registry.history(system) if change.previous == number]
    tried = [rollout for rollout in registry.rollouts(system) if rollout.challenger == number]
    if ended:
        why = f"version {ended[-1].number} took its place ({ended[-1].reason})"
    elif tried and tried[-1].state != "running":
        why = f"its rollout was ended ({tried[-1].reason})"
    elif fit := [change for change in registry.history(system) if change.previous in twins]:
        why = (
            f"version {fit[-1].number} took the place of version {fit[-1].previous}, whose fit "
            f"is the one that was judged ({fit[-1].reason})"
        )
    else:
        return None
    return (
        f"Version {number} is declared, and stays back: {why}; "
        f"`holdtrue promote --to {number}` makes it the champion all the same"
    )
