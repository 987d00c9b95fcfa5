"""The commands about which version answers: promote, rollback, rollout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdtrue.errors import ConfigError, HoldtrueError

if TYPE_CHECKING:
    from holdtrue.rollout import Rollout
    from holdtrue.system import System

DeclarationFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="The declaration, such as configs/flights.yaml.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Reason = Annotated[str, typer.Option(help="Why; is recorded.")]
Force = Annotated[bool, typer.Option("--force", help="Also where the gates refused it.")]

rollout_app = typer.Typer(
    no_args_is_help=True, help="See and drive the rollout of a new version: serve.rollout."
)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(promote)
    app.command()(rollback)
    app.add_typer(rollout_app, name="rollout")


def promote(
    file: DeclarationFile,
    to: Annotated[int, typer.Option(help="The version.", show_default=False)],
    reason: Reason = "asked for by hand",
    force: Force = False,
) -> None:
    """Make any registered version the champion, and serve it at once, without a rollout."""
    system = _system(file)
    system.promote(to, reason=reason, force=force)
    typer.echo(f"version {to} of {system.declaration.name} is the champion")


def rollback(
    file: DeclarationFile,
    to: Annotated[
        int | None, typer.Option(help="Version to go back to.", show_default="the previous one")
    ] = None,
    reason: Reason = "asked for by hand",
) -> None:
    """Make an earlier version the champion again, and serve it at once.

    While a new version is rolled out, that is ended instead: the champion answers everything.
    """
    system = _system(file)
    name = system.declaration.name
    running = system.registry.running_rollout(name)
    number = system.rollback(to=to, reason=reason)
    if running is not None and to is None:
        typer.echo(
            f"the rollout of version {running.challenger} is ended: "
            f"version {number} of {name} answers every request"
        )
    else:
        typer.echo(f"version {number} of {name} is the champion again")


@rollout_app.command()
def status(file: DeclarationFile, as_json: AsJson = False) -> None:
    """Say how the rollout stands, with the evidence so far, or how the last one ended."""
    from holdtrue.rollout import status_of

    system = _system(file)
    rollout = _newest(system)
    found = status_of(rollout)
    verdicts = system.registry.verdicts(rollout.id)
    if as_json:
        content = found.model_dump(mode="json")
        content["verdicts"] = [verdict.model_dump(mode="json") for verdict in verdicts]
        typer.echo(json.dumps(content, indent=2))
        return
    _say(rollout)
    for check in found.checks:
        typer.echo(f"  {check.criterion}: {check.state}: {check.said}")
    for verdict in verdicts:
        typer.echo(f"  {verdict.at:%Y-%m-%d %H:%M:%S} UTC  {verdict.action}: {verdict.reason}")
    page = system.store.path("reports", system.declaration.name, "rollouts.html")
    if page.exists():
        typer.echo(f"report: {page}")


@rollout_app.command()
def run(
    file: DeclarationFile,
    every: Annotated[
        float | None,
        typer.Option(help="Seconds between two looks.", show_default="by serve.rollout.every"),
    ] = None,
) -> None:
    """Drive the running rollout to its end; may be stopped, and goes on where it was."""
    from holdtrue.release import drive

    system = _system(file)
    last = ""

    def say(rollout: Rollout) -> None:
        nonlocal last
        reason = f": {rollout.reason}" if rollout.reason else ""
        said = f"{rollout.where}{reason}" if rollout.state == "running" else ""
        if said and said != last:
            typer.echo(said)
            last = said

    ended = drive(system.context(), say, look_every_s=every)
    if ended is None:
        typer.echo(f"no rollout of {system.declaration.name} runs")
        return
    _finish(ended)


@rollout_app.command()
def advance(file: DeclarationFile) -> None:
    """Take one look, and do what it calls for; for schedulers."""
    from holdtrue.release import advance as look

    system = _system(file)
    rollout = look(system.context())
    if rollout is None:
        typer.echo(f"no rollout of {system.declaration.name} runs")
    elif rollout.state == "running":
        _say(rollout)
    else:
        _finish(rollout)


@rollout_app.command()
def start(
    file: DeclarationFile,
    to: Annotated[int, typer.Option(help="The version.", show_default=False)],
    force: Force = False,
) -> None:
    """Roll a registered version out, such as one that was sent back before."""
    from holdtrue.release import start as begin

    _say(begin(_system(file).context(), to, force=force))


@rollout_app.command()
def stop(file: DeclarationFile, reason: Reason = "asked for by hand") -> None:
    """End the running rollout: the champion answers every request again."""
    from holdtrue.release import halt

    _say(halt(_system(file).context(), reason))


def _system(file: Path) -> System:
    from holdtrue.system import System

    return System(file)


def _newest(system: System) -> Rollout:
    name = system.declaration.name
    found = system.registry.rollouts(name)
    if not found:
        message = f"no version of {name} was ever rolled out by steps"
        raise ConfigError(message, hint="declare serve.rollout; the next new version goes by it")
    return found[-1]


def _say(rollout: Rollout) -> None:
    from holdtrue.rollout import status_of

    typer.echo(status_of(rollout).headline)
    if rollout.reason:
        typer.echo(f"  {rollout.reason}")


def _finish(rollout: Rollout) -> None:
    """Say how a rollout ended; one that was sent back is a failure."""
    if rollout.state == "back":
        message = f"version {rollout.challenger} was sent back: {rollout.reason}"
        raise HoldtrueError(message, hint=f"version {rollout.champion} answers every request")
    _say(rollout)
