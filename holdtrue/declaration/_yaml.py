"""From YAML text to plain values and their positions, by the rules of YAML 1.2."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from holdtrue.errors import Key

MAX_NODES = 10_000
MAX_DEPTH = 50

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
# No leading zeros: 01234 is a postcode more often than a number, and text keeps it whole.
_DIGITS = r"(?:0|[1-9][0-9]*(?:_[0-9]+)*)"
_INT = re.compile(rf"[-+]?{_DIGITS}|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(rf"[-+]?(?:\.[0-9]+|{_DIGITS}(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
SURROGATE = re.compile(r"[\ud800-\udfff]")
_ENDLESS = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_SYNTAX_ADVICE = {
    "mapping values are not allowed": "check the indentation; put text that holds `: ` in quotes",
    "but got '{'": "put text that holds `{` in quotes",
    "expected ',' or '}'": "close the brace, or put a comma between the keys",
    "expected ',' or ']'": "close the bracket, or put a comma between the values",
    "unexpected end of stream": "close the quote",
    "could not find expected ':'": "a key ends with a colon and a space: `name: flights`",
    "cannot start any token": "put text that begins with it in quotes",
}
# Of what is not closed and of a key without its colon: PyYAML marks where it gave up, which may be
# lines later, and keeps apart where that began.
_BEGAN = ("expected ',' or", "unexpected end of stream", "could not find expected ':'")


@dataclass(frozen=True, order=True)
class Mark:
    """A position in a text; line and column count from 1."""

    line: int
    column: int
    source: str = ""
    """Name of the text."""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Problem:
    """One mistake in a declaration."""

    at: Mark | None
    path: Key
    text: str
    """What is wrong."""
    advice: str = ""
    """What is allowed, or what to do."""


@dataclass
class Document:
    """What a YAML text says and where it says it."""

    source: str = ""
    """Name of the text."""
    value: Any = None
    marks: dict[Key, tuple[Mark, Mark]] = field(default_factory=dict)
    """For each place: where its key and where its value starts. For items both are the same."""
    problems: list[Problem] = field(default_factory=list)
    unset: list[Problem] = field(default_factory=list)
    """Variables of receivers that are not set: nobody needs these but who writes to them."""
    empty: set[Key] = field(default_factory=set)
    """Places of keys after which nothing is written, not even ``null``."""
    base: Document | None = None
    """What it extends, which is in its value; None for nothing."""
    files: tuple[pathlib.Path, ...] = ()
    """The files that it was read from, each extended by the one before it."""

    def mark_of(self, key: Key) -> Mark:
        """Where a place stands, or the nearest one around it that is written.

        A whole place is pointed at by its value; one that is missing, by the key that should hold
        it.
        """
        nearest = key
        while nearest and nearest not in self.marks:
            nearest = nearest[:-1]
        start = Mark(1, 1, self.source)
        name, value = self.marks.get(nearest, (start, start))
        return value if nearest == key else name


class _Refused(Exception):  # noqa: N818 - never leaves this module
    """The text cannot be read any further."""

    def __init__(self, mark: yaml.Mark | None, text: str, advice: str = "") -> None:
        super().__init__(text)
        self.problem = Problem(None if mark is None else _mark(mark), (), text, advice)


class _Loader(yaml.SafeLoader):
    """Builds nodes only, and gives up at the limits before Python does."""

    # Scalars are told apart by _scalar(): the rules built in here are those of YAML 1.1.
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the attribute's name and kind are PyYAML's

    def __init__(self, text: str, source: str) -> None:
        super().__init__(text)
        self.name = source  # which every mark has
        self.depth = 0
        self.nodes = 0
        self.tagged: list[yaml.Mark] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        self.nodes += 1
        self.depth += 1
        if self.nodes > MAX_NODES:
            raise _Refused(event.start_mark, f"more than {MAX_NODES:,} values")
        if self.depth > MAX_DEPTH:
            raise _Refused(event.start_mark, f"nested more than {MAX_DEPTH} levels deep")
        if getattr(event, "tag", None) is not None:
            self.tagged.append(event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read(text: str, source: str = "") -> Document:
    """Read YAML text into plain values, with every mistake that does not hide the rest.

    Args:
        text: The text.
        source: Its name.
    """
    document = Document(source)
    try:
        loader = _Loader(text, source)
        root = loader.get_single_node()
    except yaml.reader.ReaderError as err:
        document.problems.append(_unreadable(text, source, err))
    except yaml.MarkedYAMLError as err:
        document.problems.append(_syntax(err))
    except _Refused as err:
        document.problems.append(err.problem)
    except (ValueError, OverflowError):
        # PyYAML passes what follows \\U to chr() unchecked.
        problem = Problem(
            None, (), "not valid YAML: an escape such as \\UFFFFFFFF is not a character"
        )
        document.problems.append(problem)
    else:
        if root is None:
            advice = "expected a mapping such as `name: flights`"
            problem = Problem(Mark(1, 1, source), (), "the file is empty", advice)
            document.problems.append(problem)
            return document
        for mark in loader.tagged:
            problem = Problem(
                _mark(mark), (), "tags (`!`) are not allowed", "write the plain value"
            )
            document.problems.append(problem)
        walk = _Walk(document)
        try:
            document.value = walk.value(root, ())
        except _Refused as err:
            document.problems.append(err.problem)
    return document


def is_text(text: str) -> bool:
    """Say whether YAML reads unquoted text as text."""
    return isinstance(_scalar(text), str)


class _Walk:
    """From nodes to values."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.nodes = 0

    def value(self, node: yaml.Node, path: Key, key: yaml.Mark | None = None) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES or len(path) > MAX_DEPTH:
            # compose() has counted every alias once: only what they expand to comes to this.
            raise _Refused(
                node.start_mark, "the aliases (`*`) expand to too much", "write the values out"
            )
        at = _mark(node.start_mark)
        self.document.marks[path] = (at if key is None else _mark(key), at)
        if isinstance(node, yaml.MappingNode):
            return {
                name: self.value(child, (*path, name), mark)
                for name, child, mark in self.items(node, path)
            }
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        raise _Refused(node.start_mark, "not a YAML value")  # PyYAML has no other kind of node

    def items(
        self, node: yaml.MappingNode, path: Key
    ) -> Iterator[tuple[str, yaml.Node, yaml.Mark]]:
        """Yield the acceptable keys with their values, and note the others as problems."""
        seen: dict[str, Mark] = {}
        for key, child in node.value:
            at = _mark(key.start_mark)
            plain = isinstance(key, yaml.ScalarNode) and key.style is None
            if not isinstance(key, yaml.ScalarNode) or (plain and not is_text(key.value)):
                shown = f'"{key.value}"' if isinstance(key, yaml.ScalarNode) else "a name"
                self.note(at, path, "keys must be text", f"put it in quotes: {shown}")
            elif plain and key.value == "<<":
                self.note(at, path, "merge keys (`<<`) are not allowed", "write the keys out")
            elif key.value in seen:
                first = seen[key.value]
                text = f"duplicate key, first at {first.line}:{first.column}"
                self.note(at, (*path, key.value), text, "keep one of the two")
            else:
                seen[key.value] = at
                yield key.value, child, key.start_mark

    def scalar(self, node: yaml.ScalarNode, path: Key) -> Any:
        if node.style is None and not node.value:
            self.document.empty.add(path)
        value = _scalar(node.value) if node.style is None else node.value
        if isinstance(value, str) and SURROGATE.search(value):
            self.note(
                _mark(node.start_mark), path, "an escape such as \\ud800 is not a character", ""
            )
            return None
        if isinstance(value, float) and not math.isfinite(value):
            self.note(
                _mark(node.start_mark),
                path,
                "not a finite number",
                "write a number, or leave it out where it is a bound",
            )
            return None
        return value

    def note(self, at: Mark, path: Key, text: str, advice: str) -> None:
        self.document.problems.append(Problem(at, path, text, advice))


