"""From text to a tree of which every part is known; nothing is run."""

from __future__ import annotations

import ast
import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdtrue.expressions._functions import FUNCTIONS, check_zone
from holdtrue.expressions._types import ExpressionError

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 2_000
"""Characters of an expression."""
_MOST_PARTS = 300
CONSTANTS = {"pi": 3.141592653589793}
SPECIAL = ("missing", "coalesce", "column")
SPANS = ("days", "hours", "minutes", "seconds")
_OF_TIMES = ("year", "month", "day", "weekday", "hour", "minute")
_OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.USub: "-",
    ast.UAdd: "+",
    ast.Not: "not",
    ast.And: "and",
    ast.Or: "or",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.In: "in",
    ast.NotIn: "not in",
}


@dataclass(frozen=True)
class Expression:
    """An expression of known parts; of which types these are is not known yet."""

    text: str
    tree: ast.expr = field(compare=False, repr=False)
    names: tuple[str, ...]
    """The columns that it is made of, in order."""
    times: tuple[str, ...]
    """Those of them that can only be times."""


def parse(text: str) -> Expression:
    """Read an expression.

    Args:
        text: At most 2,000 characters, in the syntax of Python's expressions.

    Raises:
        ExpressionError: It is none, or has a part that is not known.
    """
    flat = " ".join(text.split())
    if not flat:
        message = "an expression such as distance / hours"
        raise ExpressionError(message)
    if len(flat) > LONGEST:
        message = f"at most {LONGEST:,} characters"
        raise ExpressionError(message)
    try:
        tree = ast.parse(flat, mode="eval").body
    except SyntaxError as err:
        near = flat[max(0, (err.offset or 1) - 1) :][:20] or "its end"
        message = f"an expression such as distance / hours ({err.msg}, at: {near})"
        raise ExpressionError(message) from err
    except (ValueError, RecursionError, MemoryError) as err:
        message = "an expression that is less deep"
        raise ExpressionError(message) from err
    names: dict[str, None] = {}
    times: dict[str, None] = {}
    for parts, node in enumerate(_walk(tree), 1):
        if parts > _MOST_PARTS:
            message = f"at most {_MOST_PARTS} parts"
            raise ExpressionError(message)
        if (name := name_of(node)) is not None and name not in CONSTANTS:
            names[name] = None
        for name in _times_of(node):
            times[name] = None
    if not names:
        message = "an expression of at least one column"
        raise ExpressionError(message)
    return Expression(flat, tree, tuple(names), tuple(times))


def name_of(node: ast.AST) -> str | None:
    """The column that a node stands for, or the constant; None for another one."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Call) and called(node) == "column":
        (given,) = node.args
        return str(given.value) if isinstance(given, ast.Constant) else None
    return None


def called(node: ast.Call) -> str:
    """The name of a function."""
    return node.func.id if isinstance(node.func, ast.Name) else ""


def operator(node: ast.AST) -> str:
    """How an operator is written."""
    return _OPERATORS[type(node)]


def _times_of(node: ast.AST) -> Iterator[str]:
    if not (isinstance(node, ast.Call) and node.args):
        return
    given = node.args[0]
    if called(node) in _OF_TIMES:
        found = [given]
    elif called(node) in SPANS and isinstance(given, ast.BinOp) and isinstance(given.op, ast.Sub):
        found = [given.left, given.right]
    else:
        return
    yield from (name for name in map(name_of, found) if name is not None)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Every part that has a value, held against what is known."""
    yield node
    for inside in _parts(node):
        yield from _walk(inside)


def _parts(node: ast.AST) -> list[ast.expr]:
    match node:
        case ast.Name():
            return []
        case ast.Constant(value=value):
            if not isinstance(value, str | int | float | bool | None):
                message = f"numbers, texts, True, False and None, not {ast.unparse(node)}"
                raise ExpressionError(message)
            return []
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return [left, right]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return [operand]
        case ast.BoolOp(values=values):
            return values
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return [test, body, orelse]
        case ast.Compare(left=left, ops=ops, comparators=others) if all(
            type(op) in _OPERATORS for op in ops
        ):
            return [left, *_compared(ops, others)]
        case ast.Subscript(value=value, slice=ast.Slice(lower=low, upper=high, step=None)):
            for bound in (low, high):
                if bound is not None:
                    whole(bound, "a slice")
            return [value]
        case ast.Call(keywords=[]):
            return _arguments(node)
        case ast.Subscript():
            message = f"a slice of a text such as code[:3], not {ast.unparse(node)}"
            raise ExpressionError(message)
    message = f"operators, comparisons and functions, not {ast.unparse(node)[:60]}"
    raise ExpressionError(message)


def _compared(ops: list[ast.cmpop], others: list[ast.expr]) -> list[ast.expr]:
    """What is compared with; of `in`, only what is written out."""
    plain: list[ast.expr] = []
    for op, other in zip(ops, others, strict=True):
        if not isinstance(op, ast.In | ast.NotIn):
            plain.append(other)
            continue
        if not isinstance(other, ast.Tuple | ast.List) or not other.elts:
            message = f"a list in brackets after {operator(op)}, such as ('JFK', 'LGA')"
            raise ExpressionError(message)
        for each in other.elts:
            literal(each, f"what stands after {operator(op)}")
    return plain


def _arguments(node: ast.Call) -> list[ast.expr]:
    name, given = called(node), node.args
    if name == "column":
        if len(given) != 1 or not (
            isinstance(given[0], ast.Constant) and isinstance(given[0].value, str)
        ):
            message = "the name of one column in quotes, such as column('arrival delay')"
            raise ExpressionError(message)
        return []
    if name in SPECIAL:
        least, most = (1, 1) if name == "missing" else (2, 20)
        written: tuple[int, ...] = ()
    elif name in FUNCTIONS:
        function = FUNCTIONS[name]
        least, most, written = function.least, function.most, function.literal
    else:
        known = [*FUNCTIONS, *SPECIAL]
        near = difflib.get_close_matches(name, known, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        message = f"a function that is known, not {ast.unparse(node.func)[:40]}; {meant}known: "
        raise ExpressionError(message + ", ".join(sorted(known)))
    if not least <= len(given) <= most:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        message = f"{wanted} in the brackets of {name}, not {len(given)}"
        raise ExpressionError(message)
    for place in written:
        if place < len(given):
            value = literal(given[place], f"the {place + 1}. in the brackets of {name}")
            if name in _OF_TIMES:
                check_zone(str(value))
            elif not isinstance(value, str):
                whole(given[place], f"the {place + 1}. in the brackets of {name}")
    return [*given]


def literal(node: ast.expr, what: str) -> str | float | bool:
    """What is written out.

    Raises:
        ExpressionError: It is something else.
    """
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node, sign = node.operand, -1
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str | int | float):
        message = f"a number or a text as {what}, not {ast.unparse(node)[:60]}"
        raise ExpressionError(message)
    value: str | float | bool = node.value
    if sign == -1:
        if isinstance(value, str):
            message = f"a number or a text as {what}"
            raise ExpressionError(message)
        value = -value
    return value


def whole(node: ast.expr, what: str) -> int:
    """A whole number that is written out.

    Raises:
        ExpressionError: It is something else.
    """
    value = literal(node, what)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > LONGEST:
        message = f"a whole number as {what}"
        raise ExpressionError(message)
    return value
