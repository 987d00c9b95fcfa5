"""The commands about studies: study show, parallel, export, import."""

from __future__ import annotations

import shlex
from pathlib import Path  # noqa: TC003 - typer reads annotations
from typing import TYPE_CHECKING, Annotated

import typer

from holdtrue.commands import AsJson, DeclarationFile, system_of, tell

if TYPE_CHECKING:
    from holdtrue.references import Study

study_app = typer.Typer(
    no_args_is_help=True,
    help="Show or speed up a study, take it to another Optuna storage, or bring one from there.",
)

Version = Annotated[
    int | None,
    typer.Option(help="Of the version whose setting it found.", show_default="the last study"),
]

Storage = Annotated[
    str,
    typer.Argument(
        metavar="STORAGE",
        help="Such as sqlite:///studies.db or postgresql://..., or an Optuna journal file.",
        show_default=False,
    ),
]


def study_words(study: Study, log: Path) -> str:
    """How a search went, and how to look closer."""
    from holdtrue.reports import tuning_text

    lines = [
        tuning_text(study),
        f"Log: {log}",
        f"To look at it: optuna-dashboard {shlex.quote(str(log))}",
    ]
    return "\n".join(lines)


@study_app.command()
def show(
    file: DeclarationFile,
    version: Version = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write its charts, as one page.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a study has found, also while it runs and after it was stopped."""
    system = system_of(file)
    study = system.study(version)
    words = study_words(study, system.store.path(study.log))
    if html is not None:
        system.plot_study(version).save(html)
        words += f"\nCharts: {html}"
    tell(words, study.model_dump(mode="json"), as_json=as_json)


@study_app.command()
def parallel(
    file: DeclarationFile,
    count: Annotated[
        int, typer.Argument(min=1, help="Settings that are tried at a time.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Have the search that is running try more settings at a time, or fewer, from now on."""
    from holdtrue.tuning import change_parallel

    system = system_of(file)
    name = system.declaration.name
    log = change_parallel(system.store.path("studies", name), count)
    words = f"{name}: {count:,} at a time from now on, as far as the cluster has room for them"
    tell(words, {"log": str(log), "parallel": count}, as_json=as_json)


@study_app.command("export")
def export_(
    file: DeclarationFile,
    storage: Storage,
    version: Version = None,
    study: Annotated[
        str | None, typer.Option(help="What to call it there.", show_default="its own name")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy a study of a system into an Optuna storage."""
    from holdtrue.tuning._exchange import export_study

    name = export_study(system_of(file).study_log(version), storage, study)
    tell(f"exported the study {name}", {"study": name}, as_json=as_json)


@study_app.command("import")
def import_(
    file: DeclarationFile,
    storage: Storage,
    study: Annotated[
        str | None, typer.Option(help="Its name there.", show_default="the only one")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring in an Optuna study of your own: the next search begins with the best of it.

    Its parameters must be called as in the declaration; with several candidates as in an exported
    study, with the candidate's path before them.
    """
    from holdtrue.tuning._exchange import import_study

    system = system_of(file)
    brought = import_study(system.store, system.declaration, storage, study)
    used = system.declaration.tune.warm_start
    lines = [f"imported {brought.trials:,} trials into {brought.path}"]
    lines += [f"  {note}" for note in brought.notes]
    if not used:
        lines.append(
            "The declaration says tune.warm_start: no, so the next search will not use them."
        )
    tell("\n".join(lines), {**brought._asdict(), "used": used}, as_json=as_json)
