"""The command that plays history: backtest."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - typer reads annotations
from pathlib import Path  # noqa: TC003
from typing import Annotated

import typer

from holdtrue.commands import (
    MOMENT,
    AsJson,
    DeclarationFile,
    check_page,
    duration_of,
    system_of,
    tell,
)


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(backtest)


def backtest(
    file: DeclarationFile,
    start: Annotated[
        datetime | None,
        typer.Option(
            "--from",
            help="Moment (UTC) of the first training.",
            show_default="middle of the rows",
            **MOMENT,
        ),
    ] = None,
    end: Annotated[
        datetime | None,
        typer.Option(
            "--to", help="Moment (UTC) to stop at.", show_default="data.as_of, or now", **MOMENT
        ),
    ] = None,
    beside: Annotated[
        str | None,
        typer.Option(help="Compare with retraining this often, too, as 30d.", show_default=False),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="HTML page to write.", show_default="in the store"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Play the declared life over history: what would its retraining have cost and gained?

    The model is trained as of the first moment and answers the rows that came then, the monitor
    looks at them, and it is trained again where the declaration says so; beside that, it is never
    trained again. What is served, registered and captured is left alone. A backtest that was
    stopped goes on, and a second one trains only what is new.
    """
    from holdtrue.backtest import backtest_folder
    from holdtrue.progress import Silent, Terminal
    from holdtrue.reports import backtest_page

    system = system_of(file)
    if report is not None:
        check_page(report)
    found = system.backtest(
        start,
        end,
        beside=None if beside is None else duration_of("--beside", beside),
        reporter=Silent() if as_json else Terminal(),
    )
    page = report or backtest_folder(system) / "backtest.html"
    backtest_page(system.declaration, found).save(page)
    words = "\n".join([*found.lines(), f"Report: {page}"])
    tell(words, found.model_dump(mode="json"), as_json=as_json)
