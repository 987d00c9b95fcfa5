"""The commands about studies: study export, import."""

from __future__ import annotations

from typing import Annotated

import typer

from holdtrue.commands import AsJson, DeclarationFile, system_of, tell

study_app = typer.Typer(
    no_args_is_help=True, help="Take a study to another Optuna storage, or bring one from there."
)

Storage = Annotated[
    str,
    typer.Argument(
        metavar="STORAGE",
        help="Such as sqlite:///studies.db or postgresql://..., or an Optuna journal file.",
        show_default=False,
    ),
]


@study_app.command("export")
def export_(
    file: DeclarationFile,
    storage: Storage,
    study: Annotated[
        str | None, typer.Option(help="What to call it there.", show_default="its own name")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy the last study of a system into an Optuna storage."""
    from holdtrue.tuning._exchange import export_study

    name = export_study(system_of(file).study_log(), storage, study)
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
