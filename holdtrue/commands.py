"""What all commands share: options, and one way to say what was found, done or would be done."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from holdtrue.system import System

# What commands end with that have left rows out.
SOME_REJECTED = 3

DeclarationFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="The declaration, such as configs/flights.yaml.", show_default=False
    ),
]


def moment_of(text: str) -> datetime:
    """Read a moment that was given by a flag.

    Raises:
        BadParameter: It is none.
    """
    from holdtrue.declaration import parse_moment

    try:
        return parse_moment(text)
    except ValueError as err:
        raise typer.BadParameter(str(err)) from None


# The options of a flag that takes a moment.
MOMENT: dict[str, Any] = {"parser": moment_of, "metavar": "MOMENT"}
AsOf = Annotated[
    datetime | None,
    typer.Option(
        help="Moment (UTC) to take for now, such as 2013-07-01T12:00:00.",
        show_default=False,
        **MOMENT,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Here = Annotated[
    bool,
    typer.Option("--in-process", help="Run in this process, also where a Prefect server is known."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


def system_of(file: Path) -> System:
    """The system that a file declares; who cannot be notified is said on stderr.

    Raises:
        ConfigError: It is not an acceptable declaration.
    """
    from holdtrue.system import System

    system = System(file)
    if system.declaration.notify.unset:
        from holdtrue.notifications import warn_of_unset

        warn_of_unset(system.declaration)
    return system


def duration_of(flag: str, text: str) -> timedelta:
    """Read a duration that was given by a flag.

    Raises:
        ConfigError: It is none.
    """
    from holdtrue.declaration import parse_duration
    from holdtrue.errors import ConfigError

    try:
        return parse_duration(text)
    except ValueError as err:
        message = f"{flag} {text}: {err}"
        raise ConfigError(message) from None


def check_page(path: Path) -> None:
    """Refuse a place that no page can be written to, before the work that it is about.

    Raises:
        ConfigError: It is a folder, or there is none for it.
    """
    from holdtrue.errors import ConfigError

    if path.is_dir() or not path.absolute().parent.is_dir():
        why = "is a folder" if path.is_dir() else "is in a folder that does not exist"
        message = f"--report {path} {why}"
        raise ConfigError(message, hint="name a file, such as report.html")


def tell(words: str, facts: Any, *, as_json: bool) -> None:
    """Print what was found: in words, or as JSON for scripts.

    Args:
        words: Lines for people.
        facts: The same for scripts.
        as_json: Which of the two.
    """
    typer.echo(json.dumps(facts, indent=2, default=str) if as_json else words)


def tell_change(words: str, facts: Mapping[str, Any], *, as_json: bool, dry_run: bool) -> None:
    """Print what was changed, or what a dry run would change; scripts get the same facts of both.

    Args:
        words: For people: a sentence about what was done; of a dry run what follows "would".
        facts: What is or would be so.
        as_json: Whether to print the facts.
        dry_run: Whether nothing was done.
    """
    said = f"would {words}; nothing was done" if dry_run else words
    tell(said, {"dry_run": dry_run, **facts}, as_json=as_json)
