"""What a declared space means: what is searched when, and which combinations there are."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from holdtrue.declaration._search import Range


def ordered(space: Mapping[str, Range]) -> list[str]:
    """Names of the parameters, each after those that its ``when`` names.

    Raises:
        ValueError: Their conditions go in a circle.
    """
    order: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " -> ".join((*path[path.index(name) :], name))
            message = f"it goes in a circle: {circle}"
            raise ValueError(message)
        if name in order:
            return
        for other in space[name].when:
            visit(other, (*path, name))
        order.append(name)

    for name in space:
        visit(name, ())
    return order


def unfit_conditions(space: Mapping[str, Range]) -> list[tuple[str, str]]:
    """What is wrong with the ``when`` of a candidate's parameters.

    Returns:
        Names of parameters, each with a sentence; empty where all is well.
    """
    problems = []
    for name, span in space.items():
        for other, values in span.when.items():
            if other not in space:
                known = ", ".join(key for key in space if space[key].choice and key != name)
                text = f"{other} is not in this space; parameters with a choice: {known or 'none'}"
                problems.append((name, text))
                continue
            choices = space[other].choice
            if choices is None:
                problems.append((name, f"{other} has no choice: its values cannot be named"))
                continue
            wrong = [str(value) for value in values if value not in choices]
            if wrong or not values:
                text = f"{other} is never {' or '.join(wrong) or 'nothing'}"
                problems.append((name, f"{text}; choices: {', '.join(map(str, choices))}"))
    if not problems:
        try:
            ordered(space)
        except ValueError as err:
            problems.append((next(key for key in space if space[key].when), str(err)))
    return problems


def is_active(span: Range, params: Mapping[str, Any]) -> bool:
    """Whether a parameter is searched, given the values of those before it.

    Args:
        span: Its declaration.
        params: Values of the parameters before it in `ordered` that are searched.
    """
    return all(other in params and params[other] in values for other, values in span.when.items())


def values_of(span: Range) -> tuple[Any, ...] | None:
    """Every value of a parameter; None where they cannot be counted."""
    if span.choice is not None:
        return tuple(span.choice)
    if span.int is not None:
        low, high = span.int
        return tuple(range(low, high + 1, int(span.step or 1)))
    start, end = span.float or (0.0, 0.0)
    if span.step is not None:
        # Decimal, so that 0.1, 0.2, 0.3 are just these.
        first, step = Decimal(str(start)), Decimal(str(span.step))
        steps = int((Decimal(str(end)) - first) / step)
        return tuple(float(first + i * step) for i in range(steps + 1))
    return (start,) if start == end else None


def combinations(space: Mapping[str, Range]) -> Iterator[dict[str, Any]]:
    """Every combination of values, one at a time; the last parameter changes fastest.

    Args:
        space: Parameters of which each has `values_of`.
    """
    names = ordered(space)

    def extend(params: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
        if index == len(names):
            yield params
            return
        span = space[names[index]]
        if not is_active(span, params):
            yield from extend(params, index + 1)
            return
        for value in values_of(span) or ():
            yield from extend({**params, names[index]: value}, index + 1)

    return extend({}, 0)
