"""The commands about what versions were made of: lineage, data, verify, prune."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - typer reads annotations
from typing import TYPE_CHECKING, Annotated

import typer

from holdtrue.commands import AsJson, DeclarationFile, DryRun, system_of, tell, tell_change
from holdtrue.errors import ConfigError, HoldtrueError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import pandas as pd

    from holdtrue.declared import Declared
    from holdtrue.lineage import Lineage, Made, Taken
    from holdtrue.proof import Verified

data_app = typer.Typer(
    no_args_is_help=True, help="List what trainings have read, and take it out again."
)

# Of a digest, enough to tell snapshots apart.
_SHORT = 8
# Rows that are shown, how many of the most important features of them, and how wide one may be.
_SHOWN = 20
_FEATURES = 4
_WIDTH = 28
# Characters of what a step came to, in a diagram.
_LABEL = 60
_WHAT = {
    "snapshot": "all that was extracted",
    "train": "the training rows",
    "test": "the test rows",
    "set-aside": "those that broke the contract",
}


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(lineage)
    app.add_typer(data_app, name="data")
    app.command()(verify)
    app.command()(prune)


def lineage(
    file: DeclarationFile,
    version: Annotated[
        int | None, typer.Option(help="Which one.", show_default="the champion")
    ] = None,
    mermaid: Annotated[
        bool, typer.Option("--mermaid", help="Print a diagram that Markdown pages draw.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say how a version came to be: each step back to the source, with its digest."""
    from holdtrue.lineage import lineage_of

    if mermaid and as_json:
        message = "--mermaid and --json are two forms of one answer"
        raise ConfigError(message, hint="give one of them")
    system = system_of(file)
    found = lineage_of(system.store, system.version(version))
    words = "\n".join(_diagram(found) if mermaid else _steps(found))
    tell(words, found.model_dump(mode="json"), as_json=as_json)


def _steps(found: Lineage) -> Iterator[str]:
    live = ", the champion" if found.champion else ""
    yield f"version {found.version} of {found.system}{live}"
    yield f"  registered {_moment(found.registered)} UTC, data as of {_moment(found.as_of)} UTC"
    yield f"  bundle {found.bundle}, digest {found.digest}"
    if found.measured != found.bundle:
        yield f"  measured, and judged by the gates, before its refit: bundle {found.measured}"
    if found.origin is not None:
        yield f"  commit {found.origin}"
    for made in reversed(found.steps):
        took = ", ".join([*made.inputs, *_sources(made)])
        when = f"{_moment(made.finished)} UTC in {made.seconds:.1f} s"
        came = f" from {took}" if took else ""
        gone = f"; removed by retention on {_moment(made.pruned)} UTC" if made.pruned else ""
        yield f"{made.step:<9} {made.digest[:_SHORT]}  {when}{came}: {made.said}{gone}"
    for step in found.missing:
        yield f"{step:<9} its record is gone or damaged"


def _sources(made: Made) -> Iterator[str]:
    """What a step has read that no other step gave it."""
    if made.step == "extract":
        given = [made.declared["data"]["source"]]
    else:
        own = made.declared.get("steps", {}).get(made.step, {"needs": {}, "foreach": {}})
        files = [{"files": each} for each in own["foreach"].values() if isinstance(each, str)]
        given = [*own["needs"].values(), *files]
    for source in given:
        (key, found), *_ = ((k, v) for k, v in source.items() if v is not None)
        place = found.get("url") or found.get("table") if isinstance(found, dict) else found
        if key != "step":
            yield f"{key} {place}"


def _diagram(found: Lineage) -> Iterator[str]:
    yield "flowchart LR"
    for made in found.steps:
        if [*_sources(made)]:
            yield f'  source[("source")] --> {made.step}'
        said = made.said.partition(";")[0].replace('"', "'")[:_LABEL]
        yield f'  {made.step}["{made.step} {made.digest[:_SHORT]}<br>{said}"]'
        yield from (f"  {name} --> {made.step}" for name in made.inputs)
    yield f'  gate --> version(["version {found.version}"])'
    yield f"  {'fit' if found.measured == found.bundle else 'refit'} --> version"


