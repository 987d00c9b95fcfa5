"""The commands about backups of a store: backup, restore."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdtrue.commands import AsJson, DryRun, tell
from holdtrue.errors import ConfigError, HoldtrueError

if TYPE_CHECKING:
    from holdtrue.progress import Reporter

Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="A folder, or such as s3://bucket/prefix or gs://bucket/prefix.",
        show_default=False,
    ),
]
Project = Annotated[
    Path, typer.Option("--project", help="Folder of the project whose store it is.")
]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(backup)
    app.command()(restore)


def backup(
    target: Target,
    keep: Annotated[
        int | None,
        typer.Option(min=1, help="As many of the newest backups stay there.", show_default="all"),
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="List the backups that are there, and make none.")
    ] = False,
    project: Project = Path(),
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Back up the store of a project: models, registry, rows, records, reports.

    Only what is not there yet is sent, also after Ctrl-C. The system may be in use meanwhile.
    """
    from holdtrue.backup import back_up
    from holdtrue.store import Store

    if listed:
        _list(target, as_json=as_json)
        return
    store = Store.of(project / "any.yaml")
    with _reporter(as_json=as_json).step("backup") as progress:
        made = back_up(store, target, keep=keep, dry_run=dry_run, progress=progress)
    tell(str(made), made.model_dump(mode="json"), as_json=as_json)


def _list(target: str, *, as_json: bool) -> None:
    from holdtrue.backup import Target as Place
    from holdtrue.backup import backups_at

    place = Place(target)
    found = backups_at(place)
    lines = [
        f"{name}  cannot be restored: {one.message}" if isinstance(one, HoldtrueError) else str(one)
        for name, one in found.items()
    ]
    facts = [
        {"name": name, "refused": one.message}
        if isinstance(one, HoldtrueError)
        else one.model_dump(mode="json")
        for name, one in found.items()
    ]
    tell("\n".join(lines) or f"no complete backup in {place.shown} yet", facts, as_json=as_json)


def restore(
    target: Target,
    name: Annotated[
        str | None,
        typer.Option("--backup", help="Which one, as listed.", show_default="the newest"),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            help="A file or folder of the store that alone is brought back, such as registry.db.",
            show_default="all",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put a store that is there aside, and keep it.")
    ] = False,
    project: Project = Path(),
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make the store of a project again from a backup, once all of it is proven to be whole.

    A dry run reads the whole backup, and says whether all of it is what was written.
    """
    from holdtrue.backup import prove
    from holdtrue.backup import restore as bring_back
    from holdtrue.store import Store

    if dry_run and (replace or only is not None):
        message = "--replace and --only have no place in a dry run: it reads all, restores nothing"
        raise ConfigError(message, hint="leave one of them out")
    store = Store.of(project / "any.yaml")
    with _reporter(as_json=as_json).step("restore") as progress:
        if dry_run:
            done = prove(store, target, name=name, progress=progress)
        else:
            done = bring_back(
                store, target, name=name, only=only, replace=replace, progress=progress
            )
    tell(str(done), done.model_dump(mode="json"), as_json=as_json)


def _reporter(*, as_json: bool) -> Reporter:
    from holdtrue.progress import Silent, Terminal

    return Silent() if as_json else Terminal()
