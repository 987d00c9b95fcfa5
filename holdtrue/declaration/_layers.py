"""A file that says only what differs from another one, and that one under it, as one document."""

from __future__ import annotations

import pathlib
from typing import Any

from holdtrue.declaration._mistakes import models_at
from holdtrue.declaration._section import EXTENDS
from holdtrue.declaration._yaml import Document, Mark, Problem, read
from holdtrue.errors import ConfigError, Key, meant_file
from holdtrue.store import find_project

MAX_BYTES = 1_000_000
MAX_FILES = 5


def compose(path: pathlib.Path) -> Document:
    """Read a file, over the one that it extends.

    Mappings are merged key by key; all else, lists too, takes the place of what is under it, and
    ``null`` takes that away. A mapping that is about another thing than the one under it, as
    `Section.chosen` has it, takes its place, too.

    Args:
        path: A file of at most 1 MB, in UTF-8.

    Returns:
        What both say, each place with the file that says it. Without a value, and with the reason
        as a problem, where one of them cannot be read.

    Raises:
        ConfigError: The file itself cannot be read.
    """
    files = [path.resolve()]
    documents = [read(_text(path), str(path))]
    while isinstance(documents[-1].value, dict) and EXTENDS in documents[-1].value:
        document = documents[-1]
        try:
            files.append(_base(document, files, find_project(path)))
            documents.append(_readable(files[-1]))
        except ConfigError as err:
            key, value = document.marks[EXTENDS,]
            at = key if (EXTENDS,) in document.empty else value
            document.problems.append(Problem(at, (EXTENDS,), err.message, err.hint or ""))
            problems = [problem for one in documents for problem in one.problems]
            return Document(str(path), problems=problems)
        del document.value[EXTENDS]
    composed = documents.pop()
    while documents:
        composed = _over(composed, documents.pop())
    composed.files = tuple(files)
    return composed


def _text(path: pathlib.Path) -> str:
    """What a file says.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as err:
        message = f"{path}: no such file{meant_file(path)}"
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
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = raw.count(b"\n", 0, err.start) + 1
        message = f"{path}:{line}: not UTF-8 (byte {raw[err.start]:#04x}); save the file as UTF-8"
        raise ConfigError(message) from err


def _base(document: Document, files: list[pathlib.Path], project: pathlib.Path) -> pathlib.Path:
    """The file that a document extends.

    Args:
        document: What the last of the files says.
        files: Those that were read so far, each extended by the one before it.
        project: Folder that it has to be in.

    Raises:
        ConfigError: It names none that it may extend.
    """
    given = document.value[EXTENDS]
    example = "write the path of a declaration, from the folder of this file: extends: flights.yaml"
    if not isinstance(given, str) or not given.strip():
        message = "expected the path of a file"
        raise ConfigError(message, hint=example)
    if "${" in given:
        message = (
            "expected the path of a file, not a reference: what is extended is the same everywhere"
        )
        raise ConfigError(message, hint=example)
    try:
        base = (files[-1].parent / given).resolve()
    except (OSError, RuntimeError, ValueError) as err:  # links in a circle; a null character
        message = f"{given!r} is not the path of a file"
        raise ConfigError(message, hint=example) from err
    if base in files:
        circle = " extends ".join(_shown(file) for file in [*files[files.index(base) :], base])
        message = f"goes in a circle: {circle}"
        raise ConfigError(message, hint="let one of them stand on its own")
    if not base.is_relative_to(project):
        message = f"{_shown(base)} is not in the project's folder, {project}"
        hint = (
            "that is the nearest folder above this file with a pyproject.toml, prefect.yaml, .git "
            "or flows; move one of the files, or put one of these above both"
        )
        raise ConfigError(message, hint=hint)
    if len(files) == MAX_FILES:
        message = f"more than {MAX_FILES} files, each over the next"
        raise ConfigError(message, hint="let what they have in common be in fewer")
    return base


def _readable(path: pathlib.Path) -> Document:
    """What a file says that another one extends.

    Raises:
        ConfigError: It cannot be read, or is no mapping.
    """
    shown = _shown(path)
    try:
        document = read(_text(path), shown)
    except ConfigError as err:
        message = err.message.replace(str(path), shown, 1)
        raise ConfigError(message, hint="the path starts from the folder of this file") from err
    if isinstance(document.value, dict):
        return document
    if document.value is None and document.problems:
        first = document.problems[0]
        at = first.at or Mark(1, 1, shown)
        message = f"{shown}:{at.line}:{at.column}: {first.text}"
        raise ConfigError(message, hint=first.advice)
    message = f"{shown}: not a mapping"
    raise ConfigError(message, hint="expected a mapping such as `name: flights`")


def _shown(path: pathlib.Path) -> str:
    """A file's path from the working folder on, where it is in it."""
    here = pathlib.Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _over(base: Document, document: Document) -> Document:
    """What a document says, and for the rest what the one says that it extends."""
    merge = _Merge(base, document)
    value = merge.value((), base.value, document.value)
    merge.marks[EXTENDS,] = document.marks[EXTENDS,]
    problems = [*document.problems, *base.problems, *merge.problems]
    return Document(document.source, value, merge.marks, problems, base=base)


class _Merge:
    """Puts what a document says in the place of what the one says that it extends."""

    def __init__(self, base: Document, document: Document) -> None:
        self.base = base
        self.document = document
        self.marks: dict[Key, tuple[Mark, Mark]] = {}
        self.problems: list[Problem] = []

    def value(self, path: Key, under: Any, over: Any) -> Any:
        """The value of a place of which the document says something, and the other one perhaps."""
        if not isinstance(under, dict) or not isinstance(over, dict) or _other(path, under, over):
            return self._whole(self.document, path, over)
        self.marks[path] = self.document.marks[path]
        known = {name for model in models_at(path) for name in model.model_fields}
        merged = {}
        for key in [*under, *(key for key in over if key not in under)]:
            place = (*path, key)
            if key not in over:
                merged[key] = self._whole(self.base, place, under[key])
            elif over[key] is not None:
                merged[key] = self.value(place, under.get(key, {}), over[key])
            elif key in under or (key in known and place not in self.document.empty):
                # Kept, so that what is missed then is missed here.
                self.marks[place] = self.document.marks[place]
                self._refuse_empty(place)
            else:
                merged[key] = self._whole(self.document, place, None)
        return merged

    def _whole(self, document: Document, path: Key, value: Any) -> Any:
        """A value that only one of the documents has a say in."""
        self.marks[path] = document.marks[path]
        items = value.items() if isinstance(value, dict) else ()
        for key, child in items if not isinstance(value, list) else enumerate(value):
            self._whole(document, (*path, key), child)
        return value

    def _refuse_empty(self, path: Key) -> None:
        """Refuse a key whose lines have gone, that would take away what is under it."""
        if path in self.document.empty:
            key = self.document.marks[path][0]
            text = f"nothing is written here, and {self.base.source} says something"
            advice = "write null to take that out, or leave the key out to keep it"
            self.problems.append(Problem(key, path, text, advice))


def _other(path: Key, under: dict[str, Any], over: dict[str, Any]) -> bool:
    """Whether two mappings of a place are about different things, of several that it may be."""
    for model in models_at(path):
        chosen = model.chosen(over)
        if chosen is not None:
            return bool(chosen != model.chosen(under))
    return False
