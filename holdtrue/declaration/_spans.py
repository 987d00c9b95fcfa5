"""What a declared space means: what is searched when, and which combinations there are."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from holdtrue.declaration._search import Range

# Combinations of values that conditions are about: counting goes through them, 0.1 s at most.
_MOST_BRANCHES = 10_000


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


def count_of(span: Range) -> int | None:
    """How many values a parameter has; None where they cannot be counted."""
    if span.choice is not None:
        return len(span.choice)
    if span.int is not None:
        low, high = span.int
        return (high - low) // int(span.step or 1) + 1
    start, end = span.float or (0.0, 0.0)
    if span.step is not None:
        # Decimal, so that 0.1, 0.2, 0.3 are just these.
        return int((Decimal(str(end)) - Decimal(str(start))) / Decimal(str(span.step))) + 1
    return 1 if start == end else None


def value_at(span: Range, index: int) -> Any:
    """One value of a parameter whose values can be counted.

    Args:
        span: Its declaration.
        index: From 0 to less than `count_of`.
    """
    if span.choice is not None:
        return span.choice[index]
    if span.int is not None:
        return span.int[0] + index * int(span.step or 1)
    start = (span.float or (0.0, 0.0))[0]
    return float(Decimal(str(start)) + index * Decimal(str(span.step or 0)))


def values_of(span: Range) -> Iterable[Any] | None:
    """Every value of a parameter, one at a time; None where they cannot be counted."""
    count = count_of(span)
    return None if count is None else (value_at(span, index) for index in range(count))


def count_combinations(space: Mapping[str, Range]) -> int | None:
    """How many combinations of values there are.

    Returns:
        None where they cannot be counted, or are so tangled by ``when`` that it would take long.
    """
    names = ordered(space)
    counts = {name: count_of(space[name]) for name in names}
    named = {other for span in space.values() for other in span.when}
    # Only what others depend on is gone through value by value; the rest is multiplied.
    if None in counts.values() or math.prod(counts[name] or 1 for name in named) > _MOST_BRANCHES:
        return None

    def count(params: dict[str, Any], index: int) -> int:
        if index == len(names):
            return 1
        name = names[index]
        if not is_active(space[name], params):
            return count(params, index + 1)
        if name not in named:
            return (counts[name] or 0) * count(params, index + 1)
        return sum(count({**params, name: v}, index + 1) for v in space[name].choice or ())

    return count({}, 0)


def combinations(
    space: Mapping[str, Range], values: Callable[[str], Iterable[Any]] | None = None
) -> Iterator[dict[str, Any]]:
    """Every combination of values, one at a time; the last parameter changes fastest.

    Args:
        space: Parameters, each with `values_of` where `values` is left out.
        values: By name of the parameter: the values to go through. All of them where left out.
    """
    names = ordered(space)

    def every(name: str) -> Iterable[Any]:
        return values_of(space[name]) or ()

    def extend(params: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
        if index == len(names):
            yield params
            return
        name = names[index]
        if not is_active(space[name], params):
            yield from extend(params, index + 1)
            return
        for value in (values or every)(name):
            yield from extend({**params, name: value}, index + 1)

    return extend({}, 0)
