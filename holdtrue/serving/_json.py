"""JSON from outside, read strictly: duplicate names and numbers that are none are refused."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from holdtrue.serving._asked import Problem

# Up to here a document that is refused is read a second time, to say where it is wrong.
_EXPLAINED_BYTES = 1_000_000
# Every text of a document; the group is there where the text is a name.
_TEXTS = re.compile(rb'"(?:[^"\\]++|\\.)*+"(\s*+:)?', re.DOTALL)


def loads(body: bytes) -> Any:
    """Read a document.

    What follows RFC 8259 to the letter is left to orjson, which also refuses invalid UTF-8, lone
    surrogates and more than 1,024 levels.

    Args:
        body: UTF-8.

    Returns:
        The document. Where it has NaN, Infinity or numbers beyond float64, they are non-finite
        floats: whoever checks values refuses them by their place.

    Raises:
        Problem: It is not JSON, or a name is repeated in an object (400).
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as err:
        return _non_finite(body, err)
    check_names(document, body)
    return document


def check_names(document: Any, body: bytes) -> None:
    """Refuse a document in which an object repeats a name: orjson keeps the last.

    It is found out by counting: a name is followed by a colon, so a document has as many colons as
    names, and those in its texts. It has more where a name is repeated.

    Args:
        document: What orjson reads in `body`.
        body: UTF-8.

    Raises:
        Problem: A name is repeated in an object (400).
    """
    colons = body.count(b":")
    if type(document) is dict and colons == len(document):
        return  # it has no other names, for each would have a colon of its own
    if type(document) is list and _n_outer_names(document) == colons:
        return
    names, in_texts = _n_colons(document)
    if colons == names or (colons == names + in_texts and b"\\" not in body):
        return
    if sum(map(bool, _TEXTS.findall(body))) != names:
        refuse_repeated(body)


def refuse_repeated(body: bytes) -> None:
    """Name the first name that an object repeats.

    Args:
        body: A document that orjson takes, and that has such an object.

    Raises:
        Problem: Always (400).
    """
    try:
        json.loads(body, object_pairs_hook=_without_repeats)
    except RecursionError as err:
        raise Problem(400, "a name is repeated in an object, deep down") from err
    raise Problem(400, "a name is repeated in an object")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for name, value in pairs:
        if name in seen:
            raise Problem(400, f"the name {name[:100]} is repeated in an object")
        seen[name] = value
    return seen


def _n_outer_names(records: list[Any]) -> int:
    """Names in a list of objects, without those of objects in them; -1 where it is another list."""
    return sum(map(len, records)) if {*map(type, records)} == {dict} else -1


def _n_colons(document: Any) -> tuple[int, int]:
    """Names of all objects in a document, and colons in its texts; it may be deep."""
    names = in_texts = 0
    left = [document]
    while left:
        node = left.pop()
        if type(node) is dict:
            names += len(node)
            in_texts += sum([name.count(":") for name in node if ":" in name])
            node = node.values()
        elif type(node) is not list:
            continue
        for value in node:
            kind = type(value)
            if kind is str:
                if ":" in value:
                    in_texts += value.count(":")
            elif kind is dict or kind is list:
                left.append(value)
    return names, in_texts


def _non_finite(body: bytes, err: orjson.JSONDecodeError) -> Any:
    """Read a document again that may be wrong only in having numbers that are none."""
    refused = Problem(400, f"the content is not JSON: {err}")
    if len(body) > _EXPLAINED_BYTES:
        raise refused from err
    try:
        document = json.loads(body.decode(), object_pairs_hook=_without_repeats)
        # Only what the one reader takes and the other refuses; else another thing is wrong.
        orjson.dumps(document)
    except (ValueError, TypeError, RecursionError):
        raise refused from err
    if not _has_non_finite(document):
        raise refused from err
    return document


def _has_non_finite(document: Any) -> bool:
    left = [document]
    while left:
        node = left.pop()
        if isinstance(node, float) and node - node != 0:
            return True
        if isinstance(node, dict):
            left += node.values()
        elif isinstance(node, list):
            left += node
    return False