def _scalar(text: str) -> Any:
    """Give an unquoted scalar its type, by the core schema of YAML 1.2 (section 10.3.2)."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        plain = text.replace("_", "")
        # Longer than any number a machine can hold: int() would refuse it with an error of its own.
        return int(plain, 0) if len(plain) < 300 else math.inf
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    return math.nan if _ENDLESS.fullmatch(text) else text


def _mark(mark: yaml.Mark) -> Mark:
    return Mark(mark.line + 1, mark.column + 1, mark.name)


def _unreadable(text: str, source: str, err: yaml.reader.ReaderError) -> Problem:
    before = text[: err.position]
    mark = Mark(before.count("\n") + 1, err.position - (before.rfind("\n") + 1) + 1, source)
    return Problem(mark, (), f"the character U+{err.character:04X} is not allowed", "remove it")


def _syntax(err: yaml.MarkedYAMLError) -> Problem:
    said = err.problem or "not valid YAML"
    began = any(part in said for part in _BEGAN) and "but got '{'" not in said
    mark = (began and err.context_mark) or err.problem_mark or err.context_mark
    at = None if mark is None else _mark(mark)
    if "'\\t'" in said:
        return Problem(at, (), "a tab cannot be used here", "indent with spaces")
    if "single document" in (err.context or ""):
        return Problem(at, (), "more than one document (`---`)", "keep one system to a file")
    advice = next(
        (advice for part, advice in _SYNTAX_ADVICE.items() if part in said), err.context or ""
    )
    return Problem(at, (), f"not valid YAML: {said}", advice)
