"""Models on the same rows, where one of them knows more classes than the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from holdtrue.models import spread

if TYPE_CHECKING:
    from holdtrue.evaluation._metrics import Floats, Target


class Rows(NamedTuple):
    """Rows with the truth and what a model says to them."""

    target: Target
    """Shape (n_rows,): indices into `classes`, -1 for one that the model does not know; or numbers
    for regression."""
    scores: Floats
    """Shape (n_rows, n_classes), probabilities; (n_rows,) for regression."""
    classes: tuple[str, ...] | None
    """Names of the classes; None for regression."""

    @classmethod
    def of(cls, target: object, scores: object, classes: tuple[str, ...] | None) -> Rows:
        """Take arrays of any number type.

        Raises:
            ValueError: They do not fit each other.
        """
        truth = np.asarray(target, dtype=np.float64 if classes is None else np.int64)
        given = np.asarray(scores, dtype=np.float64)
        expected = truth.shape if classes is None else (*truth.shape, len(classes))
        if given.shape != expected:
            message = f"scores have the shape {given.shape}, expected {expected}"
            raise ValueError(message)
        return cls(truth, given, classes)

    def where(self, chosen: np.ndarray) -> Rows:
        """Some of the rows; `chosen`: a mask or numbers of rows."""
        return self._replace(target=self.target[chosen], scores=self.scores[chosen])

    @property
    def known(self) -> np.ndarray:
        """Of which rows the model knows the class, shape (n_rows,)."""
        if self.classes is None:
            return np.ones(len(self.target), dtype=bool)
        return np.asarray(self.target >= 0)


def together(*answers: Rows) -> tuple[Rows, ...] | None:
    """Bring what models say to the same rows over the same classes.

    Args:
        *answers: What each of them says, to the same rows in the same order.

    Returns:
        The same, over the classes of the one that knows most, on rows of these; 0 is the
        probability of a class that a model does not know. None where none knows them all.
    """
    wide = max(answers, key=lambda rows: len(rows.classes or ()))
    if not all({*(rows.classes or ())} <= {*(wide.classes or ())} for rows in answers):
        return None
    return tuple(_spread(rows, wide).where(wide.known) for rows in answers)


def _spread(rows: Rows, wide: Rows) -> Rows:
    if rows.classes == wide.classes or rows.classes is None or wide.classes is None:
        return rows._replace(target=wide.target)
    places = [wide.classes.index(name) for name in rows.classes]
    return Rows(wide.target, spread(rows.scores, places, len(wide.classes)), wide.classes)
