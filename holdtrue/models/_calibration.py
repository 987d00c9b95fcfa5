"""Corrections of probabilities, learnt on rows that the model was not fitted on."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from holdtrue.models._known import FEWEST_TO_FIT
from holdtrue.references import Reference

Floats = npt.NDArray[np.float64]
_CLIP = 1e-15
_STEPS = 100
_GRADIENT = 1e-10


class Isotonic(Reference):
    """A rising curve through knots, straight between them and level outside."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, probabilities: Floats) -> Floats:
        """Correct the probabilities of one class, shape (n_rows,)."""
        return np.interp(probabilities, self.x, self.y)


class Sigmoid(Reference):
    """Platt's curve over the log-odds f of a probability: 1 / (1 + exp(a f + b))."""

    a: float
    b: float

    def __call__(self, probabilities: Floats) -> Floats:
        """Correct the probabilities of one class, shape (n_rows,)."""
        return _expit(-(self.a * _log_odds(probabilities) + self.b))


class Calibration(Reference):
    """The correction of each class's probability."""

    method: Literal["isotonic", "sigmoid"]
    curves: tuple[Isotonic | Sigmoid, ...]
    """Of two classes that of the second; of more, one for each against the rest."""
    rows: int
    """Rows that the curves were learnt on."""
    uncorrected: tuple[int, ...] = ()
    """Classes, by their index, of which too few rows were judged to learn a curve."""

    def __call__(self, probabilities: Floats) -> Floats:
        """Correct probabilities, shape (n_rows, n_classes); each row sums to 1 again."""
        if len(self.curves) == 1:
            second = self.curves[0](probabilities[:, 1])
            return np.column_stack([1 - second, second])
        each = np.column_stack([curve(probabilities[:, i]) for i, curve in enumerate(self.curves)])
        total = each.sum(axis=1, keepdims=True)
        same = np.full_like(each, 1 / each.shape[1])
        shares: Floats = np.divide(each, total, out=same, where=total > 0)
        return shares


def fit_calibration(
    method: Literal["isotonic", "sigmoid"], probabilities: Floats, target: npt.NDArray[np.int64]
) -> Calibration:
    """Learn the correction.

    Args:
        method: ``isotonic`` needs about a thousand rows or more; ``sigmoid`` needs few.
        probabilities: shape (n_rows, n_classes), of rows that the model was not fitted on; NaN
            where the model that judged a row did not know the class. A class is left as it is where
            fewer than 3 rows of it, judged by models that knew it, remain.
        target: shape (n_rows,), index of the true class.

    References:
        Zadrozny and Elkan (2002), Transforming classifier scores into accurate multiclass
        probability estimates, KDD, 694-699: isotonic regression, one class against the rest.
        Platt (1999), Probabilistic outputs for support vector machines, in Advances in Large
        Margin Classifiers, 61-74.
    """
    fit = _isotonic if method == "isotonic" else _sigmoid
    n_classes = probabilities.shape[1]
    curves: list[Isotonic | Sigmoid] = []
    uncorrected: list[int] = []
    for label in [1] if n_classes == 2 else range(n_classes):
        known = ~np.isnan(probabilities[:, label])
        positive = target[known] == label
        if n_classes > 2 and np.count_nonzero(positive) < FEWEST_TO_FIT:
            curves.append(_AS_IT_IS)
            uncorrected.append(label)
        else:
            curves.append(fit(probabilities[known, label], positive))
    return Calibration(
        method=method, curves=tuple(curves), rows=len(target), uncorrected=tuple(uncorrected)
    )


_AS_IT_IS = Isotonic(x=(0.0, 1.0), y=(0.0, 1.0))


def _isotonic(probabilities: Floats, positive: npt.NDArray[np.bool_]) -> Isotonic:
    from sklearn.isotonic import IsotonicRegression

    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    curve.fit(probabilities, positive.astype(np.float64))
    x, y = curve.X_thresholds_, curve.y_thresholds_.copy()
    # An end where all rows are of one kind would claim certainty, and a single row against it an
    # infinite loss: of n such rows the next is of the other kind by 1 / (n + 2) (Laplace).
    none, all_ = y <= 0, y >= 1
    if none.any():
        n = np.count_nonzero(probabilities <= x[none][-1])
        y[none] = min(1 / (n + 2), y[~none].min(initial=1.0))
    if all_.any():
        n = np.count_nonzero(probabilities >= x[all_][0])
        y[all_] = max((n + 1) / (n + 2), y[~all_].max(initial=0.0))
    return Isotonic(x=tuple(x.tolist()), y=tuple(y.tolist()))


def _sigmoid(probabilities: Floats, positive: npt.NDArray[np.bool_]) -> Sigmoid:
    """Minimise the log loss against Platt's smoothed targets by Newton's method.

    References:
        Lin, Lin and Weng (2007), A note on Platt's probabilistic outputs for support vector
        machines, Machine Learning 68, 267-276, algorithm 1.
    """
    n_positive = np.count_nonzero(positive)
    n_negative = len(positive) - n_positive
    wanted = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    inputs = np.column_stack([_log_odds(probabilities), np.ones(len(positive))])

    def loss(at: Floats) -> float:
        z = inputs @ at
        return float(np.sum(np.logaddexp(0, -z) + (1 - wanted) * z))

    # In the direction of the log-odds, so that (1, 0) leaves everything as it is.
    best = np.array([0.0, np.log((n_positive + 1) / (n_negative + 1))])
    for _ in range(_STEPS):
        q = _expit(inputs @ best)
        gradient = inputs.T @ (q - wanted)
        if np.abs(gradient).max() <= _GRADIENT * len(positive):
            break
        curvature = inputs.T @ (inputs * (q * (1 - q))[:, None]) + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size, before = 1.0, loss(best)
        while size > _CLIP and loss(best - size * step) > before - 1e-4 * size * gradient @ step:
            size /= 2
        if size <= _CLIP:
            break
        best = best - size * step
    return Sigmoid(a=-float(best[0]), b=-float(best[1]))


def _log_odds(probabilities: Floats) -> Floats:
    cut = np.clip(probabilities, _CLIP, 1 - _CLIP)
    odds: Floats = np.log(cut) - np.log1p(-cut)
    return odds


def _expit(z: Floats) -> Floats:
    from scipy.special import expit

    result: Floats = expit(z)
    return result
