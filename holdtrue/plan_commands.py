"""The commands about what is to be done, and doing it: check, plan, apply, tune."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdtrue.commands import (
    AsJson,
    AsOf,
    DeclarationFile,
    DryRun,
    Here,
    duration_of,
    system_of,
    tell,
)
from holdtrue.errors import HoldtrueError, SearchStoppedError, SourceError
from holdtrue.flow_runs import prefect_known, run_flow, who_drives
from holdtrue.study_commands import study_words

if TYPE_CHECKING:
    from holdtrue.plan import Applied
    from holdtrue.system import System

Redo = Annotated[
    str | None,
    typer.Option(
        metavar="STEP",
        help="Do this step again, and what depends on it.",
        show_default=False,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (check, plan, apply, tune):
        app.command()(command)


def check(file: DeclarationFile, as_json: AsJson = False) -> None:
    """Refuse a declaration that cannot work, with line and column; runs nothing.

    Of one that extends another it says what it declares otherwise.
    """
    system = system_of(file)
    remarks = system.check()
    declared = system.declaration
    candidates = [candidate.estimator for candidate in declared.model.candidates]
    words = f"{file}: {declared.name} is in order ({declared.task}; {', '.join(candidates)})"
    facts: dict[str, Any] = {
        "name": declared.name,
        "task": declared.task,
        "candidates": candidates,
        "remarks": list(remarks),
        "extends": [str(path.relative_to(system.project)) for path in system.files[1:]],
        "changes": [
            {"key": change.key, "before": change.before, "after": change.after}
            for change in system.changes
        ],
    }
    if facts["extends"]:
        words += f"\nit extends {', which extends '.join(facts['extends'])}, and says otherwise:"
        width = max(len(change.key) for change in system.changes)
        words += "".join(f"\n  {one.key:<{width}}  {one.words}" for one in system.changes)
    tell("\nnote: ".join([words, *remarks]), facts, as_json=as_json)


def plan(
    file: DeclarationFile,
    as_of: AsOf = None,
    refresh: Annotated[bool, typer.Option(help="As if new data were read.")] = False,
    until: Annotated[
        str | None, typer.Option(help="Last step to look at.", show_default=False)
    ] = None,
    redo: Redo = None,
    as_json: AsJson = False,
) -> None:
    """Say which steps apply would run, and why; changes nothing.

    What apply would refuse before its first step is refused here, too. Where the source does not
    answer, it is taken to be as it was when it was read last.
    """
    _show_plan(
        system_of(file), as_json=as_json, as_of=as_of, refresh=refresh, until=until, redo=redo
    )


def _show_plan(system: System, *, as_json: bool, **asked: Any) -> None:
    silent = None
    try:
        system.check()
    except SourceError as err:
        silent = err
    planned = system.plan(**asked)
    if silent is not None:
        if all(step.runs for step in planned):
            raise silent
        words = f"The source could not be asked whether it has changed: {silent.message}"
        typer.echo(words, err=True)
    lines = [
        f"  {'run ' if step.runs else 'keep'}  {step.step:<9} {step.reason}" for step in planned
    ]
    count = sum(step.runs for step in planned)
    lines.append(f"{count} of {len(planned)} steps would run." if count else "Nothing to do.")
    facts = [{"step": step.step, "runs": step.runs, "reason": step.reason} for step in planned]
    tell("\n".join(lines), facts, as_json=as_json)


def apply(
    file: DeclarationFile,
    as_of: AsOf = None,
    refresh: Annotated[bool, typer.Option(help="Read new data, up to now.")] = False,
    until: Annotated[
        str | None, typer.Option(help="Last step to run, such as register.", show_default=False)
    ] = None,
    redo: Redo = None,
    in_process: Here = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make the declaration so: run the steps that are not done, and serve the champion.

    What was done is found again: a second run has nothing to do, and a changed line runs only
    the steps that it touches. Where nothing is up, Ray and Serve are started and left running.
    A dry run is a plan.
    """
    from holdtrue.progress import Silent, Terminal

    system = system_of(file)
    asked: dict[str, Any] = {"as_of": as_of, "refresh": refresh, "until": until, "redo": redo}
    if dry_run:
        _show_plan(system, as_json=as_json, **asked)
        return
    if not in_process and prefect_known(system) and _is_anything_to_do(system, **asked):
        run_flow(system, "train", **asked)
        # Every step is done now: this finds them, and says what they came to.
        applied = system.apply(until=until)
        ran: tuple[str, ...] | None = None
    else:
        reporter = Silent() if as_json else Terminal()
        applied = system.apply(reporter=reporter, **asked)
        ran = applied.ran
    steps = [
        {"step": done.step, "cached": done.cached, "seconds": round(done.seconds, 3)}
        for done in applied.steps
    ]
    facts = {
        "steps": steps,
        "champion": applied.champion,
        "endpoint": applied.endpoint,
        "refused": applied.refused,
        "stays_back": applied.stays_back,
    }
    tell(_applied_text(system, applied, ran), facts, as_json=as_json)
    if applied.refused is not None:
        if applied.champion is None:
            message = f"the gates refused the model, so nothing is served: {applied.refused}"
            raise HoldtrueError(message)
        typer.echo(f"Version {applied.champion} stays the champion: {applied.refused}", err=True)


