"""What can be refused of steps before any of them runs."""

from __future__ import annotations

import difflib
import inspect
import shutil
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdtrue.data import check_source, import_from
from holdtrue.errors import ConfigError
from holdtrue.preparation._state import files_of, source_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdtrue.declaration import Declaration, Step
    from holdtrue.errors import Key

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def check_sources(declaration: Declaration, project: Path) -> dict[str, str]:
    """Refuse a source that is not there, and what steps run and read where it does not fit.

    Args:
        declaration: Its data and its steps.
        project: Folder that paths and import paths start from.

    Returns:
        As `source_state`.

    Raises:
        ConfigError: A function does not exist or does not take what it would be given, a command is
            not installed, or a source is of another kind.
        NoSourceError: Files or a table are not there.
        SourceError: The place of any of them does not answer.
    """
    for name, step in declaration.steps.items():
        key = ("steps", name)
        for need, source in step.needs.items():
            if source.step is None:
                check_source(source, project, (*key, "needs", need))
        for each, values in step.foreach.items():
            if isinstance(values, str):
                files_of((*key, "foreach", each), values, project)
        if isinstance(step.run, str):
            arguments_of(step, name, project)
            continue
        command = step.run[0]
        there = project / command if "/" in command else command
        if shutil.which(there) is None:
            message = f"there is no command {command}"
            hint = "install it, or give the path of it"
            if (project / command).is_file():
                message = f"{command} is a file of the project that may not be run"
                path = command if "/" in command else f"./{command}"
                hint = f"chmod +x {path}, and name it as {path}"
            raise ConfigError(message, hint=hint, key=(*key, "run"))
    source = declaration.data.source
    return (
        check_source(source, project) if source.step is None else source_state(declaration, project)
    )


def arguments_of(step: Step, name: str, project: Path) -> dict[str, str]:
    """How the function of a step takes what it is given, by the annotations of its arguments.

    Args:
        step: As declared, with a function.
        name: Its name, for messages.
        project: Folder that its import path starts from.

    Returns:
        By name of a need: ``frame`` (a DataFrame, also where nothing is said), ``table`` (an Arrow
        table), ``path`` or ``paths`` (of files).

    Raises:
        ConfigError: There is no such function, or it takes other arguments.
    """
    assert isinstance(step.run, str)  # noqa: S101 - nothing else leads here
    key: Key = ("steps", name)
    function = import_from(project, step.run, "the function", (*key, "run"))
    given = [*step.needs, *step.params, *step.foreach]
    takes = _parameters(function, (*key, "run"), step.run)
    if takes is None:
        return {}
    known = [p.name for p in takes.values() if p.kind in _NAMED]
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values())
    unknown = [one for one in given if one not in known]
    if unknown and not anything:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        message = f"{step.run} takes no argument {unknown[0]}" + (
            f" (did you mean {near[0]}?)" if near else ""
        )
        hint = f"it takes: {', '.join(known) or 'nothing'}"
        section = "needs" if unknown[0] in step.needs else "params"
        section = section if unknown[0] not in step.foreach else "foreach"
        raise ConfigError(message, hint=hint, key=(*key, section, unknown[0]))
    lacking = [
        p.name
        for p in takes.values()
        if p.default is p.empty and p.kind in (*_NAMED, inspect.Parameter.POSITIONAL_ONLY)
        if p.name not in given or p.kind is inspect.Parameter.POSITIONAL_ONLY
    ]
    if lacking:
        message = f"{step.run} needs an argument {lacking[0]}, which it is not given"
        raise ConfigError(message, hint="name it in needs, params or foreach", key=key)
    hints = _hints(function)
    found = {one: _how(hints.get(one)) for one in step.needs}
    for need, source in step.needs.items():
        remote = source.files is not None and "://" in source.files
        if remote and found[need] in ("path", "paths"):
            message = f"{step.run} takes {need} as a path, and {source} are elsewhere"
            hint = "let it take a DataFrame or an Arrow table"
            raise ConfigError(message, hint=hint, key=(*key, "needs", need))
    return found


def _parameters(function: Any, key: Key, path: str) -> Mapping[str, inspect.Parameter] | None:
    """The parameters of a function; None where Python does not know them."""
    if not callable(function):
        message = f"{path} is a {type(function).__name__}, expected a function"
        raise ConfigError(message, key=key)
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:  # noqa: BLE001 - such as names that are imported for checkers only
        return dict(getattr(inspect.unwrap(function), "__annotations__", {}))


def _how(hint: Any) -> str:
    """How an argument takes rows, by its annotation or the text of it."""
    if isinstance(hint, str):
        text = hint.replace(" ", "")
        if "Path" in text:
            return "paths" if "[" in text else "path"
        return "table" if text.endswith("Table") else "frame"
    if typing.get_origin(hint) is not None:
        return "paths" if Path in typing.get_args(hint) else "frame"
    if isinstance(hint, type) and issubclass(hint, Path):
        return "path"
    name = f"{getattr(hint, '__module__', '')}.{getattr(hint, '__qualname__', '')}"
    return "table" if name.startswith("pyarrow") and name.endswith(".Table") else "frame"
