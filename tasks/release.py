"""From a verdict to an answering endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import task

from tasks._step import OPTIONS, perform

if TYPE_CHECKING:
    from holdtrue.references import Evaluation, ModelRef, ProfileRef, Verdict, Version
    from holdtrue.system import Run


@task(name="register", **OPTIONS)
def register(
    run: Run, profile: ProfileRef, fit: ModelRef, evaluate: Evaluation, gate: Verdict
) -> Any:
    """Give the model a version; make it the champion if it passed: a `Version`."""
    inputs = {"profile": profile, "fit": fit, "evaluate": evaluate, "gate": gate}
    return perform(run, "register", inputs)


@task(name="serve", **OPTIONS)
def serve(run: Run, register: Version) -> Any:
    """Answer requests with the champion, on Ray Serve: a `Release`."""
    return perform(run, "serve", {"register": register})
