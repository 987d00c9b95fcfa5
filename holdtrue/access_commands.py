"""The commands about keys: key create, list, revoke, show."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from holdtrue.commands import AsJson, DryRun, tell, tell_change
from holdtrue.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdtrue.access import Key
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
    """The store of a project.

    Raises:
        ConfigError: It has none yet: nothing there would know a key.
    """
    from holdtrue.store import Store

    store = Store.of(project / "any.yaml")
    if not store.root.is_dir():
        message = f"there is no {store.root}: no endpoint of that project has keys yet"
        hint = "name the folder with the declaration by --project, or run `holdtrue apply` first"
        raise ConfigError(message, hint=hint)
    return store


@contextmanager
def _changed(project: Path, *, dry_run: bool) -> Iterator[Store]:
    """The store whose keys are changed; of a dry run a copy, which refuses what that would."""
    from holdtrue.access import keys_path
    from holdtrue.store import Store

    store = Store.of(project / "any.yaml")
    if not dry_run:
        yield store
        return
    keys = keys_path(store)
    with TemporaryDirectory() as folder:
        copy = Store(Path(folder))
        if keys.exists():
            keys_path(copy).parent.mkdir(parents=True)
            shutil.copyfile(keys, keys_path(copy))
        yield copy


@key_app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is, in words.", show_default=False)],
    scope: Annotated[
        list[str], typer.Option(help="predict, or admin to read metrics; may be given twice.")
    ] = ["predict"],  # noqa: B006 - typer copies it
    project: Project = Path(),
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, once: only its hash is kept."""
    from holdtrue.access import SCOPES, create_key

    unknown = {*scope} - {*SCOPES}
    if unknown:
        message = f"--scope {sorted(unknown)[0]}: expected one of {', '.join(SCOPES)}"
        raise ConfigError(message)
    with _changed(project, dry_run=dry_run) as store:
        store.prepare()
        key, secret = create_key(store, name, [s for s in SCOPES if s in scope])
    said = f"{key.name} ({', '.join(key.scopes)})"
    if dry_run:
        facts = {"name": key.name, "scopes": key.scopes}
        tell_change(f"make the key {said}", facts, as_json=as_json, dry_run=True)
        return
    if not as_json:
        typer.echo(
            f"key {key.id} ({key.name}; {', '.join(key.scopes)}), not shown again:", err=True
        )
    tell_change(secret, {**_facts(key), "key": secret}, as_json=as_json, dry_run=False)


@key_app.command("list")
def list_(project: Project = Path(), as_json: AsJson = False) -> None:
    """Say which keys are good; the keys themselves are not kept."""
    from holdtrue.access import list_keys

    keys = list_keys(_store(project))
    lines = [
        f"{key.id}  {key.created:%Y-%m-%d %H:%M} UTC  {', '.join(key.scopes):<14}  {key.name}"
        for key in keys
    ]
    words = "\n".join(lines) or "no keys yet; `holdtrue key create NAME` makes one"
    tell(words, [_facts(key) for key in keys], as_json=as_json)


@key_app.command()
def revoke(
    which: Which, project: Project = Path(), dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Take a key back; it is refused within a second or two."""
    from holdtrue.access import revoke_key

    _store(project)
    with _changed(project, dry_run=dry_run) as store:
        key = revoke_key(store, which)
    said = f"key {key.id} ({key.name})"
    words = f"take back the {said}" if dry_run else f"{said} is good no more"
    tell_change(words, _facts(key), as_json=as_json, dry_run=dry_run)


@key_app.command()
def show(project: Project = Path(), as_json: AsJson = False) -> None:
    """Print the key that commands on this machine use, for a first call by hand."""
    from holdtrue.access import own_key

    secret = own_key(_store(project))
    tell(secret, {"key": secret}, as_json=as_json)


def _facts(key: Key) -> dict[str, object]:
    """What is kept of a key, but for its hash."""
    return key.model_dump(mode="json", exclude={"sha256"})
