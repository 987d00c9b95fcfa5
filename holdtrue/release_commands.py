"""The commands about which version answers: serve, promote, rollback, rollout."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdtrue.commands import (
    AsJson,
    DeclarationFile,
    DryRun,
    check_page,
    system_of,
    tell,
    tell_change,
)
from holdtrue.errors import ConfigError, HoldtrueError, StackError

if TYPE_CHECKING:
    from holdtrue.rollout import Rollout
    from holdtrue.system import System

Reason = Annotated[str, typer.Option(help="Why; is recorded.")]
Force = Annotated[bool, typer.Option("--force", help="Also where the gates refused it.")]
Report = Annotated[
    Path | None, typer.Option(help="HTML file to write, with charts.", show_default=False)
]

rollout_app = typer.Typer(
    no_args_is_help=True, help="See and drive the rollout of a new version: serve.rollout."
)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(serve)
    app.command()(promote)
    app.command()(rollback)
    app.command()(versions)
    app.command()(diff)
    app.add_typer(rollout_app, name="rollout")


def serve(file: DeclarationFile, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Serve the champion as the declaration says now, and leave it running; trains nothing."""
    from holdtrue.progress import Silent, Terminal

    system = system_of(file)
    name = system.declaration.name
    if dry_run:
        system.check_serve()
        champion, url = _champion(system), system.declaration.endpoint
        words = f"serve version {champion} of {name} at {url}"
    else:
        release = system.serve(reporter=Silent() if as_json else Terminal())
        champion, url = release.version, release.endpoint
        words = f"version {champion} of {name} answers at {url}; `holdtrue down` ends it"
    facts = {"system": name, "champion": champion, "endpoint": url}
    tell_change(words, facts, as_json=as_json, dry_run=dry_run)