def _applied_text(system: System, applied: Applied, ran: tuple[str, ...] | None) -> str:
    """What a run came to, for people; of a flow it is not known which steps ran."""
    if ran is None:
        ui = system.stack.state().prefect_ui or "your Prefect server"
        lines = [f"Done, as a flow; see {ui}"]
    elif ran == ():
        lines = ["Nothing to do: every step is done already."]
    else:
        lines = [f"Done: {', '.join(ran)}."]
    if applied.note:
        lines.append(f"Note: {applied.note}")
    if applied.endpoint:
        lines.append(f"Version {applied.champion} answers at {applied.endpoint}")
        keys = system.declaration.serve.access == "keys"
        shown = ", with the key that `holdtrue key show` prints" if keys else ""
        lines.append(f"How to ask it{shown}: {applied.endpoint.removesuffix('/predict')}/docs")
        rollout = system.registry.running_rollout(system.declaration.name)
        if rollout is not None:
            lines.append(f"Version {rollout.challenger} is rolled out: {rollout.where}")
            lines.append(who_drives(system, by_prefect=ran is None))
        if applied.stays_back is not None:
            lines.append(applied.stays_back)
        lines.append("It goes on answering; `holdtrue down` ends it.")
    elif applied.champion is not None and not system.declaration.serve.endpoint:
        champion = f"Version {applied.champion} is the champion"
        lines.append(f"{champion}: `holdtrue batch` scores with it.")
        lines += [] if applied.stays_back is None else [applied.stays_back]
    index = system.store.path("reports", system.declaration.name, "index.html")
    if index.exists():
        lines.append(f"Reports: {index}")
    return "\n".join(lines)


def _is_anything_to_do(system: System, **asked: Any) -> bool:
    system.check()
    return any(step.runs for step in system.plan(**asked))


def tune(
    file: DeclarationFile,
    trials: Annotated[
        str | None,
        typer.Option(
            help="Settings to try: 60 in all, or +20 more than there are.",
            show_default="tune.trials",
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(help="The search ends after this, such as 10m.", show_default="tune.timeout"),
    ] = None,
    as_of: AsOf = None,
    in_process: Here = False,
    as_json: AsJson = False,
) -> None:
    """Search the best setting: run the steps up to tune, and say how the search went.

    A search that was stopped goes on where it was. With --trials or --timeout it runs in this
    process.
    """
    from holdtrue.declaration import format_duration
    from holdtrue.progress import Silent, Terminal
    from holdtrue.reports import tuning_text

    system = system_of(file)
    limit = None if timeout is None else duration_of("--timeout", timeout)
    if (
        (trials, limit) == (None, None)
        and not in_process
        and prefect_known(system)
        and _is_anything_to_do(system, as_of=as_of, until="tune")
    ):
        run_flow(system, "train", as_of=as_of, until="tune")
    reporter = Silent() if as_json else Terminal()
    try:
        study = system.tune(trials=trials, timeout=limit, as_of=as_of, reporter=reporter)
    except SearchStoppedError as err:
        words = f"{tuning_text(err.study)}\nThe same command goes on."
        tell(words, err.study.model_dump(mode="json"), as_json=as_json)
        raise
    lines = [study_words(study, system.store.path(study.log))]
    kept = [] if trials is None else [f"trials: {len(study.trials)}"]
    kept += [] if limit is None else [f"timeout: {format_duration(limit)}"]
    if kept:
        lines.append(f"To keep this, write into {file}: tune: {{..., {', '.join(kept)}}}")
    tell("\n".join(lines), study.model_dump(mode="json"), as_json=as_json)
