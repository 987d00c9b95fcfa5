"""Probabilities of a classifier that only predicts classes; imported where pipelines are only."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_NAMED = 10


class ConfusionClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Answers how often each class is the true one where another classifier predicts a class.

    That is counted on rows that the classifier was not fitted on (cross-fitted); the one that
    answers is fitted on all rows. A class is counted once more than it was found, so that nothing
    is impossible, and a class that was never predicted says nothing.

    Args:
        estimator: The classifier, not fitted: ``fit`` and ``predict`` are enough.
        folds: In how many parts the rows are cut, each with every class if possible; at least 2.

    References:
        Laplace's rule of succession: the mean of the shares, were all equally likely before.
    """

    # Not Platt's curve over predictions as 0 and 1: of two classes it is too sure of one that was
    # rarely predicted, and of more it keeps whether a class was predicted, but not which other one.

    def __init__(self, estimator: Any, folds: int = 3) -> None:
        self.estimator = estimator
        self.folds = folds

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import get_tags

        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = get_tags(self.estimator).input_tags.allow_nan
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803 - scikit-learn's
        """Fit the classifier on all rows but a part, for each part, and on all rows.

        Args:
            X: shape (n_rows, n_features).
            y: shape (n_rows,), classes; at least one of them as often as there are folds.
            sample_weight: shape (n_rows,); how much each row counts, in the fits and in the shares.

        Raises:
            ValueError: It predicts something that is no class.
        """
        from sklearn.model_selection import StratifiedKFold

        self.classes_, truth = np.unique(y, return_inverse=True)
        weights = np.ones(len(truth)) if sample_weight is None else np.asarray(sample_weight)
        counts = np.ones((len(self.classes_), len(self.classes_)))

        def fitted(rows: Any) -> Any:
            weighted = {} if sample_weight is None else {"sample_weight": weights[rows]}
            one = deepcopy(self.estimator)
            one.fit(X[rows], y[rows], **weighted)
            return one

        for learn, judge in StratifiedKFold(self.folds).split(X, y):
            predicted = self._places(fitted(learn).predict(X[judge]), len(judge))
            # A row counts 1 on average, or the one that is added would weigh more or less.
            np.add.at(counts, (predicted, truth[judge]), weights[judge] / weights.mean())
        self.shares_: Floats = counts / counts.sum(axis=1, keepdims=True)
        self.estimator_ = fitted(slice(None))
        return self

    def predict_proba(self, X: Any) -> Floats:  # noqa: N803
        """The shares of the true classes where that class is predicted.

        Args:
            X: As for `fit`.

        Returns:
            shape (n_rows, n_classes).

        Raises:
            ValueError: Something is predicted that is no class.
        """
        probabilities: Floats = self.shares_[self._places(self.estimator_.predict(X), len(X))]
        return probabilities

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """The most probable class, which need not be the predicted one.

        Args:
            X: As for `fit`.

        Returns:
            shape (n_rows,).
        """
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def _places(self, predicted: Any, n_rows: int) -> npt.NDArray[np.int64]:
        """Where predicted classes are among all, shape (n_rows,)."""
        name = type(self.estimator).__name__
        found = np.asarray(predicted)
        if found.size != n_rows:
            message = f"{name} predicted {found.size} classes for {n_rows} rows"
            raise ValueError(message)
        known = self.classes_.tolist()
        places = {label: place for place, label in enumerate(known)}
        try:
            return np.array([places[label] for label in found.ravel().tolist()], np.int64)
        except KeyError as err:
            named = ", ".join(map(repr, known[:_NAMED])) + (", ..." if known[_NAMED:] else "")
            message = f"{name} predicted {err.args[0]!r}, expected one of the classes {named}"
            raise ValueError(message) from err
