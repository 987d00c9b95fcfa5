"""Why a score is what it is: the share of each column, original or derived."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from holdtrue.errors import ServingError
from holdtrue.models.compiled import Encoded

if TYPE_CHECKING:
    import numpy.typing as npt

    from holdtrue.models._served import Rows, ServedModel
    from holdtrue.models._signature import Signature
    from holdtrue.models.compiled import Compiled
    from holdtrue.models.compiled._contributions import Explainer

    Floats = npt.NDArray[np.float64]

LOG_ODDS = "log-odds"
PROBABILITY = "probability"


@dataclass(frozen=True)
class Contributions:
    """Shapley values of the scores of some rows: base + the sum over columns is the score."""

    columns: tuple[str, ...]
    """The original columns, in the signature's order, and those that are derived."""
    outputs: tuple[str | None, ...]
    """What is explained: the second of two classes, each of more, or None (a regression)."""
    base: Floats
    """shape (n_rows, n_outputs): the mean score, of all rows the same."""
    values: Floats
    """shape (n_rows, n_columns, n_outputs)."""
    unit: str
    """``log-odds``, ``probability``, the target's column, or ``log of`` it."""
    calibrated: bool
    """Whether the answered probabilities were calibrated; what is explained is not."""

    @property
    def scores(self) -> Floats:
        """What is explained, in its unit and not calibrated: shape (n_rows, n_outputs)."""
        scores: Floats = self.base + self.values.sum(axis=1)
        return scores

    def about(self) -> dict[str, str]:
        """What is explained: `unit`, `explains` and, where a single one of two is, `class`.

        `explains` is ``score``, or ``score before calibration``.
        """
        found = {
            "unit": self.unit,
            "explains": "score before calibration" if self.calibrated else "score",
        }
        if len(self.outputs) == 1 and self.outputs[0] is not None:
            found["class"] = self.outputs[0]
        return found

    def row(self, number: int) -> dict[str, Any]:
        """The explanation of one row, to be written as JSON.

        It has what `about` gives, and then `base`, `contributions` ({column: value}) and `score`,
        their sum. Of more than two classes these three are given for each, in `classes`.
        """
        head: dict[str, Any] = {**self.about()}
        shares = self.values[number].T.tolist()
        each = [
            {
                "base": base,
                "contributions": dict(zip(self.columns, share, strict=True)),
                "score": score,
            }
            for base, share, score in zip(
                self.base[number].tolist(), shares, self.scores[number].tolist(), strict=True
            )
        ]
        if len(each) > 1:
            return head | {"classes": dict(zip(self.outputs, each, strict=True))}
        return head | each[0]


_GUARD = Lock()
_KEPT: WeakKeyDictionary[Compiled, Explainer] = WeakKeyDictionary()


def contributions(model: ServedModel, rows: Rows) -> Contributions:
    """Explain the scores of encoded rows.

    Trees and linear models are explained exactly; columns that are encoded as several places
    (one for each category or class) get the sum of these. What trees are held against is the mean
    of their training rows; linear models, a row with average numbers and no category.

    Args:
        model: A compiled one.
        rows: What its `encode` gives.

    Raises:
        ServingError: The model is not compiled, or has too many leaves.
    """
    scorer, explainer = _explainer(model)
    if not isinstance(rows, Encoded):
        message = "rows of a pipeline were given to a compiled model"
        raise TypeError(message)
    from holdtrue.models.compiled._contributions import places_of

    columns = scorer.encoder.columns
    values = explainer(rows.matrix, places_of(columns)) / scorer.divisor
    base = explainer.base / scorer.divisor
    places = {column.name: number for number, column in enumerate(columns)}
    signature = model.signature.encoded
    outputs: tuple[str | None, ...] = signature.classes or (None,)
    return Contributions(
        columns=tuple(signature.columns),
        outputs=outputs if len(base) > 1 else outputs[-1:],
        base=np.tile(base, (len(values), 1)),
        values=values[:, [places[name] for name in signature.columns]],
        unit=_unit(scorer, signature),
        calibrated=model.answering.calibration is not None,
    )


def prepare(model: ServedModel) -> None:
    """Make what explains a model, which takes up to a second, before somebody waits for it.

    For the trees of scikit-learn this loads the estimator itself, and so scikit-learn.

    Raises:
        ServingError: It is a model that is not explained.
    """
    _explainer(model)


def splits_of(model: ServedModel) -> int:
    """Splits of the trees that explain a model; 0 for linear models.

    Raises:
        ServingError: It is a model that is not explained.
    """
    return _explainer(model)[1].n_splits


def _explainer(model: ServedModel) -> tuple[Compiled, Explainer]:
    """What explains a model; made when first asked for, and kept as long as the model."""
    scorer = model.scorer
    if scorer is None:
        message = f"this model cannot be explained, for it is not compiled: {model.reason}"
        raise ServingError(message)
    from holdtrue.models.compiled._contributions import explainer_of

    def fitted() -> Any:
        from holdtrue.models._bundle import Bundle

        return Bundle.load(model.path, model.digest).pipeline["model"]

    with _GUARD:
        found = _KEPT.get(scorer)
        if found is None:
            found = _KEPT[scorer] = explainer_of(scorer, fitted)
    return scorer, found


def _unit(scorer: Compiled, signature: Signature) -> str:
    if scorer.link == "exp":
        return f"log of {signature.target}"
    if scorer.link != "identity":
        return LOG_ODDS
    return signature.target if signature.classes is None else PROBABILITY


def why_columns(found: Contributions, decided: npt.NDArray[np.int64] | None) -> dict[str, Floats]:
    """The contributions as columns of a table, each of shape (n_rows,).

    Args:
        found: Of the table's rows.
        decided: Index of the class that was answered, shape (n_rows,); None for a regression. Of
            more than two classes the score of this one is explained, of two that of the second.

    Returns:
        ``why_<column>`` for each column, then ``explained_base`` and ``explained_score``.
    """
    n_rows = len(found.values)
    output = np.zeros(n_rows, np.int64)
    if len(found.outputs) > 1 and decided is not None:
        output = decided
    rows = np.arange(n_rows)
    columns = {
        f"why_{name}": found.values[rows, number, output]
        for number, name in enumerate(found.columns)
    }
    return columns | {
        "explained_base": found.base[rows, output],
        "explained_score": found.scores[rows, output],
    }