@data_app.command("list")
def show(file: DeclarationFile, as_json: AsJson = False) -> None:
    """List the snapshots: rows, window, digest, and the versions that learnt from each.

    An asterisk marks the champion.
    """
    system = system_of(file)
    found = system.snapshots()
    words = "\n".join(map(_line, found))
    none = f"no snapshot of {system.declaration.name} yet; run `holdtrue apply`"
    tell(words or none, [one.model_dump(mode="json") for one in found], as_json=as_json)


def _line(found: Taken) -> str:
    names = [f"{number}{'*' * (number == found.champion)}" for number in found.versions]
    learnt = f"version {', '.join(names)}" if names else "no version"
    start = "the beginning" if found.start is None else _moment(found.start)
    gone = "" if found.pruned is None else f", removed {_moment(found.pruned)} UTC"
    window = "no window" if found.end is None else f"[{start}, {_moment(found.end)})"
    return (
        f"{found.number:>5}  {_moment(found.taken)} UTC  {found.rows:>11,} rows  {window}  "
        f"{found.digest[:_SHORT]}  {learnt}{gone}"
    )


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


@data_app.command()
def export(
    file: DeclarationFile,
    output: Annotated[
        Path,
        typer.Argument(metavar="OUTPUT", help="File to write: .csv, .parquet or .jsonl."),
    ],
    version: Annotated[
        int | None, typer.Option(help="That learnt from them.", show_default="the champion")
    ] = None,
    part: Annotated[
        str, typer.Option(help="snapshot: all that was extracted; train, test or set-aside.")
    ] = "snapshot",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write the rows that a version learnt from, exactly as they were then.

    They are held against the digest of then first. Parquet keeps kinds and nulls as they are.
    """
    from holdtrue.batch import check_output, write_table
    from holdtrue.data import as_table

    system = system_of(file)
    check_output(output)
    number = system.version(version).number
    rows = system.rows(number, part)
    if not dry_run:
        write_table(as_table(rows, f"version {number}"), output)
    words = f"{len(rows):,} rows of version {number}, {_WHAT[part]}"
    words = f"write {output}: {words}" if dry_run else f"wrote {output}: {words}"
    facts = {
        "system": system.declaration.name,
        "version": number,
        "part": part,
        "rows": len(rows),
        "columns": list(rows),
        "output": output,
    }
    tell_change(words, facts, as_json=as_json, dry_run=dry_run)


@data_app.command()
def answers(
    file: DeclarationFile,
    output: Annotated[
        Path | None,
        typer.Argument(
            metavar="[OUTPUT]",
            help="File to write all of them to: .csv, .parquet or .jsonl.",
            show_default=False,
        ),
    ] = None,
    version: Annotated[
        int | None, typer.Option(help="That answered.", show_default="the champion")
    ] = None,
    true: Annotated[
        str | None, typer.Option(help="Only rows of this class.", show_default=False)
    ] = None,
    said: Annotated[
        str | None,
        typer.Option("--answered", help="Only rows answered with it.", show_default=False),
    ] = None,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="How many are shown.")
    ] = _SHOWN,
    as_json: AsJson = False,
) -> None:
    """Show the test rows with what a version answered to them, the most wrong first.

    They are behind its metrics: the fit that was evaluated has learnt none of them. With --true and
    --answered those behind a cell of the confusion matrix.
    """
    from holdtrue.batch import check_output, write_table
    from holdtrue.data import as_table

    system = system_of(file)
    if output is not None:
        check_output(output)
    number = system.version(version).number
    found = system.answers(number, true=true, said=said)
    if output is not None:
        write_table(as_table(found, f"the answers of version {number}"), output)
    wrote = "" if output is None else f"wrote {output}: "
    chosen = [f"of class {true}"] if true is not None else []
    chosen += [f"answered with {said}"] if said is not None else []
    head = f"{wrote}{len(found):,} test rows of version {number}{', '.join(['', *chosen])}"
    shown = found.head(lines)
    facts = {
        "system": system.declaration.name,
        "version": number,
        "true": true,
        "answered": said,
        "rows": len(found),
        "output": output,
        "shown": json.loads(shown.to_json(orient="records", date_format="iso")),
    }
    words = [f"{head}, the most wrong first" if len(shown) else head]
    words += [_table_of(shown, system, number)] if len(shown) else []
    tell("\n".join(words), facts, as_json=as_json)


def _table_of(shown: pd.DataFrame, system: Declared, number: int) -> str:
    """The columns that say which rows they are, and how wrong; then the most important features."""
    from holdtrue.lineage import records_of
    from holdtrue.references import Evaluation

    data = system.declaration.data
    answered = [name for name in shown if str(name).startswith(("prediction", "probability_"))]
    names = [*data.key, data.time, data.target, *answered, "loss"]
    record = records_of(system.store, system.version(number)).get("evaluate")
    if record is not None:
        important = Evaluation.model_validate(record.output).importance
        names += list(important)[:_FEATURES]
    wanted = [name for name in dict.fromkeys(names) if name in shown]
    text = shown[wanted].to_string(
        index=False, max_colwidth=_WIDTH, float_format="{:.4g}".format, na_rep="-"
    )
    return str(text)


def verify(
    file: DeclarationFile,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER:HASH",
            help="Of the audit, as told before: it must still be there.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that what the registered versions were made of is still what was recorded.

    That is each file of their bundles, the records of the steps that made them, the files that
    these wrote, the content of the snapshots, and all that the registry records, by its audit. The
    exit code is 1 where anything differs.
    """
    from holdtrue.progress import Silent, Terminal

    found = system_of(file).verify(head=head, reporter=Silent() if as_json else Terminal())
    tell("\n".join(_said(found)), found.model_dump(mode="json"), as_json=as_json)
    if found.mismatches:
        count = len(found.mismatches)
        things = "1 thing is" if count == 1 else f"{count} things are"
        message = f"{things} not as recorded for the versions of {found.system}"
        raise HoldtrueError(message)


def _said(found: Verified) -> list[str]:
    from holdtrue.retention import named

    lines = [f"{one.said}; {one.hint}" for one in found.mismatches]
    lines += [f"version {n}: its rows were removed by a VACUUM" for n in found.removed]
    if found.pruned:
        last = f"{_moment(max(found.pruned.values()))} UTC"
        lines.append(
            f"the rows of {named(found.pruned)} were removed by retention, the last on {last}; "
            "their models, records and profiles are looked at"
        )
    lines += [
        f"{path} has no digests of its files: an earlier holdtrue wrote it"
        for path in found.unproven
    ]
    if not found.versions:
        lines.append(f"no version of {found.system} yet; run `holdtrue apply`")
    elif not found.mismatches:
        versions = "1 version" if found.versions == 1 else f"{found.versions} versions"
        lines.append(
            f"proven: {found.files:,} files and {found.rows:,} rows behind {versions} of "
            f"{found.system} are what was recorded"
        )
    if found.audit.head is not None and not found.audit.faults:
        entries = f"{found.audit.entries:,} entries, the last is {found.audit.head}"
        lines.append(f"the audit of the registry is whole: {entries}")
    return lines


def prune(
    file: DeclarationFile,
    keep: Annotated[
        int | None,
        typer.Option(min=1, help="Of the newest so many.", show_default="keep.versions"),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Remove rows that only old versions learnt from; models, records and reports stay.

    The newest versions keep theirs, and so do the champion, those before it, a version that is
    rolled out, and those that **keep.also** names. Each training does the same as is declared.
    """
    from holdtrue.retention import pruned_text

    system = system_of(file)
    policy = system.declaration.keep
    if keep is not None:
        policy = policy.model_copy(update={"versions": keep})
    found = system.prune(policy, dry_run=dry_run)
    words = pruned_text(found, dry_run=dry_run)
    tell(words, {"dry_run": dry_run, **found.model_dump(mode="json")}, as_json=as_json)
