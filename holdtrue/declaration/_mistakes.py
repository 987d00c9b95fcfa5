"""From what pydantic says about a declaration to plain sentences that help."""

from __future__ import annotations

import difflib
import json
import re
import types
from collections import defaultdict
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from holdtrue.declaration._changes import HIDDEN
from holdtrue.declaration._data import Source, without_password
from holdtrue.declaration._models import Declaration
from holdtrue.declaration._section import EXTENDS, Section
from holdtrue.declaration._yaml import Document, Problem

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from holdtrue.errors import Key

_LONGEST_VALUE = 60

_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "string_too_short": "text that is not empty",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number of at most {le}",
    "too_short": "at least {min_length} in the list",
    "too_long": "at most {max_length} in the list",
}
# What the patterns of the models ask for, in words.
PATTERNS = {
    r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$": "an import path such as xgboost.XGBClassifier",
    r"^[a-z][a-z0-9-]{0,47}$": "small letters, digits and hyphens, a letter first, at most 48",
    r"^[A-Za-z0-9.:\[\]-]+:\d+$": "host and port such as 10.0.0.1:6379",
    r"^(sqlite:///[^?]+|https?://\S+)$": "sqlite:///mlflow.db or the URL of an MLflow server",
    r"^[a-z][a-z0-9_]*(\+[a-z0-9_]+)?://": "a URL such as postgresql://user:password@host/name",
    r"^[A-Za-z][A-Za-z0-9+.-]*://\S*$": "a URL such as mailto://user:password@example.com",
}
_PLACE = re.compile(rf"(?:{'|'.join(Declaration.model_fields)})[\w.\[\]]*: ")


def from_pydantic(err: ValidationError, document: Document) -> list[Problem]:
    """Turn a validation error into problems: one for each place, whatever it might have been."""
    by_place: defaultdict[Key, list[ErrorDetails]] = defaultdict(list)
    for detail in err.errors(include_url=False):
        if detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]:
            # The items are there; pydantic counts the good ones, and has named the others.
            continue
        by_place[_path(detail, document.value)].append(detail)
    problems = []
    for path, details in by_place.items():
        if _is_said_deeper(path, details, by_place):
            continue
        problems.extend(_problems(path, details, document))
    return problems


def _is_said_deeper(path: Key, details: list[ErrorDetails], places: Collection[Key]) -> bool:
    """Whether a value is of an acceptable kind, and what is wrong lies in it.

    Of ``word | mapping`` pydantic says that a mapping is not the word, too.
    """
    kinds = {detail["type"] for detail in details}
    deeper = any(len(other) > len(path) and other[: len(path)] == path for other in places)
    return deeper and kinds <= {"literal_error", *_TYPES}


def nearest(word: Any, known: list[str]) -> str:
    """Say which known word was probably meant, or nothing."""
    close = difflib.get_close_matches(str(word), known, n=1)
    return f"did you mean `{close[0]}`? " if close else ""


def _path(detail: ErrorDetails, value: Any) -> Key:
    """Follow a location through the file's values; what is none of them names a type."""
    path: list[str | int] = []
    for part in detail["loc"]:
        inside = isinstance(value, dict) and part in value
        inside = inside or (isinstance(value, list) and isinstance(part, int) and part < len(value))
        if not inside:
            if detail["type"] == "missing" and part == detail["loc"][-1]:
                path.append(part)
            continue
        path.append(part)
        value = value[part]
    return tuple(path)


