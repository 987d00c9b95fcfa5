"""The commands about what was answered: trace, logs."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdtrue.commands import AsJson, DeclarationFile, system_of, tell

if TYPE_CHECKING:
    from collections.abc import Iterable

_LOOK_EVERY_S = 0.5


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(trace)
    app.command()(logs)


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

    found = system_of(file).trace(prediction)
    tell(trace_text(found), found.model_dump(mode="json"), as_json=as_json)


def logs(
    file: DeclarationFile,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="How many of the last lines to show.")
    ] = 20,
    wanted: Annotated[
        str | None,
        typer.Option("--id", help="Only lines about this answer or failure.", show_default=False),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what the replicas had to say: failures, slow answers, versions that were refused.

    Also of replicas that have ended; needs nothing that is up. With --json a line each.
    """
    from holdtrue.serving._log import LogReader, line_text, log_folder

    system = system_of(file)
    folder = log_folder(system.store, system.declaration.name)

    def show(found: Iterable[dict[str, Any]]) -> None:
        for line in found:
            if wanted is None or wanted in (line.get("ids") or ()):
                typer.echo(json.dumps(line) if as_json else line_text(line))

    reader = LogReader(folder)
    kept = reader.new()
    if not kept:
        name = system.declaration.name
        if system.registry.champion(name) is not None and folder.is_dir():
            none = f"the replicas of {name} had nothing to say: no failure, no slow answer"
        elif not system.declaration.serve.endpoint:
            none = f"{name} declares no endpoint, so that no replica has anything to say"
        else:
            none = f"{name} was never served; `holdtrue apply` does"
        typer.echo(none, err=True)
    show(kept if wanted is not None else kept[max(0, len(kept) - lines) :])
    if not follow:
        return
    try:
        while True:
            time.sleep(_LOOK_EVERY_S)
            show(reader.new())
    except KeyboardInterrupt:
        return
