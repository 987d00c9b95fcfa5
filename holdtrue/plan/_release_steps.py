"""The steps from a verdict to an answering endpoint."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from holdtrue.errors import ServingError, refused_by_machine
from holdtrue.mirror import mirror
from holdtrue.origin import origin_of
from holdtrue.plan._data_steps import _dump
from holdtrue.plan._digest import digest
from holdtrue.plan._journal import Journal, Record
from holdtrue.plan._rollout import arms_of, as_declared, begin_rollout, goes_by_steps
from holdtrue.plan._step import Step, Work
from holdtrue.references import (
    Evaluation,
    ModelRef,
    ProfileRef,
    Reference,
    Refit,
    Release,
    Verdict,
    Version,
)
from holdtrue.registry import BY_ITSELF, stale
from holdtrue.rollout import stop
from holdtrue.serving import Endpoint, deploy
from holdtrue.serving._slates import slate_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from holdtrue.declaration import Declaration
    from holdtrue.plan._context import Context
    from holdtrue.plan._step import Inputs
    from holdtrue.registry import Champion, RegisteredVersion
    from holdtrue.rollout import Rollout

# How long the question whether the endpoint still answers may take, in seconds.
_ASK_TIMEOUT_S = 3.0


def _register(work: Work) -> Version:
    context = work.context
    registry, system = context.registry, context.system
    measured, verdict = work.get("fit", ModelRef), work.get("gate", Verdict)
    refit = work.get("refit", Refit).model if "refit" in work.inputs else None
    served = refit or measured
    work.progress(0, 0, "registering it" if verdict.passed else "keeping the champion")
    evaluation = work.get("evaluate", Evaluation)
    steps = {step.name for step in _plan_of(context)}
    used = Journal(context.store, system).state().get("steps", {})
    version = registry.register(
        system,
        digest=served.digest,
        bundle=served.bundle,
        as_of=context.as_of,
        passed=verdict.passed,
        reason=f"{context.trigger}: {verdict.reason}",
        incumbent=evaluation.champion,
        metrics=evaluation.metrics,
        profile=work.get("profile", ProfileRef).path,
        lineage={name: key for name, key in used.items() if name in steps},
        origin=origin_of(context.project),
        measured=None if refit is None else (measured.digest, measured.bundle),
    )
    promoted = False
    champion = registry.champion(system)
    if verdict.passed and champion is not None and declared_again(context, version.number):
        reason = (
            f"{context.trigger}: version {version.number} is declared again, in place of "
            f"version {champion.version.number}"
        )
        registry.promote(
            system,
            version.number,
            generation=champion.generation,
            reason=reason,
            action="restore",
        )
        promoted = True
    elif verdict.passed and not _stays_back(context, version):
        against = None if champion is None else champion.version.number
        if evaluation.champion != against and not _of_one_fit(context, version):
            raise stale(system)
        if champion is not None and context.declaration.serve.approve is not None:
            work.progress(0, 0, "waiting for a person to approve it")
        elif goes_by_steps(context):
            work.progress(0, 0, "planning its rollout")
            begin_rollout(context, version.number, by_itself=True)
        else:
            generation = 0 if champion is None else champion.generation
            registry.promote(
                system,
                version.number,
                generation=generation,
                reason=version.reason,
                action="gate",
            )
            promoted = True
    if (withdrawn := _withdrawn(context, version.number)) is not None:
        work.progress(0, 0, f"ending the rollout of version {withdrawn.challenger}")
        _withdraw(context, version.number)
    if context.declaration.track.mlflow is not None:
        work.progress(0, 0, "mirroring it to MLflow")
        mirror(context)
    return Version(
        system=system,
        number=version.number,
        digest=version.digest,
        promoted=promoted,
        reason=verdict.reason,
    )


def declared_again(context: Context, number: int) -> bool:
    """Whether a model that was the champion is wanted again, as its declaration is back.

    That is so where the champion in its place came from another declaration by the gates. What a
    person made or ended stays as it is, and so does a champion that has learnt from later data.
    """
    registry, system = context.registry, context.system
    champion = registry.champion(system)
    if champion is None or champion.version.number == number:
        return False
    history = registry.history(system)
    ended = [change for change in history if change.previous == number]
    if not ended or {ended[-1].action, history[-1].action} - BY_ITSELF:
        return False
    return registry.version(system, number).as_of >= champion.version.as_of


def _withdrawn(context: Context, number: int) -> Rollout | None:
    """The rollout that runs though its model is declared no more, as that of the champion is.

    It is none that a person began, nor one of a model that has learnt from later data.
    """
    registry, system = context.registry, context.system
    rollout, champion = registry.running_rollout(system), registry.champion(system)
    if rollout is None or champion is None or champion.version.number != number:
        return None
    later = registry.version(system, rollout.challenger).as_of > champion.version.as_of
    return rollout if rollout.by_itself and not later else None


def _withdraw(context: Context, number: int) -> None:
    """End such a rollout; replicas hear of it by the next deployment."""
    with release_lock(context):  # whoever drives it may be taking a look
        rollout = _withdrawn(context, number)
        if rollout is not None:
            ended = stop(rollout, f"version {number} is declared again", datetime.now(UTC))
            context.registry.save_rollout(ended.model_copy(update={"withdrawn": True}))


def _undone(context: Context, version: Reference) -> str | None:
    """Why a registration is not true any more; None where it is."""
    if not isinstance(version, Version):
        return "nothing was registered"
    system = context.system
    registered = context.registry.find(system, version.digest)
    if registered is None:
        return f"the registry does not know version {version.number}"
    if declared_again(context, version.number):
        return f"version {version.number} is declared again"
    withdrawn = _withdrawn(context, version.number)
    if withdrawn is not None:
        challenger = withdrawn.challenger
        return f"version {challenger} is rolled out, and version {version.number} declared again"
    approve = context.declaration.serve.approve
    if registered.passed and approve is None and not _stays_back(context, registered):
        if any(one.challenger == version.number for one in context.registry.rollouts(system)):
            return f"version {version.number} is declared again"
        return f"version {version.number} passed, and no approval is declared any more"
    return None


def _stays_back(context: Context, version: RegisteredVersion) -> bool:
    """Whether a model was promoted or rolled out before, and sent back; or is the champion.

    That holds for what was served. It does not for the same fit with a refit, or without one: that
    is another model, which takes the place of the champion where the gates have judged both by one
    fit, or where the champion is the one that they have compared it with.
    """
    registry, system, number = context.registry, context.system, version.number
    rollouts = registry.rollouts(system)
    tried = {rollout.challenger for rollout in rollouts if not rollout.withdrawn}
    if number in tried or registry.was_champion(system, number):
        return True
    champion = registry.champion(system)
    judged = [one for one in _others_of_fit(context, version) if _was_champion(context, one)]
    if champion is None or not judged or _of_one_fit(context, version):
        return False
    return version.incumbent != champion.version.number


def _of_one_fit(context: Context, version: RegisteredVersion) -> bool:
    """Whether what the gates have judged is the champion, or would be again, in another form."""
    champion = context.registry.champion(context.system)
    return any(
        (champion is not None and champion.version.number == one.number)
        or declared_again(context, one.number)
        for one in _others_of_fit(context, version)
    )


def _others_of_fit(context: Context, version: RegisteredVersion) -> list[RegisteredVersion]:
    """The versions of which the same fit was measured: with a refit, and without."""
    every = context.registry.of_fit(context.system, version.measured_digest)
    return [one for one in every if one.number != version.number]


def _was_champion(context: Context, version: RegisteredVersion) -> bool:
    return context.registry.was_champion(context.system, version.number)


def _plan_of(context: Context) -> tuple[Step, ...]:
    from holdtrue.plan._plan import steps_until

    return steps_until(None, context.declaration)


def serve_champion(context: Context) -> Release:
    """Make the endpoint answer with the champion, and with the challenger of a running rollout.

    A challenger that cannot be served is sent back, with the reason.

    Raises:
        ServingError: There is no champion, or it cannot be served.
    """
    with release_lock(context):
        release = serve_now(context)
        note_served(context, release)
    return release


def note_served(context: Context, release: Release) -> None:
    """Record that the champion is served, where no run did it, as the step that serves would.

    Otherwise the next plan would serve once more what already answers. What the system used last
    stays as it is: a training may be under way. Where it cannot be written, that is said on stderr,
    and what was done stands: the next `apply` serves the same once more.
    """
    journal = Journal(context.store, context.system)
    last = journal.last("serve")
    if last is None:
        return
    # The code stays that of then: replicas are not started anew for another champion.
    components = last.components | {
        "declared": _reads_serving(context.declaration),
        "outside": _champion(context, {}),
    }
    record = Record(
        step="serve",
        digest=digest(components),
        components=components,
        output=release.model_dump(mode="json"),
        finished=datetime.now(UTC),
        seconds=0.0,  # of no run
    )
    try:
        journal.write(record)
    except OSError as err:
        said = refused_by_machine(err, context.store.root) or err
        sys.stderr.write(f"Warning: it is not written down that this is served: {said}\n")


def release_lock(context: Context) -> AbstractContextManager[None]:
    """Keep other processes from changing which versions of the system answer.

    Raises:
        StackError: Somebody else held it for minutes.
    """
    return context.stack.lock(f"release-{context.system}")


def serve_now(context: Context) -> Release:
    """As `serve_champion`, for those who hold the `release_lock`."""
    registry, system = context.registry, context.system
    champion = registry.champion(system)
    if champion is None:
        message = f"no version of {system} has passed the gates yet: there is nothing to serve"
        raise ServingError(message, hint="`holdtrue status` says what was refused and why")
    context.stack.up_ray(context.declaration.ray.address)
    rollout = registry.running_rollout(system)
    if rollout is not None and rollout.generation != champion.generation:
        reason = f"version {champion.version.number} was made the champion meanwhile"
        registry.save_rollout(stop(rollout, reason, datetime.now(UTC)))
        rollout = None
    if rollout is not None and (after := as_declared(context, rollout)) != rollout:
        rollout = registry.save_rollout(after)
    try:
        endpoint = deploy_arms(context, champion, rollout)
    except ServingError as err:
        if rollout is None:
            raise
        registry.save_rollout(stop(rollout, err.message, datetime.now(UTC), "back"))
        endpoint = deploy_arms(context, champion, None)
    version = champion.version
    return Release(system=system, version=version.number, digest=version.digest, endpoint=endpoint)


def deploy_arms(context: Context, champion: Champion, rollout: Rollout | None) -> str:
    """Have every replica hold a champion, and the challenger of a rollout at its present step.

    Returns:
        URL that predictions are posted to.

    Raises:
        ServingError: One of them cannot be served; what was served before stays.
        StackError: Ray Serve does not answer, or took too long.
    """
    slate = slate_of(
        context.declaration,
        context.store,
        arms_of(context, champion, rollout),
        str(rollout.id) if rollout is not None and rollout.state == "running" else None,
        project=context.project,
    )
    return deploy(context.stack, context.declaration, slate)


def _serve(work: Work) -> Release:
    work.progress(0, 0, "deploying the champion")
    with release_lock(work.context):
        return serve_now(work.context)


def _reads_serving(declaration: Declaration) -> dict[str, Any]:
    return _dump(declaration, name=True, serve=True, data={"key", "time"})


def _champion(context: Context, inputs: Inputs) -> dict[str, Any]:
    del inputs
    champion = context.registry.champion(context.system)
    # Not the challenger: whoever begins or ends a rollout deploys it, and `not_served` sees to it.
    return {"champion": None if champion is None else champion.version.number}


def not_served(context: Context, release: Reference) -> str | None:
    """Why a release is not true any more; None where the endpoint answers with that version."""
    if not isinstance(release, Release):
        return "nothing was served"
    if not context.stack.state().ray_address:
        return "nothing is up"
    with Endpoint(release.endpoint) as endpoint:
        ready = endpoint.ready(_ASK_TIMEOUT_S)
    if ready is None or not ready.get("ready"):
        return "the endpoint does not answer"
    if ready.get("digest") != release.digest:
        return f"the endpoint answers with version {ready.get('version')}"
    rollout = context.registry.running_rollout(context.system)
    if ready.get("rollout") != (None if rollout is None else str(rollout.id)):
        return "the endpoint does not know how the rollout stands"
    return None


def _reads_registration(declaration: Declaration) -> dict[str, Any]:
    parts: dict[str, Any] = {"name": declaration.name}
    # Whether there is a mirror, not where: its address may hold a password.
    if declaration.track.mlflow:
        parts["mlflow"] = True
    if declaration.evaluate.refit:
        parts["evaluate.refit"] = True
    return parts


RELEASE_STEPS = (
    Step(
        name="register",
        says="give it a version; make it the champion, or roll it out, if it passed",
        output=Version,
        run=_register,
        reads=_reads_registration,
        rooms=(),
        inputs=("profile", "fit", "evaluate", "gate", "refit"),
        holds=_undone,
    ),
    Step(
        name="serve",
        says="answer requests with the champion",
        output=Release,
        run=_serve,
        reads=_reads_serving,
        rooms=("serving",),
        inputs=("register",),
        wanted=lambda declaration: declaration.serve.endpoint,
        outside=_champion,
        holds=not_served,
        serves=True,
    ),
)
