"""The commands about where the registry is: registry show, registry move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from holdtrue.commands import AsJson, DeclarationFile, DryRun, system_of, tell, tell_change

if TYPE_CHECKING:
    from holdtrue.registry import Moved

registry_app = typer.Typer(
    no_args_is_help=True,
    help="Say where versions and champions are recorded, and move that to PostgreSQL or back.",
)


@registry_app.command()
def show(file: DeclarationFile, as_json: AsJson = False) -> None:
    """Say where the registry is, and which systems it knows."""
    registry = system_of(file).registry
    registry.check()
    found = {name: len(registry.versions(name)) for name in registry.systems()}
    lines = [registry.place, *(f"  {name}: {_versions(n)}" for name, n in found.items())]
    facts = {"place": registry.place, "on_server": registry.on_server, "versions": found}
    tell("\n".join(lines if found else [*lines, "  nothing yet"]), facts, as_json=as_json)


@registry_app.command()
def move(
    file: DeclarationFile,
    to: Annotated[
        str,
        typer.Option(
            help="postgresql: the database that HOLDTRUE_REGISTRY names; sqlite: the store's file.",
            show_default=False,
        ),
    ],
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take the registry from the store's file to a database of PostgreSQL, or back.

    All systems of the store go together. The copy is proven equal before anybody uses it; what
    stays in the old place is read by nobody any more.
    """
    from holdtrue.registry import move_registry

    system = system_of(file)
    moved = move_registry(system.store, to, dry_run=dry_run)
    words = f"{'move' if dry_run else 'moved'} {_words(moved)}"
    facts = moved.model_dump(mode="json")
    tell_change(words, facts, as_json=as_json, dry_run=dry_run)
    if not dry_run and not as_json:
        has = "has to be set" if to == "postgresql" else "must not be set any more"
        typer.echo(
            f"HOLDTRUE_REGISTRY {has} wherever something of {system.store.root} runs; "
            "what runs by `holdtrue up` learns of it by `holdtrue down` and `holdtrue up`"
        )


def _words(moved: Moved) -> str:
    whose = ", ".join(moved.systems) or "no system yet"
    what = f"{_versions(moved.versions)} ({whose}), {moved.rows:,} rows in all"
    return f"{what}, from {moved.source} to {moved.target}"


def _versions(count: int) -> str:
    return "1 version" if count == 1 else f"{count:,} versions"
