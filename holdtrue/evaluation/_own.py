"""Checks of the project's own: functions that judge the answered test rows."""

from __future__ import annotations

import inspect
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from holdtrue.errors import ConfigError, DataError
from holdtrue.own_code import said_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from holdtrue.errors import Key

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_MOST = 2


def takes_champion(function: Any, path: str, key: Key = ()) -> bool:
    """Whether a check has a second argument, for what the champion answers.

    Args:
        function: The check.
        path: Its import path, for messages.
        key: Where the declaration names it.

    Raises:
        ConfigError: It is no function, or takes other arguments.
    """
    hint = "let it take the rows, and, if it wants them, those that the champion has answered"
    if not callable(function):
        message = f"the check {path} is a {type(function).__name__}, expected a function"
        raise ConfigError(message, hint=hint, key=key)
    try:
        parameters = [*inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):
        return False
    given = [p for p in parameters if p.kind in _POSITIONAL]
    needed = [p for p in parameters if p.default is p.empty and p.kind not in _ANY]
    if not given or len(needed) > _MOST or any(p not in given[:_MOST] for p in needed):
        message = f"the check {path} takes ({', '.join(map(str, parameters))})"
        raise ConfigError(message, hint=hint, key=key)
    return len(given) > 1


def call_own(function: Any, path: str, given: Sequence[Any], project: Path) -> Any:
    """Call a check.

    Args:
        function: The check.
        path: Its import path, for messages.
        given: Its arguments.
        project: Folder of the code whose line is told where it fails.

    Raises:
        DataError: It failed.
    """
    try:
        # What it prints is no answer of the command, which may be JSON.
        with redirect_stdout(sys.stderr):
            return function(*given)
    except (Exception, SystemExit) as err:
        message = f"the check {path} failed: {said_of(err, project)}"
        raise DataError(message) from err
