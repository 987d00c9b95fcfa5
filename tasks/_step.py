"""What the tasks share: how a step is retried, found, shown and reported."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.states import Completed

from holdtrue.errors import Retryable
from holdtrue.plan import Runner, outcome, report_markdown, run_markdown
from holdtrue.runs import runs_of
from tasks._progress import Shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prefect.client.schemas.objects import State

    from holdtrue.plan import Context
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
    say(step, done.output, "found, done before" if done.cached else f"done in {done.seconds:.1f} s")
    if done.cached:
        return Completed(
            name="Cached", message=f"found by its digest {done.digest}", data=done.output
        )
    return done.output


def say(what: str, output: Reference, how: str = "") -> None:
    """Say in the log of the run what a step came to."""
    parts = [part for part in (how, outcome(output)) if part]
    get_run_logger().info("%s: %s", what, "; ".join(parts))


def announce(event: str, system: str, **facts: Any) -> None:
    """Emit an event about a system, which automations may wait for.

    Args:
        event: Its name, such as ``holdtrue.drift.detected``.
        system: Name of the system; the event's resource is ``holdtrue.system.NAME``.
        facts: Its payload.
    """
    emit_event(
        event,
        resource={
            "prefect.resource.id": f"holdtrue.system.{system}",
            "prefect.resource.name": system,
        },
        payload=facts,
    )


@contextmanager
def published_run(context: Context) -> Iterator[None]:
    """Show where the time of a run of the plan went, once it has ended, however it did."""
    began = datetime.now(UTC)
    try:
        yield
    finally:
        last = next(iter(runs_of(context.store, context.system, last=1)), None)
        if last is not None and last.ended is not None and last.ended >= began:
            try:
                publish(context.system, "run", run_markdown(context))
            except Exception:  # noqa: BLE001 - whatever is wrong with the server, the run is over
                get_run_logger().warning("the report of the run was not published", exc_info=True)


def publish(system: str, step: str, markdown: str | None) -> None:
    """Show a report in the Prefect UI, as an artifact with a history."""
    titles = {
        "split": "data",
        "tune": "tuning",
        "gate": "evaluation",
        "refit": "evaluation",
        "monitor": "drift",
        "backtest": "backtest",
        "run": "run",
    }
    if markdown is not None:
        create_markdown_artifact(
            markdown,
            key=f"{system}-{titles[step]}",
            description=f"{titles[step]} report of {system}",
        )