def promote(
    file: DeclarationFile,
    to: Annotated[int, typer.Option(help="The version.", show_default=False)],
    reason: Reason = "asked for by hand",
    force: Force = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make any registered version the champion, and serve it at once, without a rollout."""
    system = system_of(file)
    name, before = system.declaration.name, _champion(system)
    words = f"version {to} of {name} is the champion"
    if dry_run:
        _check_passed(system, to, force=force)
        _check_new(system, to)
        words = f"make version {to} of {name} the champion{_instead(before)}"
    else:
        system.promote(to, reason=reason, force=force)
    words += _rows_note(system, to)
    facts = {"system": name, "champion": to, "previous": before}
    tell_change(words, facts, as_json=as_json, dry_run=dry_run)


def rollback(
    file: DeclarationFile,
    to: Annotated[
        int | None, typer.Option(help="Version to go back to.", show_default="the previous one")
    ] = None,
    reason: Reason = "asked for by hand",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make an earlier version the champion again, and serve it at once.

    While a new version is rolled out, that is ended instead: the champion answers everything.
    """
    system = system_of(file)
    name, before = system.declaration.name, _champion(system)
    running = system.registry.running_rollout(name)
    if running is not None and to is None and before is not None:
        words = _ending(running)
        if not dry_run:
            system.rollback(reason=reason)
            words = (
                f"the rollout of version {running.challenger} is ended: "
                f"version {before} of {name} answers every request"
            )
        number = before
    elif dry_run:
        number = _earlier(system, to)
        words = f"make version {number} of {name} the champion again{_instead(before)}"
    else:
        number = system.rollback(to=to, reason=reason)
        words = f"version {number} of {name} is the champion again"
    words += _rows_note(system, number)
    facts = {"system": name, "champion": number, "previous": before}
    tell_change(words, facts, as_json=as_json, dry_run=dry_run)


def _rows_note(system: System, number: int) -> str:
    """That the rows of a version were removed, where they were: it answers all the same."""
    from holdtrue.removed import pruned_note

    note = pruned_note(system.store, system.version(number))
    return "" if note is None else f"; {note}"


def versions(
    file: DeclarationFile,
    where: Annotated[
        str | None,
        typer.Option(
            help='A condition of SQL, such as "roc_auc > 0.7 AND passed".', show_default="all"
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            help="A metric, or such as created: the best or newest first.",
            show_default="oldest first",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the registered versions: what they reached, what the gates said, which is the champion.

    An asterisk marks the champion, a plus sign those that were it before.
    """
    from holdtrue.registry import REFITTED, verdict_first
    from holdtrue.versions import list_versions

    system = system_of(file)
    name = system.declaration.name
    found = list_versions(system.store, name, where=where, sort=sort)
    lines = []
    for one in found:
        mark = "*" if one["champion"] else "+" if one["was_champion"] else " "
        reached = ", ".join(f"{key} {value:.4f}" for key, value in one["metrics"].items())
        verdict = "passed" if one["passed"] else "refused"
        when = f"{datetime.fromisoformat(one['created']):%Y-%m-%d %H:%M} UTC"
        lines.append(f"{mark}{one['version']:>4}  {when}  {verdict:<7}  {reached}")
        lines.append(f"       {verdict_first(one['reason'])}")
        if one["refitted"]:
            lines.append(f"       {REFITTED}")
        if one["pruned"]:
            at = f"{datetime.fromisoformat(one['pruned']):%Y-%m-%d %H:%M} UTC"
            lines.append(f"       its rows were removed by retention on {at}; its model is kept")
    if not lines:
        none = system.registry.champion(name) is None and where is None
        lines = [f"no version of {name} yet; run `holdtrue apply`" if none else "none is like that"]
    tell("\n".join(lines), found, as_json=as_json)


def diff(
    file: DeclarationFile,
    versions: Annotated[
        list[str] | None,
        typer.Argument(
            help="Numbers, or commits such as HEAD~1: of each the newest version made from it.",
            show_default="the champion and the newest other one",
        ),
    ] = None,
    report: Report = None,
    as_json: AsJson = False,
) -> None:
    """Say what differs between versions: declaration, data, model, code, results.

    All are scored on rows that none of them has learnt from, where there are such.
    """
    from holdtrue.reports import comparison_text, write_comparison

    system = system_of(file)
    if report is not None:
        check_page(report)
    found = system.diff(*(versions or ()))
    words = comparison_text(found)
    if report is not None:
        write_comparison(report, system.declaration, found)
        words += f"\nreport: {report}"
    tell(words, found.model_dump(mode="json", exclude={"evaluations"}), as_json=as_json)


@rollout_app.command()
def status(file: DeclarationFile, as_json: AsJson = False) -> None:
    """Say how the rollout stands, with the evidence so far, or how the last one ended."""
    from holdtrue.rollout import status_of

    system = system_of(file)
    rollout = _newest(system)
    found = status_of(rollout)
    verdicts = system.registry.verdicts(rollout.id)
    lines = [_stands(rollout)]
    lines += [f"  {check.criterion}: {check.state}: {check.said}" for check in found.checks]
    lines += [f"  {v.at:%Y-%m-%d %H:%M:%S} UTC  {v.action}: {v.reason}" for v in verdicts]
    page = system.store.path("reports", system.declaration.name, "rollouts.html")
    if page.exists():
        lines.append(f"report: {page}")
    facts = found.model_dump(mode="json")
    facts["verdicts"] = [v.model_dump(mode="json") | {"step": v.step + 1} for v in verdicts]
    tell("\n".join(lines), facts, as_json=as_json)


@rollout_app.command()
def run(
    file: DeclarationFile,
    every: Annotated[
        float | None,
        typer.Option(help="Seconds between two looks.", show_default="by serve.rollout.every"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Drive the running rollout to its end; may be stopped, and goes on where it was."""
    from holdtrue.release import drive

    system = system_of(file)
    last = ""

    def say(rollout: Rollout) -> None:
        nonlocal last
        reason = f": {rollout.reason}" if rollout.reason else ""
        said = f"{rollout.where}{reason}" if rollout.state == "running" else ""
        if said and said != last:
            typer.echo(said, err=as_json)  # the one document on stdout is for scripts
            last = said

    _say(system, drive(system.context(), say, look_every_s=every), as_json=as_json)


@rollout_app.command()
def advance(file: DeclarationFile, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Take one look, and do what it calls for; for schedulers."""
    from holdtrue.release import advance as look

    system = system_of(file)
    running = system.registry.running_rollout(system.declaration.name)
    if dry_run and running is not None:
        _foresee(system, running, as_json=as_json)
    else:
        _say(system, look(system.context()), as_json=as_json)


@rollout_app.command()
def start(
    file: DeclarationFile,
    to: Annotated[int, typer.Option(help="The version.", show_default=False)],
    force: Force = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Roll a registered version out, such as one that was sent back before.

    Where a Prefect server is known, the deployment rollout is asked to drive it.
    """
    from holdtrue.flow_runs import hand_over_rollout, who_drives
    from holdtrue.release import start as begin

    system = system_of(file)
    if not dry_run:
        begun = begin(system.context(), to, force=force)
        by_prefect = hand_over_rollout(system)
        _say_changed(begun, as_json=as_json)
        typer.echo(who_drives(system, by_prefect=by_prefect), err=as_json)
        return
    _check_passed(system, to, force=force)
    declared, before = system.declaration.serve.rollout, _champion(system)
    if declared is None or before is None:
        message = f"{system.declaration.name} declares no serve.rollout, or has no champion yet"
        hint = "declare serve.rollout, or run `holdtrue promote --to` to have it at once"
        raise ConfigError(message, hint=hint)
    _check_new(system, to)
    steps = ", ".join(f"{share * 100:g}%" for share in declared.canary)
    shadow = "as a shadow, then " if declared.shadow else ""
    words = f"roll version {to} of {system.declaration.name} out{_instead(before)}: {shadow}{steps}"
    facts = {
        "system": system.declaration.name,
        "version": to,
        "champion": before,
        "shadow": declared.shadow,
        "canary": declared.canary,
    }
    tell_change(words, facts, as_json=as_json, dry_run=True)


@rollout_app.command()
def stop(
    file: DeclarationFile,
    reason: Reason = "asked for by hand",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """End the running rollout: the champion answers every request again."""
    from holdtrue.release import halt

    system = system_of(file)
    running = system.registry.running_rollout(system.declaration.name)
    if dry_run and running is not None:
        _say_changed(running, as_json=as_json, would=_ending(running))
    else:  # where none runs, a dry run is refused as any other
        _say_changed(halt(system.context(), reason), as_json=as_json)


def _newest(system: System) -> Rollout:
    name = system.declaration.name
    found = system.registry.rollouts(name)
    if not found:
        message = f"no version of {name} was ever rolled out by steps"
        declared = system.declaration.serve.rollout is not None
        first = "" if declared else "declare serve.rollout; "
        raise ConfigError(message, hint=f"{first}the next new version that passes goes by it")
    return found[-1]


def _champion(system: System) -> int | None:
    found = system.registry.champion(system.declaration.name)
    return None if found is None else found.version.number


def _instead(champion: int | None) -> str:
    return "" if champion is None else f" in place of version {champion}"


def _check_passed(system: System, number: int, *, force: bool) -> None:
    """Refuse what promotion and rollout refuse before they change anything."""
    from holdtrue import release

    release.check_passed(system.context(), number, force=force)


def _check_new(system: System, number: int) -> None:
    """Refuse the champion, and versions that do not exist."""
    name = system.declaration.name
    system.registry.version(name, number)
    if number == _champion(system):
        message = f"version {number} of {name} is the champion already"
        raise ConfigError(message)


def _earlier(system: System, to: int | None) -> int:
    """The version that a rollback goes to."""
    from holdtrue import release

    number = release.earlier(system.context(), to)
    _check_new(system, number)
    return number


def _ending(running: Rollout) -> str:
    """What the end of a rollout by hand means, after "would"."""
    return (
        f"end the rollout of version {running.challenger} of {running.system}: "
        f"version {running.champion} answers every request"
    )


def _foresee(system: System, running: Rollout, *, as_json: bool) -> None:
    """Say what a look would decide now, and leave the rollout as it is.

    Raises:
        StackError: Nothing is up.
    """
    from holdtrue import release
    from holdtrue.rollout import decide, observe

    context = system.context()
    champion = context.registry.champion(context.system)
    if champion is not None and champion.generation != running.generation:
        words = (
            f"end the rollout of version {running.challenger} of {running.system}: "
            f"version {champion.version.number} was made the champion meanwhile"
        )
        _say_changed(running, as_json=as_json, would=words)
        return
    if context.stack.state().ray_address is None:
        message = "nothing is up: the rollout waits"
        raise StackError(message, hint="`holdtrue serve FILE` brings the endpoint back")
    now = datetime.now(UTC)
    counts, losses = release.counts_of(context, running), release.losses_now(context)
    verdict = decide(observe(running, counts, losses, now), now)
    pair = f"version {running.challenger} over version {running.champion}"
    tell_change(
        f"{verdict.action}: {pair}: {verdict.reason}",
        verdict.model_dump(mode="json"),
        as_json=as_json,
        dry_run=True,
    )


def _stands(rollout: Rollout) -> str:
    from holdtrue.rollout import status_of

    headline = status_of(rollout).headline
    return f"{headline}\n  {rollout.reason}" if rollout.reason else headline


def _say_changed(rollout: Rollout, *, as_json: bool, would: str | None = None) -> None:
    """Say how a rollout stands after a change, or what a dry run would change."""
    from holdtrue.rollout import status_of

    facts = status_of(rollout).model_dump(mode="json")
    words = _stands(rollout) if would is None else would
    tell_change(words, facts, as_json=as_json, dry_run=would is not None)


def _say(system: System, rollout: Rollout | None, *, as_json: bool) -> None:
    """Say how a rollout stands after a look; one that was sent back is a failure."""
    if rollout is None:
        tell(f"no rollout of {system.declaration.name} runs", None, as_json=as_json)
        return
    back = rollout.state == "back"
    if as_json or not back:
        _say_changed(rollout, as_json=as_json)
    if back:
        message = f"version {rollout.challenger} was sent back: {rollout.reason}"
        raise HoldtrueError(message, hint=f"version {rollout.champion} answers every request")
