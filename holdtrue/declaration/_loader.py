"""From a file to a declaration, or to every mistake in it at once."""

from __future__ import annotations

import json
import os
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from holdtrue.declaration._auto import expand
from holdtrue.declaration._mistakes import from_pydantic
from holdtrue.declaration._models import Declaration
from holdtrue.declaration._yaml import SURROGATE, Document, Mark, Path, Problem, read, spell
from holdtrue.errors import ConfigError

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Mapping

MAX_BYTES = 1_000_000
_SHOWN = 20
_REFERENCE = re.compile(r"\$\{env:([^}]*)\}?")
_NOTIFY = "notify"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def load(path: pathlib.Path) -> Declaration:
    """Read a declaration from a YAML file.

    Args:
        path: A file of at most 1 MB, in UTF-8.

    Raises:
        ConfigError: The file cannot be read, or what it says is not acceptable; the message lists
            every mistake as ``file:line:column: place: what is wrong``.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as err:
        message = f"{path}: no such file"
        raise ConfigError(
            message, hint="check the path, or make a first one with: holdtrue init"
        ) from err
    except IsADirectoryError as err:
        message = f"{path}: is a folder, expected a YAML file"
        raise ConfigError(message) from err
    except OSError as err:
        message = f"{path}: cannot be read: {err.strerror}"
        raise ConfigError(message) from err
    if len(raw) > MAX_BYTES:
        message = f"{path}: larger than 1 MB; a declaration holds settings, not data"
        raise ConfigError(message)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = raw.count(b"\n", 0, err.start) + 1
        message = f"{path}:{line}: not UTF-8 (byte {raw[err.start]:#04x}); save the file as UTF-8"
        raise ConfigError(message) from err
    return parse(text, str(path))


def parse(text: str, source: str = "<text>") -> Declaration:
    """Read a declaration from YAML text.

    Args:
        text: The YAML text.
        source: Where it comes from, for the messages.

    Raises:
        ConfigError: What it says is not acceptable; the message lists every mistake.
    """
    document = read(text)
    problems = document.problems
    if document.value is None and problems:
        raise _refusal(source, document, problems)
    if not isinstance(document.value, dict):
        expected = "expected a mapping such as `name: flights`"
        raise _refusal(source, document, [Problem(Mark(1, 1), (), "not a mapping", expected)])
    secrets: dict[str, str] = {}
    value, unknown = expand(_resolve(document.value, (), document, secrets))
    problems.extend(unknown)
    if any(problem.path == (_NOTIFY, "secret") for problem in document.unset):
        # What is posted without its signature would be taken for a forgery.
        value[_NOTIFY]["to"] = []
    try:
        # JSON, because strict validation takes lists for tuples there; strict, so that "yes" is no
        # boolean and true is no number.
        declaration = Declaration.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as err:
        known = {problem.path for problem in problems if problem.path}
        found = [problem for problem in from_pydantic(err, document) if problem.path not in known]
        # Not from err: its text shows the environment's values.
        raise _refusal(source, document, [*problems, *found], secrets) from None
    if problems:
        raise _refusal(source, document, problems, secrets)
    if document.unset:
        lines = tuple(_line(problem, source, document) for problem in document.unset)
        declaration = declaration.model_copy(update={_NOTIFY: declaration.notify.lacking(lines)})
    return declaration


def _resolve(value: Any, path: Path, document: Document, secrets: dict[str, str]) -> Any:
    """Put the environment's values for ``${env:NAME}``, and remember them so that none is shown."""
    if isinstance(value, dict):
        return {
            key: _resolve(child, (*path, key), document, secrets) for key, child in value.items()
        }
    if isinstance(value, list):
        return [_resolve(child, (*path, i), document, secrets) for i, child in enumerate(value)]
    if not isinstance(value, str) or "${env:" not in value:
        return value

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if not _VARIABLE.fullmatch(name) or not match[0].endswith("}"):
            problem = Problem(None, path, f"{match[0]} is not a reference", "expected ${env:NAME}")
            document.problems.append(problem)
        elif name not in os.environ:
            advice = f"set it before you run the command: export {name}=..."
            problem = Problem(None, path, f"the environment variable {name} is not set", advice)
            (document.unset if path[:1] == (_NOTIFY,) else document.problems).append(problem)
        elif SURROGATE.search(os.environ[name]):
            text = f"the environment variable {name} is not UTF-8"
            document.problems.append(Problem(None, path, text, "set it to text"))
        else:
            return os.environ[name]
        return match[0]

    resolved = _REFERENCE.sub(replace, value)
    if any(problem.path == path for problem in document.unset):
        return ""
    if resolved not in ("", value):
        secrets[resolved] = value
    return resolved


def _refusal(
    source: str,
    document: Document,
    problems: list[Problem],
    secrets: Mapping[str, str] = MappingProxyType({}),
) -> ConfigError:
    """Make one error of all problems, in the order of the file."""
    placed = sorted(
        ((_place(problem, document), problem) for problem in problems), key=lambda pair: pair[0]
    )
    lines = []
    for _, problem in placed[:_SHOWN]:
        lines.append(_line(problem, source, document, secrets))
        if problem.advice:
            lines.append(f"  {_masked(problem.advice, secrets)}")
    if len(placed) > _SHOWN:
        lines.append(f"and {len(placed) - _SHOWN} more")
    return ConfigError("\n".join(lines))


def _line(
    problem: Problem,
    source: str,
    document: Document,
    secrets: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """A problem with its place, less what to do about it."""
    mark = _place(problem, document)
    place = f"{spell(problem.path)}: " if problem.path else ""
    return f"{source}:{mark.line}:{mark.column}: {place}{_masked(problem.text, secrets)}"


def _masked(text: str, secrets: Mapping[str, str]) -> str:
    """Put the references back for the environment's values."""
    for secret in sorted(secrets, key=len, reverse=True):
        reference = secrets[secret].replace("\\", r"\\")
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", reference, text)
    return text


def _place(problem: Problem, document: Document) -> Mark:
    """Find where a problem stands: its own mark, or the nearest place that is in the file."""
    if problem.at is not None:
        return problem.at
    path = problem.path
    while path and path not in document.marks:
        path = path[:-1]
    # A whole place is pointed at by its value; one that is missing, by the key that should hold it.
    key, value = document.marks.get(path, (Mark(1, 1), Mark(1, 1)))
    return value if path == problem.path else key
