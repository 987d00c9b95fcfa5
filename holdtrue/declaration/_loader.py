"""From a file to a declaration, or to every mistake in it at once."""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from holdtrue.declaration._auto import expand
from holdtrue.declaration._changes import Change, changes
from holdtrue.declaration._layers import compose
from holdtrue.declaration._mistakes import from_pydantic
from holdtrue.declaration._models import Declaration
from holdtrue.declaration._section import EXTENDS
from holdtrue.declaration._yaml import SURROGATE, Document, Mark, Problem, read
from holdtrue.errors import ConfigError, HoldtrueError, Key, Mistake

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator, Mapping

_SHOWN = 20
_REFERENCE = re.compile(r"\$\{env:([^}]*)\}?")
_NOTIFY = "notify"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Loaded(NamedTuple):
    """A declaration, and the files that say it."""

    declaration: Declaration
    files: tuple[pathlib.Path, ...]
    """Absolute; the file itself, and those that it extends, each extended by the one before it."""
    changes: tuple[Change, ...]
    """What it says otherwise than the file that it extends, without passwords."""
    places: Places


class Places:
    """Where the declared files say what: for mistakes that are found once they were loaded.

    Args:
        document: What they say; none where a declaration is in no file.
    """

    def __init__(self, document: Document | None = None) -> None:
        self._document = document

    @contextmanager
    def told(self) -> Iterator[None]:
        """Have the errors of a block say where in the files the places are that they are about."""
        try:
            yield
        except HoldtrueError as err:
            document = self._document
            if document is not None:
                err.locate(lambda key: str(document.mark_of(key)))
            raise


def load(path: pathlib.Path) -> Declaration:
    """Read a declaration from a YAML file.

    Args:
        path: A file of at most 1 MB, in UTF-8.

    Raises:
        ConfigError: The file cannot be read, or what it says is not acceptable; the message lists
            every mistake as ``file:line:column: place: what is wrong``.
    """
    return load_layers(path).declaration


def load_layers(path: pathlib.Path) -> Loaded:
    """Read a declaration, and what was said by which file; arguments and errors as for `load`."""
    document = compose(path)
    declaration = _declaration(document)
    if document.base is None:
        return Loaded(declaration, document.files, (), Places(document))
    found = changes(document.base.value, document.value)
    hidden = tuple(change.hidden() for change in found)
    return Loaded(declaration, document.files, hidden, Places(document))


def parse(text: str, source: str = "<text>") -> Declaration:
    """Read a declaration from YAML text.

    Args:
        text: The YAML text.
        source: Where it comes from, for the messages.

    Raises:
        ConfigError: What it says is not acceptable; the message lists every mistake.
    """
    document = read(text, source)
    if isinstance(document.value, dict) and EXTENDS in document.value:
        del document.value[EXTENDS]
        said = "only a file can extend another one"
        document.problems.append(
            Problem(None, (EXTENDS,), said, "write this to a file, and load that")
        )
    return _declaration(document)


def _declaration(document: Document) -> Declaration:
    """Make a declaration of what was read.

    Raises:
        ConfigError: It is not acceptable.
    """
    problems = document.problems
    if document.value is None and problems:
        raise _refusal(document, problems)
    if not isinstance(document.value, dict):
        expected = "expected a mapping such as `name: flights`"
        raise _refusal(document, [Problem(None, (), "not a mapping", expected)])
    secrets: dict[str, str] = {}
    value, unknown = expand(_resolve(document.value, (), document, secrets))
    problems.extend(unknown)
    problems.extend(_unnamed(document, value.get("name")))
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
        raise _refusal(document, [*problems, *found], secrets) from None
    if problems:
        raise _refusal(document, problems, secrets)
    if document.unset:
        lines = tuple(_line(problem, document) for problem in document.unset)
        declaration = declaration.model_copy(update={_NOTIFY: declaration.notify.lacking(lines)})
    return declaration


def _unnamed(document: Document, name: Any) -> Iterator[Problem]:
    """Refuse a file that would be another declaration of the very system of one that it extends."""
    base = document.base
    if base is None:
        return
    if document.marks.get(("name",), (Mark(0, 0),))[0].source != document.source:
        text = f"missing key: a file that extends {base.source} declares another system"
        advice = "give it a name of its own: two declarations of one would undo each other"
        yield Problem(document.marks[EXTENDS,][0], ("name",), text, advice)
        return
    while base is not None:
        if name is not None and name == _resolve(base.value.get("name"), (), Document(), {}):
            text = f"{name} is declared by {base.source}, which this file extends"
            advice = (
                "give it a name of its own: two declarations of one system would undo each other"
            )
            yield Problem(None, ("name",), text, advice)
            return
        base = base.base


def _resolve(value: Any, path: Key, document: Document, secrets: dict[str, str]) -> Any:
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
    document: Document,
    problems: list[Problem],
    secrets: Mapping[str, str] = MappingProxyType({}),
) -> ConfigError:
    """Make one error of all problems, in the order of the file, and then of those it extends."""
    placed = sorted(
        ((_place(problem, document), problem) for problem in problems),
        key=lambda pair: (pair[0].source != document.source, pair[0].source, pair[0]),
    )
    lines = []
    for _, problem in placed[:_SHOWN]:
        lines.append(_line(problem, document, secrets))
        if problem.advice:
            lines.append(f"  {_masked(problem.advice, secrets)}")
    if len(placed) > _SHOWN:
        lines.append(f"and {len(placed) - _SHOWN} more")
    return ConfigError("\n".join(lines))


def _line(
    problem: Problem,
    document: Document,
    secrets: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """A problem with its place, less what to do about it."""
    at = str(_place(problem, document))
    return str(Mistake(_masked(problem.text, secrets), problem.path, at))


def _masked(text: str, secrets: Mapping[str, str]) -> str:
    """Put the references back for the environment's values."""
    for secret in sorted(secrets, key=len, reverse=True):
        reference = secrets[secret].replace("\\", r"\\")
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", reference, text)
    return text


def _place(problem: Problem, document: Document) -> Mark:
    """Find where a problem stands: its own mark, or the nearest place that is in the file."""
    return problem.at or document.mark_of(problem.path)