def _problems(path: Key, details: list[ErrorDetails], document: Document) -> list[Problem]:
    first = details[0]
    kind = first["type"]
    value = _value(document.value, path)
    if path[:2] in HIDDEN and isinstance(value, str):
        value = "***"
    if kind == "extra_forbidden":
        known = _keys(path[:-1])
        meant = nearest(path[-1], known)
        if not meant and path[-1] in _keys(path[:-2]):
            meant = f"did you mean {'.'.join(map(str, (*path[:-2], path[-1])))}? "
        advice = f"{meant}allowed: {', '.join(known)}"
        return [Problem(document.marks[path][0], path, "unknown key", advice)]
    if kind == "missing":
        if isinstance(path[-1], int):
            text = f"expected {path[-1] + 1} or more in the list"
            return [Problem(None, path[:-1], text, f"got {path[-1]}")]
        return [Problem(None, path, "missing key", _description(path))]
    if all(detail["type"] == "literal_error" for detail in details):
        allowed = re.findall("'([^']*)'", first["ctx"]["expected"])
        text = f"expected one of: {', '.join(allowed)}"
        return [Problem(None, path, text, f"{nearest(value, allowed)}got: {_show(value)}")]
    if kind == "value_error" and not path:
        return _cross_field(str(first["ctx"]["error"]))
    wanted = dict.fromkeys(_expected(detail) for detail in details)
    if kind == "value_error" and isinstance(value, dict):
        return [Problem(None, path, text) for text in wanted]
    text = ", or ".join(text.removeprefix("expected ") for text in wanted)
    return [Problem(None, path, f"expected {text}", _advice(kind, path, value))]


def _expected(detail: ErrorDetails) -> str:
    """Say what one error asks for."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return str(context["expected"]).replace("'", "")
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(context["pattern"], f"text like {context['pattern']}")
    if kind in _TYPES:
        return _TYPES[kind].format(**context)
    return detail["msg"].removeprefix("Input should be ")


def _advice(kind: str, path: Key, value: Any) -> str:
    """Show the bad value and what to write for the usual slips."""
    got = f"got: {_show(value)}"
    if kind == "model_type" and isinstance(value, str) and Source in models_at(path):
        return f"{got}; write {{files: {value[:_LONGEST_VALUE]}}}"
    if kind == "model_type":
        return f"{got}; allowed keys: {', '.join(_keys(path))}"
    if kind == "tuple_type" and isinstance(value, str):
        return f"{got}; write [{value[:_LONGEST_VALUE]}]"
    if (
        kind == "bool_type"
        and isinstance(value, str)
        and value.lower() in {"yes", "on", "no", "off"}
    ):
        return f"{got}; write {'true' if value.lower() in {'yes', 'on'} else 'false'}"
    if kind == "string_type" and isinstance(value, int | float):
        return f"{got}; put text that looks like something else in quotes"
    return got


def _cross_field(text: str) -> list[Problem]:
    """Take apart what the declaration's own check says: ``place: text; place: text``."""
    parts: list[str] = []
    for part in text.split("; "):
        if parts and not _PLACE.match(part):
            parts[-1] += f"; {part}"
        else:
            parts.append(part)
    problems = []
    for part in parts:
        place, _, rest = part.partition(": ")
        said, _, advice = rest.partition("; ")
        path = tuple(
            int(index) if index else key for index, key in re.findall(r"\[(\d+)\]|(\w+)", place)
        )
        problems.append(Problem(None, path, said, advice))
    return problems


def _value(value: Any, path: Key) -> Any:
    """The value at a place; None where the file has none."""
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _show(value: Any) -> str:
    """Write a value short and on one line."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    shown = without_password(value) if isinstance(value, str) else value
    text = json.dumps(shown, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _keys(path: Key) -> list[str]:
    """The keys that a place may have."""
    known = next((list(model.model_fields) for model in models_at(path)), [])
    return known if path else [*known, EXTENDS]


def _description(path: Key) -> str:
    """What the models say about a key."""
    for model in models_at(path[:-1]):
        field = model.model_fields.get(str(path[-1]))
        if field is not None and field.description:
            return field.description.split("\n")[0]
    return ""


def _annotation(path: Key) -> Any:
    """The type of a place, found by walking down the models."""
    here: Any = Declaration
    for part in path:
        inner: Any = None
        for option in _options(here):
            origin = get_origin(option)
            if origin in (dict, tuple):
                inner = get_args(option)[1 if origin is dict else 0]
            elif isinstance(option, type) and issubclass(option, Section):
                field = option.model_fields.get(str(part))
                inner = field.annotation if field is not None else None
        here = inner
    return here


def models_at(path: Key) -> list[type[Section]]:
    """The parts of a declaration that may stand at a place."""
    return [
        option
        for option in _options(_annotation(path))
        if isinstance(option, type) and issubclass(option, Section)
    ]


def _options(annotation: Any) -> list[Any]:
    """Take a union apart."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _options(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [option for part in get_args(annotation) for option in _options(part)]
    return [annotation]
