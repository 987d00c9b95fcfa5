"""The commands about keys: key create, list, revoke, show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdtrue.errors import ConfigError

if TYPE_CHECKING:
    from holdtrue.store import Store

key_app = typer.Typer(
    no_args_is_help=True,
    help="Keys that requests to the endpoints of a project carry: Authorization: Bearer KEY.",
)

Project = Annotated[
    Path,
    typer.Option("--project", help="Folder of the project whose endpoints they are for."),
]
Which = Annotated[str, typer.Argument(metavar="KEY", help="Its name or id.", show_default=False)]


def _store(project: Path) -> Store:
    from holdtrue.store import Store

    store = Store.of(project / "any.yaml")
    store.prepare()
    return store


@key_app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is, in words.", show_default=False)],
    scope: Annotated[
        list[str], typer.Option(help="predict, or admin to read metrics; may be given twice.")
    ] = ["predict"],  # noqa: B006 - typer copies it
    project: Project = Path(),
) -> None:
    """Make a key and print it, once: only its hash is kept."""
    from holdtrue.access import SCOPES, create_key

    unknown = {*scope} - {*SCOPES}
    if unknown:
        message = f"--scope {sorted(unknown)[0]}: expected one of {', '.join(SCOPES)}"
        raise ConfigError(message)
    key, secret = create_key(_store(project), name, [s for s in SCOPES if s in scope])
    typer.echo(f"key {key.id} ({key.name}; {', '.join(key.scopes)}), not shown again:", err=True)
    typer.echo(secret)


@key_app.command("list")
def list_(
    project: Project = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Say which keys are good; the keys themselves are not kept."""
    from holdtrue.access import list_keys

    keys = list_keys(_store(project))
    if as_json:
        content = [key.model_dump(mode="json", exclude={"sha256"}) for key in keys]
        typer.echo(json.dumps(content, indent=2))
        return
    for key in keys:
        scopes = ", ".join(key.scopes)
        typer.echo(f"{key.id}  {key.created:%Y-%m-%d %H:%M} UTC  {scopes:<14}  {key.name}")
    if not keys:
        typer.echo("no keys yet; `holdtrue key create NAME` makes one")


@key_app.command()
def revoke(which: Which, project: Project = Path()) -> None:
    """Take a key back; it is refused within a second or two."""
    from holdtrue.access import revoke_key

    key = revoke_key(_store(project), which)
    typer.echo(f"key {key.id} ({key.name}) is good no more")


@key_app.command()
def show(project: Project = Path()) -> None:
    """Print the key that commands on this machine use, for a first call by hand."""
    from holdtrue.access import own_key

    typer.echo(own_key(_store(project)))
