"""Linear models as dot products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdtrue.models.compiled._forests import link_of
from holdtrue.models.compiled._refusal import NotCompilable

if TYPE_CHECKING:
    from holdtrue.models.compiled._trees import Link

CLASSIFIERS = ("LogisticRegression", "LogisticRegressionCV", "SGDClassifier")
GENERALISED = ("GammaRegressor", "PoissonRegressor", "TweedieRegressor")
REGRESSORS = (
    "ARDRegression",
    "BayesianRidge",
    "ElasticNet",
    "ElasticNetCV",
    "HuberRegressor",
    "Lars",
    "LarsCV",
    "Lasso",
    "LassoCV",
    "LassoLars",
    "LassoLarsCV",
    "LassoLarsIC",
    "LinearRegression",
    "LinearSVR",
    "OrthogonalMatchingPursuit",
    "OrthogonalMatchingPursuitCV",
    "PassiveAggressiveRegressor",
    "QuantileRegressor",
    "Ridge",
    "RidgeCV",
    "SGDRegressor",
    "TheilSenRegressor",
)


@dataclass(frozen=True)
class Linear:
    """intercept + the sum of coefficient x value, by output."""

    coefficients: npt.NDArray[np.float64]
    """shape (n_outputs, width)."""
    intercepts: npt.NDArray[np.float64]
    """shape (n_outputs,)."""

    def raw(self, matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sums, shape (n_rows, n_outputs).

        Row by row, not as one matrix product: that rounds otherwise with the number of rows, and
        a row would be answered differently alone and in a batch.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            sums = [(matrix * row).sum(axis=1) for row in self.coefficients]
            raw: npt.NDArray[np.float64] = np.stack(sums, axis=1) + self.intercepts
        return raw


def read_linear(model: Any) -> tuple[Linear, Link]:
    """Read a fitted linear model of scikit-learn.

    Returns:
        Its coefficients, and the function of their sum.

    Raises:
        NotCompilable: It is fitted on something that has no compiled form.
    """
    name = type(model).__name__
    link: Link = "identity"
    if name == "SGDClassifier":
        if model.loss != "log_loss":
            message = f"SGDClassifier with the loss {model.loss} is not compiled"
            raise NotCompilable(message)
        link = "sigmoid" if len(model.classes_) == 2 else "shares"
    elif name in CLASSIFIERS:
        link = "sigmoid" if len(model.classes_) == 2 else "softmax"
    elif name in GENERALISED:
        link = link_of(model._base_loss)
    coefficients = model.coef_.toarray() if hasattr(model.coef_, "toarray") else model.coef_
    table = np.atleast_2d(np.asarray(coefficients, np.float64))
    intercepts = np.broadcast_to(np.ravel(np.asarray(model.intercept_, np.float64)), len(table))
    return Linear(np.ascontiguousarray(table), intercepts.copy()), link
