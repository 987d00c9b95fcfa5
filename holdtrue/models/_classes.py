"""What is declared of classes: how much their rows count, and what decisions cost."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from holdtrue.errors import NAME, ConfigError, Key

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from holdtrue.declaration import Model
    from holdtrue.references import NewClass

_COSTS: Key = ("model", "costs")
ClassWeight = Literal["balanced"] | dict[str, float] | None
Costs = tuple[tuple[float, ...], ...]
"""By true class, then by decided class, in the order of the classes."""


def class_weights(
    counts: npt.NDArray[np.int64], classes: Sequence[str], declared: ClassWeight
) -> npt.NDArray[np.float64] | None:
    """How much a row of each class counts.

    ``balanced`` is n_rows / (n_classes x rows of the class): all classes count the same, and the
    rows as many as there are.

    Args:
        counts: shape (n_classes,), rows of each class.
        classes: Their names.
        declared: ``model.class_weight``; a class that it does not name counts 1.

    Returns:
        shape (n_classes,); None where nothing is declared.
    """
    if declared is None:
        return None
    if declared == "balanced":
        balanced: npt.NDArray[np.float64] = counts.sum() / (len(classes) * np.maximum(counts, 1))
        return balanced
    return np.array([declared.get(name, 1.0) for name in classes], dtype=np.float64)


def sample_weights(
    target: npt.NDArray[np.int64], classes: Sequence[str], declared: ClassWeight
) -> npt.NDArray[np.float64] | None:
    """How much each row counts in training.

    Args:
        target: shape (n_rows,), index of the class.
        classes: Names of the classes.
        declared: ``model.class_weight``.

    Returns:
        shape (n_rows,); None where all rows count the same.
    """
    counts = np.bincount(target, minlength=len(classes))
    weights = class_weights(counts, classes, declared)
    return None if weights is None else weights[target]


def cost_matrix(classes: Sequence[str], declared: Mapping[str, Mapping[str, float]]) -> Costs:
    """Write the declared costs as a table; what they leave out costs 0."""
    return tuple(
        tuple(float(declared.get(true, {}).get(decided, 0.0)) for decided in classes)
        for true in classes
    )


def decide(probabilities: npt.NDArray[np.float64], costs: Costs | None) -> npt.NDArray[np.int64]:
    """Choose a class for each row: that with the smallest expected cost.

    Args:
        probabilities: shape (n_rows, n_classes).
        costs: By true class, then decided class; without, the most probable class is chosen.

    Returns:
        Index of the class, shape (n_rows,); of equal ones the first.

    References:
        Elkan (2001), The foundations of cost-sensitive learning, IJCAI, 973-978, equation 1.
    """
    if costs is None:
        most_probable: npt.NDArray[np.int64] = probabilities.argmax(axis=1)
        return most_probable
    # Not a matrix product: that rounds otherwise with the number of rows, and ties would flip.
    table = np.array(costs)
    expected = sum(probabilities[:, [true]] * table[true] for true in range(len(table)))
    cheapest: npt.NDArray[np.int64] = np.argmin(expected, axis=1)
    return cheapest


def threshold(costs: Costs) -> float:
    """Above which probability of the second of two classes it is chosen (Elkan, equation 2)."""
    alarm = costs[0][1] - costs[0][0]
    miss = costs[1][0] - costs[1][1]
    return alarm / (alarm + miss)


def check_classes(model: Model, classes: Sequence[str], untaught: Collection[str] = ()) -> None:
    """Hold ``model.class_weight`` and ``model.costs`` against the classes of the data.

    Args:
        model: Declares them.
        classes: That a model is taught.
        untaught: Classes of the data that it cannot be taught yet: they may be named.

    Raises:
        ConfigError: A class is named that the data do not have, a right decision costs more than a
            wrong one, or a decision is never worse than the others, so that it would always be
            chosen.

    References:
        Elkan (2001), The foundations of cost-sensitive learning, IJCAI, 973-978, section 1.1: the
        conditions of reasonable costs.
    """
    weighted = model.class_weight if isinstance(model.class_weight, dict) else {}
    named: list[tuple[Key, str]] = [(("model", "class_weight"), name) for name in weighted]
    for true, row in model.costs.items():
        named.append((_COSTS, true))
        named += [((*_COSTS, true), decided) for decided in row]
    for place, name in named:
        if name not in classes and name not in untaught:
            near = difflib.get_close_matches(name, classes, n=1, cutoff=0.5)
            known = ", ".join(classes[:20])
            hint = f"did you mean {near[0]}?" if near else f"known: {known}"
            message = f"the data have no class {name}"
            raise ConfigError(message, hint=hint, key=(*place, name, NAME))
    if model.costs:
        _refuse_unreasonable(cost_matrix(classes, model.costs), classes)


def check_new(model: Model, new: Mapping[str, NewClass], target: str) -> None:
    """Hold ``model.costs`` against classes that came late.

    Args:
        model: Declares them.
        new: By class that a model is taught: how many rows and since when.
        target: Name of the target's column.

    Raises:
        ConfigError: No cost of deciding such a class is declared.
    """
    decided = {name for row in model.costs.values() for name in row}
    for name, rows in new.items():
        if model.costs and name not in decided:
            message = (
                f"class {name} is new ({rows}), and no cost of deciding it is "
                "declared, so it would always be the answer"
            )
            hint = (
                f"declare them, or set its rows aside by data.contract.columns.{target}.allowed "
                "(as many as data.contract.quarantine lets pass)"
            )
            raise ConfigError(message, hint=hint, key=_COSTS)


def _refuse_unreasonable(costs: Costs, classes: Sequence[str]) -> None:
    table = np.array(costs)
    for index, name in enumerate(classes):
        if table[index, index] > table[index].min():
            cheaper = classes[int(table[index].argmin())]
            message = f"deciding {cheaper} costs less than the right decision {name}"
            hint = "write costs as {true class: {decided class: cost}}"
            raise ConfigError(message, hint=hint, key=(*_COSTS, name, NAME))
        if np.all(table[:, [index]] <= table):
            others = [other for other in classes if other != name]
            message = (
                f"deciding {name} never costs more than another decision, "
                "so it would always be the answer"
            )
            hint = f"say what it costs to decide {name} where the truth is {others[0]}"
            raise ConfigError(message, hint=hint, key=_COSTS)
