"""Which version answers: rollouts that go on by themselves, promotion and rollback by hand."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from holdtrue.approval import approval_of
from holdtrue.errors import (
    ConfigError,
    HoldtrueError,
    RegistryAwayError,
    RegistryError,
    ServingError,
    StackError,
)
from holdtrue.notifications import notify
from holdtrue.plan import begin_rollout, deploy_arms, note_served, release_lock, serve_now
from holdtrue.references import Release
from holdtrue.rollout import Arms, Counts, Moments, decide, follow, observe, stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdtrue.plan import Context
    from holdtrue.registry import Champion
    from holdtrue.rollout import Losses, Rollout, Verdict
    from holdtrue.serving._statistics import ArmStatistics

# Between two looks at the counters, which replicas write each second.
LOOK_EVERY_S = 5.0
_FASTEST_LOOK_S = 1.0
_LOOKS_A_STEP = 20


def advance(context: Context, *, quality: bool = True) -> Rollout | None:
    """Take one look at the running rollout, and do what it calls for.

    The registry says where the rollout stands; whoever looks next goes on from there, also after
    the process that looked before was killed.

    Args:
        context: Names the system.
        quality: Whether to look for labels too, which reads the source.

    Returns:
        The rollout after it; None where none runs.

    Raises:
        StackError: Ray Serve does not answer; the next look tries again.
    """
    # Outside of the lock: labels take their time, and a rollback must not wait for them.
    losses = losses_now(context) if quality else None
    with release_lock(context):
        rollout = context.registry.running_rollout(context.system)
        champion = context.registry.champion(context.system)
        if rollout is None or champion is None:
            return None
        now = datetime.now(UTC)
        if not context.declaration.serve.endpoint:
            ended = stop(rollout, "no endpoint is declared any more", now)
            return context.registry.save_rollout(ended)
        if champion.generation != rollout.generation:
            return _overtaken(context, champion, rollout, now)
        if context.stack.state().ray_address is None:
            message = "nothing is up: the rollout waits"
            raise StackError(message, hint="`holdtrue serve FILE` brings the endpoint back")
        seen = observe(rollout, counts_of(context, rollout), losses, now)
        after = _act(context, champion, seen, decide(seen, now))
    if after.last is None or after.last.action != "wait":
        write_page(context)
        notify(context)
    return after


def losses_now(context: Context) -> Losses | None:
    """Quality of the arms of the rollout that runs, by labels that have come; None without."""
    from holdtrue.truth import losses_of

    rollout = context.registry.running_rollout(context.system)
    if rollout is None:
        return None
    try:
        return losses_of(context, rollout, datetime.now(UTC))
    except HoldtrueError:  # a source that cannot be read says nothing about the challenger
        return None


def _act(context: Context, champion: Champion, rollout: Rollout, verdict: Verdict) -> Rollout:
    """Carry out a verdict: first what is served, then what is recorded.

    Killed in between, the next look finds the rollout as it was and decides the same again.
    """
    after = follow(rollout, verdict)
    registry = context.registry
    if verdict.action == "wait":
        return registry.save_rollout(after)
    if verdict.action == "finish":
        return _finish(context, champion, after)
    try:
        deploy_arms(context, champion, after)
    except ServingError as err:
        # The slate before stays: the challenger is out of it only after the next deployment.
        deploy_arms(context, champion, None)
        after = stop(rollout, err.message, verdict.at, "back")
    try:
        return registry.save_rollout(after)
    except RegistryError:
        serve_now(context)  # somebody else was faster: what they have decided holds
        raise


def _finish(context: Context, champion: Champion, rollout: Rollout) -> Rollout:
    reason = f"rolled out over version {rollout.champion}: {rollout.reason}"
    _install(context, champion, rollout.challenger, reason, "gate")
    return context.registry.save_rollout(rollout)


def _overtaken(context: Context, champion: Champion, rollout: Rollout, now: datetime) -> Rollout:
    """End a rollout whose champion is not the champion any more."""
    number = champion.version.number
    reason = f"version {number} was made the champion meanwhile"
    won = number == rollout.challenger
    ended = stop(rollout, reason, now, "finish" if won else "stop")
    saved = context.registry.save_rollout(ended)
    serve_now(context)
    return saved


def drive(
    context: Context,
    say: Callable[[Rollout], None],
    *,
    look_every_s: float | None = None,
) -> Rollout | None:
    """Look again and again until the running rollout has ended.

    Args:
        context: Names the system.
        say: Is told about every look.
        look_every_s: Seconds between two looks; a part of a step where left out.

    Returns:
        The rollout as it ended; None where none runs.
    """
    last: Rollout | None = None
    for last in looks(context, look_every_s):
        say(last)
    return last


def looks(context: Context, look_every_s: float | None = None) -> Iterator[Rollout]:
    """Every look until the rollout has ended.

    A Ray or a registry that is down or busy ends nothing: it is asked again.

    Raises:
        RegistryAwayError: The registry does not answer the first look.
    """
    labels_at = 0.0
    running: Rollout | None = None
    while True:
        try:
            running = context.registry.running_rollout(context.system)
        except RegistryAwayError as err:
            if running is None:
                raise
            yield running.model_copy(update={"reason": err.message})
            time.sleep(_pause(running) if look_every_s is None else look_every_s)
            continue
        if running is None:
            return
        pause = look_every_s if look_every_s is not None else _pause(running)
        quality = time.monotonic() >= labels_at
        try:
            looked = advance(context, quality=quality)
        except (StackError, RegistryAwayError) as err:
            looked = running.model_copy(update={"reason": err.message})
        except RegistryError:
            time.sleep(pause)
            continue  # it was changed by hand: look at what became of it
        if quality:
            labels_at = time.monotonic() + max(60.0, running.plan.every_s / 5)
        if looked is None:
            return
        yield looked
        if looked.state != "running":
            return
        time.sleep(pause)


def _pause(rollout: Rollout) -> float:
    return min(LOOK_EVERY_S, max(_FASTEST_LOOK_S, rollout.plan.every_s / _LOOKS_A_STEP))


def start(context: Context, number: int, *, force: bool = False) -> Rollout:
    """Roll a registered version out by the declared steps.

    Raises:
        ConfigError: The gates refused it and `force` is not given, nothing is declared, or it is
            being rolled out.
        VersionError: There is no such version, or it is the champion.
    """
    before = context.registry.running_rollout(context.system)
    if before is not None and before.challenger == number:
        message = (
            f"version {number} of {context.system} is being rolled out already: {before.where}"
        )
        raise ConfigError(message, hint="`holdtrue rollout stop` ends that")
    check_passed(context, number, force=force)
    with release_lock(context):
        rollout = begin_rollout(context, number)
        if context.serves:
            serve_now(context)
    running = context.registry.rollouts(context.system)[-1]
    if running.state != "running":
        message = f"version {rollout.challenger} cannot be rolled out: {running.reason}"
        raise ServingError(message)
    notify(context)
    return running


def halt(context: Context, reason: str) -> Rollout:
    """Stop the running rollout: the champion answers every request again.

    Raises:
        ConfigError: None runs.
    """
    with release_lock(context):
        rollout = context.registry.running_rollout(context.system)
        if rollout is None:
            message = f"no rollout of {context.system} runs"
            raise ConfigError(message, hint="`holdtrue rollout status` says how the last one ended")
        rollout = _looked(context, rollout)
        champion = context.registry.champion(context.system)
        if champion is not None and context.serves:
            deploy_arms(context, champion, None)
        ended = context.registry.save_rollout(stop(rollout, reason, datetime.now(UTC)))
    write_page(context)
    notify(context)
    return ended


def promote(context: Context, number: int, *, reason: str, force: bool = False) -> None:
    """Make a registered version the champion at once, and serve it where something is served.

    Args:
        context: Names the system.
        number: The version.
        reason: Why; recorded.
        force: Also where the gates refused it.

    Raises:
        ConfigError: It is the champion, or the gates refused it and `force` is not given.
        VersionError: There is no such version.
        ServingError: It cannot be served; everything stays as it was.
    """
    check_passed(context, number, force=force)
    _replace(context, number, reason, "promote")
    notify(context)


def rollback(context: Context, *, to: int | None, reason: str) -> int:
    """Go back: end the rollout that runs, else make an earlier version the champion again.

    Args:
        context: Names the system.
        to: The version; where left out and no rollout runs, the one before the champion.
        reason: Why; recorded.

    Returns:
        The version that is the champion now.

    Raises:
        ConfigError: There is no earlier champion, or the version never was one.
        VersionError: There is no such version.
        ServingError: It cannot be served; everything stays as it was.
    """
    registry, system = context.registry, context.system
    champion = registry.champion(system)
    if to is None and champion is not None and registry.running_rollout(system) is not None:
        halt(context, reason)
        return champion.version.number
    target = earlier(context, to)
    _replace(context, target, reason, "rollback")
    notify(context)
    return target


def earlier(context: Context, to: int | None) -> int:
    """The version that a rollback goes to.

    Args:
        context: Names the system.
        to: The version that is asked for; where left out, the one before the champion.

    Raises:
        ConfigError: There is no earlier champion, or the version never was one.
        VersionError: There is no such version.
    """
    registry, system = context.registry, context.system
    champion = registry.champion(system)
    target = to if to is not None else registry.previous_champion(system)
    if champion is None or target is None:
        message = f"{system} has no earlier champion to go back to"
        others = {change.number for change in registry.history(system)}
        others -= {champion.version.number} if champion is not None else set()
        if not others:
            raise ConfigError(message, hint="there is one from the second promotion on")
        known = ", ".join(map(str, sorted(others)))
        hint = f"all later ones were gone back from; --to takes any that was champion: {known}"
        raise ConfigError(message, hint=hint)
    registry.version(system, target)
    if not registry.was_champion(system, target):
        message = f"version {target} of {system} was never the champion: there is no way back to it"
        raise ConfigError(message, hint=f"`holdtrue promote --to {target}` makes it the champion")
    return target


def check_passed(context: Context, number: int, *, force: bool) -> None:
    """Refuse to promote or roll out a version, unless forced.

    Raises:
        ConfigError: The gates refused it, or nobody approved it in time.
        VersionError: There is no such version.
    """
    version = context.registry.version(context.system, number)
    was_champion = context.registry.was_champion(context.system, number)
    if not version.passed and not was_champion and not force:
        message = f"the gates refused version {number} of {context.system}: {version.told}"
        raise ConfigError(message, hint="--force takes it all the same")
    asked = approval_of(context.registry, context.declaration)
    if asked is not None and asked.version == number and asked.over and not force:
        raise ConfigError(str(asked), hint="or train a new one: `holdtrue apply FILE --refresh`")


def _looked(context: Context, rollout: Rollout) -> Rollout:
    """A rollout that a person ends, with what was counted until now: its last evidence."""
    return observe(rollout, counts_of(context, rollout), None, datetime.now(UTC))


def _replace(context: Context, number: int, reason: str, action: str) -> None:
    """Make a version the champion by hand; a rollout that runs is over with it."""
    registry, system = context.registry, context.system
    with release_lock(context):
        champion = registry.champion(system)
        registry.version(system, number)
        if champion is None:
            registry.promote(system, number, generation=0, reason=reason, action=action)
            _serve(context)
            return
        if number == champion.version.number:
            message = f"version {number} of {system} is the champion already"
            raise ConfigError(message)
        rollout = registry.running_rollout(system)
        if rollout is not None:
            rollout = _looked(context, rollout)
        _install(context, champion, number, reason, action)
        if rollout is not None:
            finished = number == rollout.challenger
            said = f"version {number} was made the champion by hand: {reason}"
            ended = stop(rollout, said, datetime.now(UTC), "finish" if finished else "stop")
            registry.save_rollout(ended)
    if rollout is not None:
        write_page(context)


def _install(context: Context, champion: Champion, number: int, reason: str, action: str) -> None:
    """Serve a version in the champion's place, then record it as the champion.

    In this order a version that cannot be served never becomes the champion. Where somebody else
    has changed the champion meanwhile, theirs is served again.
    """
    from holdtrue.mirror import mirror

    registry, system = context.registry, context.system
    up, endpoint = context.serves, ""
    version = registry.version(system, number)
    if up:
        endpoint = deploy_arms(context, replace(champion, version=version), None)
    try:
        registry.promote(
            system, number, generation=champion.generation, reason=reason, action=action
        )
    except RegistryError:
        if up:
            serve_now(context)
        raise
    except RegistryAwayError:
        if up:
            deploy_arms(context, champion, None)  # as far as is known it still is
        raise
    if up:
        release = Release(system=system, version=number, digest=version.digest, endpoint=endpoint)
        note_served(context, release)
    mirror(context)


def _serve(context: Context) -> None:
    if context.serves:
        note_served(context, serve_now(context))


def counts_of(context: Context, rollout: Rollout) -> Arms:
    """What the replicas have counted of both versions since the rollout began."""
    from holdtrue.serving._statistics import read_statistics

    seen, name = read_statistics(context.store, context.system), str(rollout.id)
    answered = seen.of(rollout.challenger, "challenger", name)
    copied = seen.of(rollout.challenger, "shadow", name)
    return Arms(
        champion=_counts(seen.of(rollout.champion, "champion", name)),
        # How long a shadow takes is no time that anybody waited.
        challenger=_counts(answered.plus(copied)).model_copy(
            update={"durations": answered.latency}
        ),
    )


def _counts(arm: ArmStatistics) -> Counts:
    scores = Moments(n=arm.scores.n, mean=arm.scores.mean, m2=arm.scores.m2)
    return Counts(
        requests=arm.requests,
        failures=sum(arm.errors.values()),
        why=arm.why.get(max(arm.errors, key=lambda reason: arm.errors[reason], default=""), ""),
        durations=arm.latency,
        scores=scores,
    )


def write_page(context: Context) -> None:
    """Write the page about the system's rollouts, and the one that links all reports."""
    from holdtrue import reports
    from holdtrue.plan import write_front_page

    found = context.registry.rollouts(context.system)
    if not found:
        return
    path = context.store.path("reports", context.system, "rollouts.html")
    path.parent.mkdir(parents=True, exist_ok=True)
    verdicts = {rollout.id: context.registry.verdicts(rollout.id) for rollout in found}
    reports.write_rollout_report(path, context.declaration, found, verdicts)
    write_front_page(context)
