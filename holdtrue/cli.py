"""The command `holdtrue`."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdtrue import __version__
from holdtrue.access_commands import key_app
from holdtrue.errors import ConfigError, HoldtrueError, SearchStoppedError, StackError
from holdtrue.release_commands import add_to

if TYPE_CHECKING:
    from datetime import timedelta

    from holdtrue.stack import Stack
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
    proves it, and serves it.

    Exit codes: 0 done, 1 failed, 2 refused input, 3 done except for rows that were rejected.""",
)

# What `predict` ends with where it has left rows out.
_SOME_REJECTED = 3
# What typer ends with on Ctrl-C, without a word.
_INTERRUPTED = 130

DeclarationFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="The declaration, such as configs/flights.yaml.", show_default=False
    ),
]
AsOf = Annotated[
    datetime | None,
    typer.Option(
        help="Moment (UTC) to take for now, such as 2013-07-01T12:00:00.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Here = Annotated[
    bool,
    typer.Option("--in-process", help="Run in this process, also where a Prefect server is known."),
]
Folder = Annotated[
    Path,
    typer.Option(
        "--project", help="Folder of the project; its store says what is up.", show_default=False
    ),
]


def _system(path: Path) -> System:
    from holdtrue.system import System

    return System(path)


def _stack(project: Path) -> Stack:
    from holdtrue.stack import Stack
    from holdtrue.store import Store

    return Stack(Store.of(project / "any.yaml"))


def _say(text: str = "") -> None:
    typer.echo(text)


def _json(content: Any) -> None:
    typer.echo(json.dumps(content, indent=2, default=str))


@app.command()
def init(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="A CSV, Parquet or JSON lines file.")
    ],
    target: Annotated[str, typer.Option(help="Column to predict.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the system.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="NAME.yaml")
    ] = None,
) -> None:
    """Write a first declaration from a data file and the column to predict."""
    from holdtrue.declaration import draft, parse
    from holdtrue.store import write_atomically

    text = draft(data, target, name=name)
    path = output or Path(f"{parse(text, 'the draft').name}.yaml")
    if path.exists():
        message = f"{path} exists already"
        raise ConfigError(message, hint="remove it, or give another --output")
    write_atomically(path, text.encode())
    _say(f"wrote {path}: read it through, then run: holdtrue apply {path}")


@app.command()
def check(file: DeclarationFile) -> None:
    """Refuse a declaration that cannot work, with line and column; runs nothing."""
    system = _system(file)
    system.check()
    candidates = ", ".join(c.estimator for c in system.declaration.model.candidates)
    _say(f"{file}: {system.declaration.name} is in order ({system.declaration.task}; {candidates})")


