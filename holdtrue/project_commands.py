"""The commands that a project begins with: init, new, ci."""

from __future__ import annotations

import shlex
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from holdtrue import __version__
from holdtrue.commands import AsJson, AsOf, DeclarationFile, DryRun, system_of, tell, tell_change
from holdtrue.errors import ConfigError, HoldtrueError

_FIRST_PORT = 8700


def add_to(app: typer.Typer) -> None:
    """Add the commands that one begins with to the command line."""
    app.command()(init)
    app.command()(new)
    app.command()(ci)


def init(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="A CSV, Parquet or JSON lines file.")
    ],
    target: Annotated[
        str | None, typer.Option(help="Column to predict; must be given.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the system.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="NAME.yaml")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a first declaration from a data file and the column to predict."""
    from holdtrue.declaration import draft, parse
    from holdtrue.store import find_project, write_atomically

    # Paths of a declaration start from its project's folder, which may be one above this.
    project = find_project(output or Path("any.yaml"))
    there = data.resolve()
    within = there.relative_to(project) if there.is_relative_to(project) else there
    port = _free_port({project, (output or Path("any.yaml")).resolve().parent})
    text = draft(data, target, name=name, files=within, port=port)
    called = parse(text, "the draft").name
    path = output or Path(f"{called}.yaml")
    if path.exists():
        message = f"{path} exists already"
        raise ConfigError(message, hint="remove it, or give another --output")
    write_atomically(path, text.encode())
    words = f"wrote {path}: read it through, then run: holdtrue apply {shlex.quote(str(path))}"
    tell(words, {"file": path, "name": called}, as_json=as_json)


def _free_port(folders: set[Path]) -> int:
    """A port that no other declaration in the folders has."""
    from holdtrue.declaration import load

    taken = set()
    for path in (path for folder in folders for path in folder.glob("*.yaml")):
        with suppress(ConfigError, OSError):
            taken.add(load(path).serve.port)
    return next(port for port in count(_FIRST_PORT) if port not in taken)


def new(
    file: DeclarationFile,
    project: Annotated[
        Path | None,
        typer.Option(
            help="Folder to lay them out in.", show_default="that of FILE's project, or this one"
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite what has been changed in the project.")
    ] = False,
    github: Annotated[
        bool,
        typer.Option(
            "--github",
            help="Also a GitHub workflow: try what is proposed, apply what is merged.",
        ),
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Lay out flows, tasks and Prefect deployments around a declaration, to run by themselves.

    They are the project's own from then on, to be changed; what is there is left as it is. Another
    declaration of the same project gets deployments of its own. After an upgrade of holdtrue,
    --replace brings all files but prefect.yaml up to date.
    """
    from holdtrue.application import Layout

    layout = Layout.around(file, project, replace=replace, github=github)
    written, kept = ([str(path) for path in paths] for paths in (layout.files, layout.kept))
    listed = ", ".join(written)
    if dry_run:
        words = f"write in {layout.project}: {listed or 'nothing, as all is there'}"
    else:
        layout.write()
        words = (
            f"wrote in {layout.project}: {listed}"
            if written
            else f"all is there in {layout.project}"
        )
    if kept:
        ours = f"they differ from those of holdtrue {__version__}; --replace overwrites them"
        words += f"\nleft as they are: {', '.join(kept)} ({ours})"
    if written and not dry_run:
        words += (
            f"\n`holdtrue up` there starts what runs them, and the schedules; "
            f"`holdtrue apply {shlex.quote(str(file))}` is a run of the flow then"
        )
    facts = {
        "project": layout.project,
        "system": layout.system,
        "files": written,
        "kept": kept,
    }
    tell_change(words, facts, as_json=as_json, dry_run=dry_run)


def ci(
    file: DeclarationFile,
    rows: Annotated[int, typer.Option(help="Rows of the sample.")] = 5_000,
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Settings to try.", show_default="2 for each candidate"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="A file of rows to use instead of the source.", show_default=False),
    ] = None,
    as_of: AsOf = None,
    reports: Annotated[
        Path | None, typer.Option(help="Folder to keep the HTML reports in.", show_default=False)
    ] = None,
    summary: Annotated[
        Path | None,
        typer.Option(help="Markdown file to add the outcome to.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try a declaration from its rows to a proven model, within minutes; changes nothing.

    The rows are held against the contract; a sample of them goes through every further step but
    serve, in a store that is thrown away. For a build: fails where a step fails, or where a gate
    cannot be expected to hold.
    """
    from holdtrue.progress import Silent, Terminal
    from holdtrue.rehearsal import rehearse

    reporter = Silent() if as_json else Terminal()
    try:
        seen = rehearse(
            system_of(file),
            rows=rows,
            trials=trials,
            data=data,
            as_of=as_of,
            keep=reports,
            reporter=reporter,
        )
    except HoldtrueError as err:
        _add_to(summary, f"### {file}: failed\n\n{err.message}\n")
        raise
    _add_to(summary, seen.markdown())
    lines = [f"  {heading:<16} {words}" for heading, words in seen.lines()]
    tell("\n".join([seen.title, *lines]), seen.model_dump(mode="json"), as_json=as_json)
    if seen.missed:
        named = "; ".join(f"{gate.gate}: {gate.reason}" for gate in seen.missed)
        more = "more trials (--trials)"
        if seen.sampled < seen.rows:
            more = f"more rows (--rows) or {more}"
        raise HoldtrueError(named, hint=f"it may hold with {more}")


def _add_to(summary: Path | None, text: str) -> None:
    """Add to a file.

    Raises:
        ConfigError: It cannot be written.
    """
    if summary is None:
        return
    try:
        with summary.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except OSError as err:
        message = f"--summary {summary} cannot be written: {err.strerror}"
        raise ConfigError(message) from err
