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


def among(rows: Rows, classes: tuple[str, ...] | None) -> tuple[Rows, np.ndarray]:
    """Keep the rows of some of the classes, with the probabilities if it can only be one of these.

    Args:
        rows: With all classes; the model knows that of each row.
        classes: Some of them; None for regression.

    Returns:
        The rows that are kept, over these classes, and which they are, shape (n_rows,).
    """
    if rows.classes is None or classes is None or rows.classes == classes:
        return rows, np.ones(len(rows.target), dtype=bool)
    places = [rows.classes.index(name) for name in classes]
    index = np.full(len(rows.classes), -1)
    index[places] = np.arange(len(places))
    target = index[rows.target]
    kept = target >= 0
    part = rows.scores[kept][:, places]
    total = part.sum(axis=1, keepdims=True)
    even = np.full(part.shape, 1 / len(places))
    return Rows(target[kept], np.divide(part, total, out=even, where=total > 0), classes), kept
