"""The steps from a verdict to an answering endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdtrue.errors import ServingError
from holdtrue.mirror import mirror
from holdtrue.plan._data_steps import _dump
from holdtrue.plan._journal import Journal
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
from holdtrue.registry import stale
from holdtrue.serving import Endpoint, deploy

if TYPE_CHECKING:
    from holdtrue.plan._context import Context
    from holdtrue.plan._step import Inputs

# How long the question whether the endpoint still answers may take, in seconds.
_ASK_TIMEOUT_S = 3.0


def _register(work: Work) -> Version:
    context = work.context
    registry, system = context.registry, context.system
    model, verdict = work.get("fit", ModelRef), work.get("gate", Verdict)
    work.progress(0, 0, "promoting" if verdict.passed else "keeping the champion")
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
    )
    # A model that was promoted before, and rolled back by a person, stays rolled back.
    promoted = verdict.passed and not registry.was_champion(system, version.number)
    if promoted:
        champion = registry.champion(system)
        if evaluation.champion != (None if champion is None else champion.version.number):
            raise stale(system)
        generation = 0 if champion is None else champion.generation
        registry.promote(system, version.number, generation=generation, reason=version.reason)
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


def serve_champion(context: Context) -> Release:
    """Make the endpoint answer with the champion.

    Raises:
        ServingError: There is no champion.
    """
    champion = context.registry.champion(context.system)
    if champion is None:
        message = (
            f"no version of {context.system} has passed the gates yet: there is nothing to serve"
        )
        raise ServingError(message, hint="`holdtrue status` says what was refused and why")
    version = champion.version
    context.stack.up_ray(context.declaration.ray.address)
    endpoint = deploy(
        context.stack,
        context.declaration,
        version.number,
        context.store.path(version.bundle),
        version.digest,
        context.store,
    )
    return Release(
        system=context.system, version=version.number, digest=version.digest, endpoint=endpoint
    )


def _serve(work: Work) -> Release:
    work.progress(0, 0, "deploying the champion")
    return serve_champion(work.context)


def _champion(context: Context, inputs: Inputs) -> dict[str, Any]:
    del inputs
    champion = context.registry.champion(context.system)
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
    return None


RELEASE_STEPS = (
    Step(
        name="register",
        says="give it a version; make it the champion if it passed",
        output=Version,
        run=_register,
        # Whether there is a mirror, not where: its address may hold a password.
        reads=lambda d: {"name": d.name} | ({"mlflow": True} if d.track.mlflow else {}),
        rooms=(),
        inputs=("profile", "fit", "evaluate", "gate"),
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
