"""What a rollout needs of the plan: its steps, and the versions that replicas are to hold."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from holdtrue.errors import ConfigError, DataError
from holdtrue.plan._files import held
from holdtrue.plan._journal import Journal
from holdtrue.plan._measured import measured_version, parts_of, rolling_of
from holdtrue.references import Split
from holdtrue.rollout import Plan
from holdtrue.serving._slate import Arm

if TYPE_CHECKING:
    from holdtrue.plan._context import Context
    from holdtrue.registry import Champion, RegisteredVersion
    from holdtrue.rollout import Rollout

# Enough to know the mean of scores to a few thousandths of their spread.
_ROWS = 5_000


def goes_by_steps(context: Context) -> bool:
    """Whether a new version of this system takes over by steps rather than at once."""
    declared = context.declaration.serve.rollout
    champion = context.registry.champion(context.system)
    return declared is not None and champion is not None and bool(_shares(context))


def begin_rollout(context: Context, number: int, *, by_itself: bool = False) -> Rollout:
    """Have a version take over by the declared steps; it answers from the next deployment on.

    Args:
        context: Names the system.
        number: The version.
        by_itself: Whether it does so because it passed its gates, and nobody asked for it.

    Raises:
        ConfigError: Nothing is declared, or nothing is served yet.
        RegistryError: The champion has changed meanwhile.
        VersionError: It is the champion, or there is no such version.
    """
    registry, system = context.registry, context.system
    champion, version = registry.champion(system), registry.version(system, number)
    declared = context.declaration.serve.rollout
    if declared is None or champion is None:
        message = f"{system} declares no serve.rollout, or has no champion yet"
        hint = "declare serve.rollout, or run `holdtrue promote --to` to have it at once"
        raise ConfigError(message, hint=hint)
    from holdtrue.serving._statistics import LATENCY_BOUNDS_S

    shift = expected_shift(context, champion.version, version)
    both = champion.version, version
    learnt = None
    if any(one.refitted for one in both):
        learnt = expected_shift(context, *both, served=True)
    plan = Plan(
        shares=_shares(context),
        every_s=declared.every.total_seconds(),
        requests=declared.requests,
        bounds_s=LATENCY_BOUNDS_S,
        expected_shift=shift or (),
        learnt_shift=learnt or (),
        compare_scores=_same_classes(context, champion.version, version),
    )
    return registry.begin_rollout(
        system,
        number,
        generation=champion.generation,
        plan=plan,
        now=datetime.now(UTC),
        by_itself=by_itself,
    )


def as_declared(context: Context, rollout: Rollout) -> Rollout:
    """A running rollout by the steps that are declared now, with the evidence that it has.

    It stays at its step, or is at the last one where there are fewer now. Where no steps are
    declared any more, it keeps those that it has.
    """
    declared, shares = context.declaration.serve.rollout, _shares(context)
    if declared is None or not shares:
        return rollout
    changed = {
        "shares": shares,
        "every_s": declared.every.total_seconds(),
        "requests": declared.requests,
    }
    plan = rollout.plan.model_copy(update=changed)
    step = min(rollout.step, len(shares) - 1)
    return rollout.model_copy(update={"plan": plan, "step": step})


def _shares(context: Context) -> tuple[float, ...]:
    """The steps before the last one, which is to be the champion; a shadow's share is 0."""
    declared = context.declaration.serve.rollout
    if declared is None:
        return ()
    shadow = (0.0,) if declared.shadow else ()
    return (*shadow, *(share for share in declared.canary if share < 1))


def _same_classes(context: Context, first: RegisteredVersion, second: RegisteredVersion) -> bool:
    from holdtrue.models import read_signature

    signatures = [read_signature(context.store.path(v.bundle), v.digest) for v in (first, second)]
    return signatures[0].classes == signatures[1].classes


def expected_shift(
    context: Context,
    champion: RegisteredVersion,
    challenger: RegisteredVersion,
    *,
    served: bool = False,
) -> tuple[float, ...] | None:
    """By class: how much higher the challenger scores the test rows that the gates have seen.

    Args:
        context: Where the bundles lie.
        champion: The version that answers.
        challenger: The one that is to.
        served: Whether what is served is asked, also where it has learnt these rows, rather than
            the fits that the gates have seen.

    Returns:
        None where that cannot be known: the rows are gone or are not those of then, or the two are
        of other classes or columns.
    """
    import pandas as pd

    from holdtrue.models import Bundle, typed
    from holdtrue.models._measured import Measured

    store = context.store
    record = Journal(store, context.system).find("split", challenger.lineage.get("split", ""))
    if record is None:
        return None
    split = Split.model_validate(record.output)
    try:
        path = held(store, record, split.test)
    except DataError:
        return None
    rows = pd.read_parquet(path)[-_ROWS:]
    both = [
        Measured([(None, Bundle.load(store.path(v.bundle), v.digest))])
        if served
        else measured_version(store, v)
        for v in (champion, challenger)
    ]
    signatures = [fits.signature for fits in both]
    if signatures[0].classes != signatures[1].classes or any(
        not {*signature.columns} <= {*rows} for signature in signatures
    ):
        return None
    parts = parts_of(rolling_of(store, challenger), split.boundary)
    moments = rows.get(context.declaration.data.time)  # by another declaration there may be none
    means = [
        fits.predict(typed(rows, fits.signature), fits.which(moments, len(rows), parts))
        .reshape(len(rows), -1)
        .mean(axis=0)
        for fits in both
    ]
    return tuple((means[1] - means[0]).tolist())


def arms_of(context: Context, champion: Champion, rollout: Rollout | None) -> tuple[Arm, ...]:
    """The versions that replicas are to hold now.

    Args:
        context: Where the bundles lie.
        champion: The version that answers.
        rollout: The one that runs, if any; one that has ended has no part in it.
    """
    if rollout is None or rollout.state != "running":
        return (arm(context, champion.version, "champion", 1.0),)
    share = rollout.share
    champions = arm(context, champion.version, "champion", 1.0 - share)
    version = context.registry.version(context.system, rollout.challenger)
    role = "shadow" if rollout.is_shadow else "challenger"
    return champions, arm(context, version, role, share)


def arm(context: Context, version: RegisteredVersion, role: str, weight: float) -> Arm:
    """One version as replicas are told about it."""
    bundle = str(context.store.path(version.bundle).resolve())
    return Arm.model_validate(
        {
            "role": role,
            "version": version.number,
            "bundle": bundle,
            "digest": version.digest,
            "weight": weight,
        }
    )