@app.command()
def plan(
    file: DeclarationFile,
    as_of: AsOf = None,
    refresh: Annotated[bool, typer.Option(help="As if new data were read.")] = False,
    until: Annotated[
        str | None, typer.Option(help="Last step to look at.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which steps apply would run, and why; changes nothing."""
    system = _system(file)
    planned = system.plan(as_of=as_of, refresh=refresh, until=until)
    if as_json:
        _json([{"step": p.step, "runs": p.runs, "reason": p.reason} for p in planned])
        return
    for step in planned:
        _say(f"  {'run ' if step.runs else 'keep'}  {step.step:<9} {step.reason}")
    count = sum(step.runs for step in planned)
    _say(f"{count} of {len(planned)} steps would run." if count else "Nothing to do.")


@app.command()
def apply(
    file: DeclarationFile,
    as_of: AsOf = None,
    refresh: Annotated[bool, typer.Option(help="Read new data, up to now.")] = False,
    until: Annotated[
        str | None, typer.Option(help="Last step to run, such as register.", show_default=False)
    ] = None,
    in_process: Here = False,
    as_json: AsJson = False,
) -> None:
    """Make the declaration so: run the steps that are not done, and serve the champion.

    What was done is found again: a second run has nothing to do, and a changed line runs only
    the steps that it touches. Where nothing is up, Ray and Serve are started and left running.
    """
    from holdtrue.progress import Silent, Terminal

    system = _system(file)
    if (
        not in_process
        and _prefect_known(system)
        and any(p.runs for p in _plan(system, as_of, refresh, until))
    ):
        _run_flow(system, "train", as_of=as_of, refresh=refresh, until=until)
        # Every step is done now: this finds them, and says what they came to.
        applied = system.apply(until=until)
        ran: tuple[str, ...] | None = None
    else:
        reporter = Silent() if as_json else Terminal()
        applied = system.apply(as_of=as_of, refresh=refresh, until=until, reporter=reporter)
        ran = applied.ran
    if as_json:
        steps = [
            {"step": d.step, "cached": d.cached, "seconds": round(d.seconds, 3)}
            for d in applied.steps
        ]
        _json(
            {
                "steps": steps,
                "champion": applied.champion,
                "endpoint": applied.endpoint,
                "refused": applied.refused,
            }
        )
    else:
        if ran is None:
            _say(f"Done, as a flow; see {system.stack.state().prefect_ui or 'your Prefect server'}")
        elif ran == ():
            _say("Nothing to do: every step is done already.")
        else:
            _say(f"Done: {', '.join(ran)}.")
        if applied.endpoint:
            _say(f"Version {applied.champion} answers at {applied.endpoint}")
            rollout = system.registry.running_rollout(system.declaration.name)
            if rollout is not None:
                _say(f"Version {rollout.challenger} is rolled out: {rollout.where}")
                _say(f"Drive it with `holdtrue rollout run {file}`")
            _say("It goes on answering; `holdtrue down` ends it.")
        index = system.store.path("reports", system.declaration.name, "index.html")
        if index.exists():
            _say(f"Reports: {index}")
    if applied.refused is not None:
        if applied.champion is None:
            message = f"the gates refused the model, so nothing is served: {applied.refused}"
            raise HoldtrueError(message)
        typer.echo(f"Version {applied.champion} stays the champion: {applied.refused}", err=True)


def _plan(system: System, as_of: datetime | None, refresh: bool, until: str | None) -> list[Any]:
    system.check()
    return system.plan(as_of=as_of, refresh=refresh, until=until)


def _prefect_known(system: System) -> bool:
    known = "PREFECT_API_URL" in os.environ or system.stack.state().prefect_api is not None
    return known and (system.project / "flows" / "train.py").exists()


def _run_flow(system: System, flow: str, **options: Any) -> None:
    """Run a flow of the project, beside this process: the engine never imports Prefect."""
    arguments = [str(system.path.resolve())]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            arguments.append(flag)
        elif value not in (None, False):
            text = value.isoformat() if hasattr(value, "isoformat") else str(value)
            arguments += [flag, text]
    # What the user has set goes before what the stack knows.
    # Errors end in one sentence here; the Prefect UI has the whole log.
    quiet = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
    environment = quiet | system.stack.environment() | os.environ
    code = subprocess.call(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", f"flows.{flow}", *arguments], cwd=system.project, env=environment
    )
    if code != 0:
        raise SystemExit(code)


@app.command()
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

    system = _system(file)
    limit = None if timeout is None else _duration("--timeout", timeout)
    if (
        (trials, limit) == (None, None)
        and not in_process
        and _prefect_known(system)
        and any(p.runs for p in _plan(system, as_of, False, "tune"))
    ):
        _run_flow(system, "train", as_of=as_of, until="tune")
    reporter = Silent() if as_json else Terminal()
    try:
        study = system.tune(trials=trials, timeout=limit, as_of=as_of, reporter=reporter)
    except SearchStoppedError as err:
        _say(tuning_text(err.study))
        _say("The same command goes on.")
        raise
    if as_json:
        _json(study.model_dump(mode="json"))
        return
    _say(tuning_text(study))
    log = system.store.path(study.log)
    _say(f"Log: {log}")
    _say(f"To look at it: optuna-dashboard {shlex.quote(str(log))}")
    kept = [] if trials is None else [f"trials: {len(study.trials)}"]
    kept += [] if limit is None else [f"timeout: {format_duration(limit)}"]
    if kept:
        _say(f"To keep this, write into {file}: tune: {{..., {', '.join(kept)}}}")


def _duration(flag: str, text: str) -> timedelta:
    from holdtrue.declaration import parse_duration

    try:
        return parse_duration(text)
    except ValueError as err:
        message = f"{flag} {text}: {err}"
        raise ConfigError(message) from None


study_app = typer.Typer(
    no_args_is_help=True, help="Take a study to another Optuna storage, or bring one from there."
)
app.add_typer(study_app, name="study")
app.add_typer(key_app, name="key")

Storage = Annotated[
    str,
    typer.Argument(
        metavar="STORAGE",
        help="Such as sqlite:///studies.db or postgresql://..., or an Optuna journal file.",
        show_default=False,
    ),
]


@study_app.command("export")
def export_(
    file: DeclarationFile,
    storage: Storage,
    study: Annotated[
        str | None, typer.Option(help="What to call it there.", show_default="its own name")
    ] = None,
) -> None:
    """Copy the last study of a system into an Optuna storage."""
    from holdtrue.tuning._exchange import export_study

    name = export_study(_system(file).study_log(), storage, study)
    _say(f"exported the study {name}")


@study_app.command("import")
def import_(
    file: DeclarationFile,
    storage: Storage,
    study: Annotated[
        str | None, typer.Option(help="Its name there.", show_default="the only one")
    ] = None,
) -> None:
    """Bring in an Optuna study of your own: the next search begins with the best of it.

    Its parameters must be called as in the declaration; with several candidates as in an exported
    study, with the candidate's path before them.
    """
    from holdtrue.tuning._exchange import import_study

    system = _system(file)
    brought = import_study(system.store, system.declaration, storage, study)
    _say(f"imported {brought.trials:,} trials into {brought.path}")
    for note in brought.notes:
        _say(f"  {note}")
    if not system.declaration.tune.warm_start:
        _say("The declaration says tune.warm_start: no, so the next search will not use them.")


@app.command()
def status(file: DeclarationFile, as_json: AsJson = False) -> None:
    """Say what is served since when, and what the monitor decided last."""
    found = _system(file).status()
    if as_json:
        _json(found.model_dump(mode="json"))
        return
    champion, decision = found.champion, found.last_decision
    _say(f"{found.name}: {'serving at ' + str(found.endpoint) if found.serving else 'not serving'}")
    if champion is None:
        _say("champion: none yet; run `holdtrue apply`")
    else:
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in champion.metrics.items())
        _say(
            f"champion: version {champion.version} of {found.versions} "
            f"since {champion.since:%Y-%m-%d %H:%M} UTC"
        )
        _say(f"  data as of {champion.trained_as_of:%Y-%m-%d %H:%M} UTC; {metrics}")
        _say(f"  {champion.reason}")
        _say(f"  {champion.compilation or 'its bundle is damaged'}")
    if found.rollout is not None:
        _say(f"rollout: {found.rollout.headline}")
        _say(f"  {found.rollout.reason or 'no look yet'}")
        for check in found.rollout.checks:
            _say(f"  {check.criterion}: {check.state}: {check.said}")
    if found.refused is not None:
        _say(f"refused: version {found.versions}: {found.refused}")
    if decision is None:
        _say("monitor: no check yet")
    else:
        _say(f"monitor: {decision.action} at {decision.at:%Y-%m-%d %H:%M} UTC: {decision.reason}")
    for title, value in (
        ("reports", found.reports),
        ("Prefect", found.prefect_ui),
        ("store", found.store),
    ):
        if value:
            _say(f"{title}: {value}")


@app.command()
def monitor(
    file: DeclarationFile,
    as_of: AsOf = None,
    retrain: Annotated[
        bool, typer.Option(help="Start the retraining that is called for.", show_default=True)
    ] = True,
    in_process: Here = False,
    as_json: AsJson = False,
) -> None:
    """Compare what was served with the reference, and retrain if that is called for.

    Says what it saw and why it decided so. Where a Prefect server is known, a retraining is asked
    for by an event, which starts the deployment retrain; elsewhere it runs at once.
    """
    from holdtrue.progress import Silent, Terminal

    system = _system(file)
    reporter = Silent() if as_json else Terminal()
    in_flow = not in_process and _prefect_known(system)
    if in_flow:
        _run_flow(system, "monitor", as_of=as_of)
        report = system.registry.drift_reports(system.declaration.name)[-1]
    else:
        report = system.monitor(as_of=as_of, reporter=reporter)
    if as_json:
        _json(report.model_dump(mode="json"))
    else:
        for window in report.windows:
            if window.state != "quiet":
                _say(f"  {window.start:%Y-%m-%d %H:%M}  {window.state}: {window.detail}")
        for seen in report.performance:
            _say(f"  {seen.detail}")
        if report.removed:
            _say(f"  {report.removed:,} captured rows were older than serve.keep and are deleted")
        _say(f"{report.decision.action}: {report.decision.reason}")
    called_for = report.decision.action == "retrain" and report.decision.held_back is None
    if called_for and retrain and not in_flow:
        trigger = ", ".join(report.decision.signals)
        applied = system.apply(as_of=report.at, reporter=reporter, trigger=trigger)
        if not as_json:
            outcome = applied.refused or f"version {applied.champion} answers now"
            _say(f"retrained: {outcome}")


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

    system = _system(file)
    reporter = Terminal() if sys.stderr.isatty() and not as_json else Silent()
    scored = system.predict_files(rows, output, version=version, explain=explain, reporter=reporter)
    if as_json:
        _json(asdict(scored))
    else:
        for line in describe(scored, output):
            _say(line)
    if scored.rejected:
        raise typer.Exit(_SOME_REJECTED)


@app.command()
def trace(
    prediction: Annotated[
        str, typer.Argument(metavar="ID", help="Of the prediction; each answer has it in `ids`.")
    ],
    file: DeclarationFile,
    as_json: AsJson = False,
) -> None:
    """Say where a prediction comes from, and whether its model gives the same score now.

    That is the row, the version, its data, declaration and code. Looks at what was captured, also
    at what is not folded in yet; needs nothing that is up.
    """
    from holdtrue.trace import trace_text

    found = _system(file).trace(prediction)
    if as_json:
        _json(found.model_dump(mode="json"))
    else:
        _say(trace_text(found))


add_to(app)


@app.command()
def up(project: Folder = Path()) -> None:
    """Start Ray, a Prefect server and a worker on this machine, and leave them running.

    Where the project has a prefect.yaml, its deployments are created: schedules and events work.
    """
    stack = _stack(project)
    stack.up_ray(progress=_say)
    stack.up_prefect(progress=_say)
    state = stack.up_worker(project.resolve(), progress=_say)
    if (project / "prefect.yaml").exists():
        _say("creating the deployments of prefect.yaml")
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        environment = os.environ | stack.environment()
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            command, cwd=project, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            message = f"prefect deploy --all failed: {done.stderr.strip()[-500:]}"
            raise StackError(message, hint="look at prefect.yaml; Ray and Prefect go on running")
    _say(f"Ray: {state.ray_address} (dashboard {state.ray_dashboard})")
    _say(f"Prefect: {state.prefect_ui}")
    _say(f"  password: {stack.environment()['PREFECT_API_AUTH_STRING']}")


@app.command()
def down(project: Folder = Path()) -> None:
    """End everything that up or apply started for this project; models and data stay."""
    ended = _stack(project).down()
    _say(f"ended {', '.join(ended)}" if ended else "nothing was up")


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        _say(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command; errors end in one sentence and an exit code, not in a traceback."""
    try:
        app()
    except HoldtrueError as err:
        typer.secho(f"error: {err}", err=True, fg=typer.colors.RED)
        raise SystemExit(err.exit_code) from None
    except SystemExit as err:
        if err.code == _INTERRUPTED:
            typer.echo("stopped; what was finished is kept, and found the next time", err=True)
        raise


if __name__ == "__main__":
    main()
