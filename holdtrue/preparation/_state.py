"""What a change of a step, or of what it reads, would change; without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.data import code_of, fingerprint, import_from, list_files
from holdtrue.data._sources import told_of
from holdtrue.declaration import needed
from holdtrue.models import digest_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from holdtrue.declaration import Declaration, Step
    from holdtrue.errors import Key

_SEEN = {"files", "version"}


def source_state(declaration: Declaration, project: Path) -> dict[str, str]:
    """What a change of `data.source` would change, cheaply: as `fingerprint`, or that of its steps.

    Args:
        declaration: Its source and its steps.
        project: Folder that paths start from.

    Raises:
        ConfigError: A function does not exist.
        NoSourceError: Files or a table are not there.
        SourceError: The place of any of them does not answer.
    """
    source = declaration.data.source
    if source.step is None:
        return fingerprint(source, project)
    return {
        f"{name}.{what}": digest
        for name in needed(declaration.steps, [source])
        for what, digest in state_of(declaration.steps[name], name, project).items()
    }


def state_of(step: Step, name: str, project: Path) -> dict[str, str]:
    """Digests of a step's code and of what it reads; not of what other steps give it.

    Args:
        step: As declared.
        name: Its name, for messages.
        project: Folder that paths start from.

    Raises:
        HoldtrueError: As `source_state`.
    """
    if isinstance(step.run, str):
        code = code_of(
            import_from(project, step.run, "the function", ("steps", name, "run")), project
        )
    else:
        there = [project / part for part in step.run if "{" not in part]
        code = digest_of(b"".join(path.read_bytes() for path in there if path.is_file()))
    state = {step.run if isinstance(step.run, str) else step.run[0]: code}
    for need, source in step.needs.items():
        with told_of(("steps", name, "needs", need)):
            found = fingerprint(source, project)
        state |= {f"{need}.{what}": digest for what, digest in found.items()}
    for each, values in step.foreach.items():
        if isinstance(values, str):
            listing = files_of(("steps", name, "foreach", each), values, project)
            state[f"foreach.{each}"] = digest_of(repr([*listing.values()]).encode())
    return state


def files_of(place: Key, pattern: str, project: Path) -> Mapping[str, tuple[str, int, int]]:
    """Path of each file that `foreach` of a step is about, with its name, size and time.

    Args:
        place: Of the pattern in the declaration, for messages.
        pattern: Path or glob.
        project: Folder that it starts from.

    Raises:
        NoSourceError: There is none.
    """
    with told_of(place, ("data", "source", "files")):
        state = list_files(pattern, project, of_rows=False).state()
    return {path: (path, size, time) for path, size, time in state}


def is_seen(step: Step) -> bool:
    """Whether its state, and the steps before it, say all that it depends on."""
    kinds = [source for source in step.needs.values() if source.step is None]
    if not step.needs and not any(isinstance(each, str) for each in step.foreach.values()):
        return False
    return all(source.files is not None or source.delta is not None for source in kinds)
