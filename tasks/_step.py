"""What the tasks share: how a step is retried, found, shown and reported."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from holdtrue.errors import Retryable
from holdtrue.plan import Runner, report_markdown
from tasks._progress import Shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect.client.schemas.objects import State

    from holdtrue.references import Reference
    from holdtrue.system import Run


def worth_retrying(_task: Any, _run: Any, state: State[Any]) -> bool:
    """Retry what may go well the next time, such as a cluster that does not answer."""
    return isinstance(state.result(raise_on_failure=False), Retryable)


# Finding a finished step again is the engine's business (its digest knows what a step depends on,
# and the journal outlives a crash): Prefect's own cache would be a second, weaker truth.
OPTIONS: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [2, 10],
    "retry_condition_fn": worth_retrying,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}


def perform(run: Run, step: str, inputs: Mapping[str, Reference]) -> Any:
    """Do a step and publish its report; a step that was found is shown as Cached."""
    context = run.context()
    context = replace(context, reporter=Shown(context.system))
    runner = Runner(context)
    done = runner.perform(step, inputs)
    publish(context.system, step, report_markdown(context.declaration, step, runner.output))
    if done.cached:
        return Completed(
            name="Cached", message=f"found by its digest {done.digest}", data=done.output
        )
    return done.output


def publish(system: str, step: str, markdown: str | None) -> None:
    """Show a report in the Prefect UI, as an artifact with a history."""
    titles = {"split": "data", "tune": "tuning", "gate": "evaluation", "monitor": "drift"}
    if markdown is not None:
        create_markdown_artifact(
            markdown,
            key=f"{system}-{titles[step]}",
            description=f"{titles[step]} report of {system}",
        )
