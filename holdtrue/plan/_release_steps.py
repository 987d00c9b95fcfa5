"""The steps from a verdict to an answering endpoint."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from holdtrue.errors import ServingError
from holdtrue.mirror import mirror
from holdtrue.origin import origin_of
from holdtrue.plan._data_steps import _dump
from holdtrue.plan._journal import Journal
from holdtrue.plan._rollout import arms_of, as_declared, begin_rollout, goes_by_steps
from holdtrue.plan._step import Step, Work
from holdtrue.references import (
    Evaluation,
    ModelRef,
    ProfileRef,
    Reference,
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

    from holdtrue.plan._context import Context
    from holdtrue.plan._step import Inputs
    from holdtrue.registry import Champion
    from holdtrue.rollout import Rollout

# How long the question whether the endpoint still answers may take, in seconds.
_ASK_TIMEOUT_S = 3.0


def _register(work: Work) -> Version:
    context = work.context
    registry, system = context.registry, context.system
    model, verdict = work.get("fit", ModelRef), work.get("gate", Verdict)
    work.progress(0, 0, "registering it" if verdict.passed else "keeping the champion")
    evaluation = work.get("evaluate", Evaluation)
    version = registry.register(
        system,
        digest=model.digest,
        bundle=model.bundle,
        as_of=context.as_of,
        passed=verdict.passed,
        reason=f"{context.trigger}: {verdict.reason}",
        incumbent=evaluation.champion,
        metrics=evaluation.metrics,
        profile=work.get("profile", ProfileRef).path,
        lineage=dict(Journal(context.store, system).state().get("steps", {})),
        origin=origin_of(context.project),
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
    # A model that was promoted or rolled out before, and sent back, stays back.
    elif verdict.passed and not _was_tried(context, version.number):
        if evaluation.champion != (None if champion is None else champion.version.number):
            raise stale(system)
        if champion is not None and context.declaration.serve.approve is not None:
            work.progress(0, 0, "waiting for a person to approve it")
        elif goes_by_steps(context):
            work.progress(0, 0, "planning its rollout")
            begin_rollout(context, version.number)
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


def _undone(context: Context, version: Reference) -> str | None:
    """Why a registration is not true any more; None where it is."""
    if not isinstance(version, Version):
        return "nothing was registered"
    registered = context.registry.find(context.system, version.digest)
    if registered is None:
        return f"the registry does not know version {version.number}"
    if declared_again(context, version.number):
        return f"version {version.number} is declared again"
    approve = context.declaration.serve.approve
    if registered.passed and approve is None and not _was_tried(context, version.number):
        return f"version {version.number} passed, and no approval is declared any more"
    return None


def _was_tried(context: Context, number: int) -> bool:
    registry, system = context.registry, context.system
    tried = {rollout.challenger for rollout in registry.rollouts(system)}
    return number in tried or registry.was_champion(system, number)


def serve_champion(context: Context) -> Release:
    """Make the endpoint answer with the champion, and with the challenger of a running rollout.

    A challenger that cannot be served is sent back, with the reason.

    Raises:
        ServingError: There is no champion, or it cannot be served.
    """
    with release_lock(context):
        return serve_now(context)


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
    return serve_champion(work.context)


def _champion(context: Context, inputs: Inputs) -> dict[str, Any]:
    del inputs
    champion = context.registry.champion(context.system)
    rollout = context.registry.running_rollout(context.system)
    served: dict[str, Any] = {"champion": None if champion is None else champion.version.number}
    # Only while one runs: a step that a rollout has not changed is found again.
    return served if rollout is None else served | {"challenger": rollout.challenger}


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


RELEASE_STEPS = (
    Step(
        name="register",
        says="give it a version; make it the champion, or roll it out, if it passed",
        output=Version,
        run=_register,
        # Whether there is a mirror, not where: its address may hold a password.
        reads=lambda d: {"name": d.name} | ({"mlflow": True} if d.track.mlflow else {}),
        rooms=(),
        inputs=("profile", "fit", "evaluate", "gate"),
        holds=_undone,
    ),
    Step(
        name="serve",
        says="answer requests with the champion",
        output=Release,
        run=_serve,
        reads=lambda d: _dump(d, name=True, serve=True, data={"key", "time"}),
        rooms=("serving",),
        inputs=("register",),
        outside=_champion,
        holds=not_served,
        serves=True,
    ),
)
