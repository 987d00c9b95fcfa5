"""The command that tries the addresses of ``notify``."""

from __future__ import annotations

import typer

from holdtrue.commands import AsJson, DeclarationFile, system_of, tell
from holdtrue.errors import ConfigError


def add_to(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(notify)


def notify(file: DeclarationFile, as_json: AsJson = False) -> None:
    """Send a test message to every address of **notify**, and say which took it."""
    from holdtrue.notifications import check_addresses, send_test

    declaration = system_of(file).declaration
    if not declaration.notify.to and not declaration.notify.unset:
        message = f"{file}: no address is declared"
        raise ConfigError(message, hint='notify: {to: ["${env:TEAM_CHAT}"]}')
    check_addresses(declaration)
    sent = send_test(declaration)
    lines = [f"{address}: {problem or 'taken'}" for address, problem in sent.items()]
    facts = [{"address": address, "problem": problem} for address, problem in sent.items()]
    tell("\n".join(lines), facts, as_json=as_json)
    if any(sent.values()):
        raise typer.Exit(1)
