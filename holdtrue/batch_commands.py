"""The command batch: score what is due, or a past."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdtrue.commands import (
    MOMENT,
    SOME_REJECTED,
    AsJson,
    AsOf,
    DeclarationFile,
    DryRun,
    Here,
    system_of,
    tell,
    tell_change,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdtrue.intervals import Chosen
    from holdtrue.references import ScoredInterval
    from holdtrue.system import System


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(batch)


def batch(
    file: DeclarationFile,
    start: Annotated[
        datetime | None,
        typer.Option(
            "--from",
            help="Only intervals that start at this moment (UTC) or later, also before since.",
            show_default=False,
            **MOMENT,
        ),
    ] = None,
    end: Annotated[
        datetime | None,
        typer.Option(
            "--to",
            help="Only intervals that start before this moment (UTC).",
            show_default="all that are over",
            **MOMENT,
        ),
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="Score those anew, too, that are done; needs --from."),
    ] = False,
    as_of: AsOf = None,
    in_process: Here = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Score the rows of every interval of time that is due, with the champion.

    Each interval is scored once, and what failed or was missed is due the next time. Its rows are
    kept for the monitor, too. Rows that are not acceptable are left out; the exit code is 3 then.
    """
    from holdtrue.flow_runs import has_flow, run_flow
    from holdtrue.intervals import choose, is_news
    from holdtrue.progress import Silent, Terminal

    system = system_of(file)
    context = system.context(as_of=as_of, refresh=True)
    chosen = choose(context, start, end, again=again)
    if dry_run:
        words, facts = _would(chosen)
        tell_change(words, facts, as_json=as_json, dry_run=True)
        return
    before = {told.start: told.at for told in system.scored_intervals()}
    scored: list[ScoredInterval] = []
    try:
        if not in_process and chosen.intervals and has_flow(system, "batch"):
            run_flow(system, "batch", as_of=as_of, start=start, end=end, again=again)
        else:
            reporter = Silent() if as_json else Terminal()
            system.score_due(start, end, again=again, as_of=as_of, reporter=reporter)
    finally:  # what was scored before something failed is told all the same
        told = (t for t in system.scored_intervals() if before.get(t.start) != t.at)
        scored += [one for one in told if is_news(one, chosen.had_none)]
        if scored:
            words = "\n".join(line for told in scored for line in _lines(told))
            tell(words, _facts(scored), as_json=as_json)
    if not scored:
        tell(_nothing(system, chosen), _facts(scored), as_json=as_json)
    if any(told.rejected for told in scored):
        raise typer.Exit(SOME_REJECTED)


def _facts(scored: list[ScoredInterval]) -> dict[str, Any]:
    return {"scored": [told.model_dump(mode="json") for told in scored]}


def _lines(told: ScoredInterval) -> Iterator[str]:
    from holdtrue.batch import describe_unknown
    from holdtrue.intervals import words_of

    yield words_of(told)
    if told.rejects is not None:
        yield f"  {told.rejects} says which were rejected, and why"
    yield from (f"  {line}" for line in describe_unknown(told.unknown))


def _would(chosen: Chosen) -> tuple[str, dict[str, Any]]:
    why = dict.fromkeys(chosen.again, " again")
    why |= dict.fromkeys(chosen.had_none, ", if it has rows by now")
    lines = [
        f"{one} to {one.end:%Y-%m-%dT%H:%M:%SZ}{why.get(one.start, '')}" for one in chosen.intervals
    ]
    facts = [
        one.model_dump(mode="json") | {"again": one.start in chosen.again}
        for one in chosen.intervals
    ]
    words = "\n  ".join([f"score {len(lines)} interval{'' if len(lines) == 1 else 's'}:", *lines])
    return words if lines else "score nothing", {"intervals": facts}


def _nothing(system: System, chosen: Chosen) -> str:
    from holdtrue.declaration import format_duration
    from holdtrue.references import moment_words

    declared = system.declaration.batch
    assert declared is not None  # noqa: S101 - or nothing could have been chosen
    first = max(chosen.over, declared.since or chosen.over)
    when = first + declared.every + declared.delay
    after = f", {format_duration(declared.delay)} after its end" if declared.delay else ""
    return (
        f"nothing is due: the interval from {moment_words(first)} on is scored at "
        f"{moment_words(when)}{after}"
    )
