"""The command `holdtrue`."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from holdtrue import (
    __version__,
    answer_commands,
    backtest_commands,
    backup_commands,
    batch_commands,
    data_commands,
    notify_commands,
    plan_commands,
    project_commands,
    release_commands,
    stack_commands,
)
from holdtrue.access_commands import key_app
from holdtrue.commands import (
    SOME_REJECTED,
    AsJson,
    AsOf,
    DeclarationFile,
    Here,
    system_of,
    tell,
)
from holdtrue.errors import (
    ConfigError,
    HoldtrueError,
    refused_by_machine,
)
from holdtrue.flow_runs import prefect_known, run_flow
from holdtrue.registry_commands import registry_app
from holdtrue.study_commands import study_app

if TYPE_CHECKING:
    from holdtrue.plan import Applied
    from holdtrue.system import System

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Declare a machine-learning system in one YAML file; holdtrue makes it so.

    A first session: **holdtrue init flights.csv --target late** writes a declaration,
    **holdtrue plan flights.yaml** says what would be done, and
    **holdtrue apply flights.yaml** does it: it reads the data, searches a model,
    proves it, and serves it. **holdtrue new flights.yaml** and **holdtrue up** make it run by
    itself from then on.

    Exit codes: 0 done, 1 failed, 2 refused input, 3 done except for rows that were rejected,
    4 with **monitor --exit-code** where anything is called for.""",
)

# What `monitor --exit-code` ends with where it has decided on anything.
_CALLED_FOR = 4
# What typer ends with on Ctrl-C, without a word.
_INTERRUPTED = 130

project_commands.add_to(app)
backtest_commands.add_to(app)


plan_commands.add_to(app)
app.add_typer(study_app, name="study")
app.add_typer(key_app, name="key")
app.add_typer(registry_app, name="registry")


@app.command()
def status(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="The declaration; each that prefect.yaml deploys where left out.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is served since when, and what the monitor decided last."""
    from holdtrue.status import status_text

    if file is not None:
        found = system_of(file).status()
        tell(status_text(found), found.model_dump(mode="json"), as_json=as_json)
        return
    words, facts, refused = [], [], 0
    for path in _deployed_here():
        try:
            found = system_of(path).status()
        except ConfigError as err:
            refused = err.exit_code
            words.append(str(err) if str(path) in str(err) else f"{path}: {err}")
            facts.append({"declaration": str(path), "refused": str(err)})
        else:
            words.append(status_text(found))
            facts.append(found.model_dump(mode="json"))
    tell("\n\n".join(words), facts, as_json=as_json)
    if refused:
        raise typer.Exit(refused)


def _deployed_here() -> list[Path]:
    """The declarations that the prefect.yaml of this folder's project deploys.

    Raises:
        ConfigError: There is none.
    """
    from holdtrue.application import deployed
    from holdtrue.store import find_project

    project = find_project(Path("any.yaml"))
    paths = deployed(project)
    if not paths:
        message = f"no declaration is given, and no prefect.yaml in {project} deploys one"
        raise ConfigError(message, hint="name it: holdtrue status FILE")
    return [project / path for path in paths]


@app.command()
def monitor(
    file: DeclarationFile,
    as_of: AsOf = None,
    retrain: Annotated[
        bool, typer.Option(help="Start the retraining that is called for.", show_default=True)
    ] = True,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with 4 where anything is called for.")
    ] = False,
    in_process: Here = False,
    as_json: AsJson = False,
) -> None:
    """Compare what was served with the reference, and retrain if that is called for.

    Says what it saw and why it decided so. Where a Prefect server is known, a retraining is asked
    for by an event, which starts the deployment retrain; elsewhere it runs at once.
    """
    from holdtrue.progress import Silent, Terminal
    from holdtrue.watch import report_text

    system = system_of(file)
    reporter = Silent() if as_json else Terminal()
    in_flow = not in_process and prefect_known(system)
    if in_flow:
        run_flow(system, "monitor", as_of=as_of, no_retrain=not retrain)
        report = system.registry.drift_reports(system.declaration.name, last=1)[-1]
    else:
        report = system.monitor(as_of=as_of, reporter=reporter)
    tell(report_text(report), report.model_dump(mode="json"), as_json=as_json)
    called_for = report.decision.action == "retrain" and report.decision.held_back is None
    if called_for and retrain and not in_flow:
        trigger = ", ".join(report.decision.signals)
        applied = system.apply(as_of=report.at, reporter=reporter, trigger=trigger)
        if not as_json:
            typer.echo(_retrained(applied, report.version, system))
    if exit_code and report.decision.action != "none":
        raise typer.Exit(_CALLED_FOR)


def _retrained(applied: Applied, before: int, system: System) -> str:
    """What became of a retraining, whose monitor looked at the version before."""
    if applied.refused is not None:
        kept = f"version {applied.champion} stays the champion"
        return f"trained, and refused: {applied.refused}; {kept}"
    rollout = system.registry.running_rollout(system.declaration.name)
    if rollout is not None:
        return f"trained: version {rollout.challenger} is rolled out by steps"
    if applied.stays_back is not None:
        return f"trained. {applied.stays_back}"
    if applied.champion == before:
        return f"trained, with nothing new in it: version {before} stays the champion"
    return f"retrained: version {applied.champion} is the champion now"


@app.command()
def predict(
    file: DeclarationFile,
    rows: Annotated[
        Path,
        typer.Argument(
            metavar="ROWS", help="A CSV, Parquet or JSON lines file, or a folder of such files."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write: .csv, .parquet or .jsonl.")
    ],
    version: Annotated[
        int | None, typer.Option(help="Instead of the champion.", show_default=False)
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also write how much each column adds to the score.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score the rows of files with the champion; needs nothing that is up.

    A run that was stopped goes on where it was. Rows that are not acceptable are left out, and
    OUTPUT.rejected.parquet says which, and why; the exit code is 3 then.
    """
    from holdtrue.batch import describe
    from holdtrue.progress import Silent, Terminal

    system = system_of(file)
    reporter = Terminal() if sys.stderr.isatty() and not as_json else Silent()
    scored = system.predict_files(rows, output, version=version, explain=explain, reporter=reporter)
    tell("\n".join(describe(scored, output)), asdict(scored), as_json=as_json)
    if scored.rejected:
        raise typer.Exit(SOME_REJECTED)


batch_commands.add_to(app)
answer_commands.add_to(app)
release_commands.add_to(app)
data_commands.add_to(app)
notify_commands.add_to(app)
backup_commands.add_to(app)
stack_commands.add_to(app)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command; errors end in one sentence and an exit code, not in a traceback."""
    try:
        app()
    except HoldtrueError as err:
        _fail(err)
    except OSError as err:
        refused = refused_by_machine(err)
        if refused is None:
            raise
        _fail(refused)
    except SystemExit as err:
        if err.code == _INTERRUPTED:
            typer.echo("stopped; what was finished is kept, and found the next time", err=True)
        raise


def _fail(err: HoldtrueError) -> NoReturn:
    with suppress(OSError):  # such as on a full disk that the output goes to
        typer.secho(f"error: {err}", err=True, fg=typer.colors.RED)
    raise SystemExit(err.exit_code) from None


if __name__ == "__main__":
    main()
