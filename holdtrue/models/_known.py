"""Fits on rows that lack a class: what is not known has probability 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdtrue.models._signature import Signature

FEWEST_TO_FIT = 3
"""Rows that a fit needs of each class: so many parts are cut where a classifier has no
probabilities of its own (see `construct`), and early stopping wants one for each of two parts."""


class Taught(NamedTuple):
    """What a model can be fitted on where rows of some classes are too few."""

    rows: np.ndarray
    """Numbers of the rows to fit on, shape (n_rows,)."""
    target: np.ndarray
    """Theirs, shape (n_rows,): an index into the classes that are taught, or a value."""
    signature: Signature
    """With the classes that are taught only."""
    places: np.ndarray | None
    """Where these are among all classes, shape (n_taught,); None: they are all."""


def taught(rows: np.ndarray, target: np.ndarray, signature: Signature) -> Taught:
    """Leave out the rows of classes with fewer than `FEWEST_TO_FIT`.

    Args:
        rows: Numbers of the rows to fit on, shape (n_rows,).
        target: Of all rows, shape (n_all,): class index or value.
        signature: Has all classes.
    """
    given = target[rows]
    if signature.classes is None:
        return Taught(rows, given, signature, None)
    places = np.flatnonzero(_counts(given, signature.classes) >= FEWEST_TO_FIT)
    if len(places) == len(signature.classes):
        return Taught(rows, given, signature, None)
    chosen = np.isin(given, places)
    names = tuple(signature.classes[place] for place in places)
    return Taught(
        rows[chosen],
        np.searchsorted(places, given[chosen]),
        signature.model_copy(update={"classes": names}),
        places,
    )


def untaught(target: np.ndarray, classes: Sequence[str]) -> dict[str, int]:
    """The classes that `taught` leaves out of these targets, with how many rows they have."""
    counts = zip(classes, _counts(target, classes).tolist(), strict=True)
    return {name: count for name, count in counts if count < FEWEST_TO_FIT}


def _counts(target: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    return np.bincount(target, minlength=len(classes))


def spread(
    probabilities: np.ndarray, places: Sequence[int] | np.ndarray | None, n_classes: int
) -> np.ndarray:
    """Write probabilities of some classes as those of all.

    Args:
        probabilities: shape (n_rows, n_known).
        places: Where these classes are among all, shape (n_known,); None: they are all.
        n_classes: How many there are.

    Returns:
        shape (n_rows, n_classes); 0 for a class that is not known.
    """
    if places is None:
        return probabilities
    every = np.zeros((len(probabilities), n_classes), probabilities.dtype)
    every[:, places] = probabilities
    return every
