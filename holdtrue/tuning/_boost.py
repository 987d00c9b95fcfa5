"""XGBoost one stretch of rounds at a time, on data that were binned once."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.tuning._costs import costs_of
from holdtrue.tuning._folds import Kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdtrue.declaration import Cost
    from holdtrue.tuning._folds import Fold

# Of binned rows, in each worker process: three folds of a million rows and 50 columns.
_KEPT_BYTES = 512 * 1024**2
_KEPT = Kept(_KEPT_BYTES)
_DEFAULT_BINS = 256


def boosts_in_rounds(model: Any) -> bool:
    """Whether `Boosting` fits this estimator exactly as its own ``fit`` does.

    True for XGBoost's classifier and regressor with trees and ordinary arguments. Not for anything
    that takes part in ``fit`` by itself: callbacks, early stopping, functions of the user's own,
    dart (its trees change when later ones come), linear boosters, types of features, GPUs.
    """
    xgboost: Any = sys.modules.get("xgboost")  # a model of it has had it imported
    if xgboost is None or not isinstance(model, xgboost.XGBModel):
        return False
    if isinstance(model, xgboost.XGBClassifier):
        own = xgboost.XGBClassifier.fit, xgboost.XGBClassifier.predict_proba
        used = type(model).fit, type(model).predict_proba
    else:
        own = xgboost.XGBModel.fit, xgboost.XGBModel.predict
        used = type(model).fit, type(model).predict
    return used == own and _is_ordinary(model)


def _is_ordinary(model: Any) -> bool:
    given = model.get_params()
    taking_part = ("callbacks", "early_stopping_rounds", "feature_types", "feature_weights")
    return (
        all(given.get(name) is None for name in taking_part)
        and not callable(given["objective"])
        # Answers classes instead of probabilities unless it is asked in its own way.
        and given["objective"] != "multi:softmax"
        and (given["eval_metric"] is None or isinstance(given["eval_metric"], str))
        and given["booster"] in (None, "gbtree")
        and given["tree_method"] in (None, "auto", "hist")
        and given["device"] in (None, "cpu")
        # The width of a Huber loss is none of the constructor's own arguments.
        and set(getattr(model, "kwargs", None) or ()) <= {"huber_slope"}
    )


@dataclass(frozen=True)
class Binned:
    """A fold as XGBoost takes it."""

    fit: Any
    """``QuantileDMatrix``: the rows to fit on."""
    judge: Any
    """``DMatrix``: the rows to judge on."""


def binned(fold: Fold, model: Any, *, study: str, key: tuple[Any, ...]) -> Binned:
    """Bin a fold for an estimator, or take what an earlier trial in this process left.

    Args:
        fold: The rows.
        model: The estimator: its number of bins, its threads and what stands for missing.
        study: Names the study; empty: keep nothing.
        key: Names the fold within the study.
    """
    bins = model.max_bin or _DEFAULT_BINS

    def make() -> Binned:
        from xgboost import DMatrix, QuantileDMatrix

        how = {"missing": model.missing, "nthread": model.n_jobs}
        fit = QuantileDMatrix(
            fold.fit_x, fold.fit_y, weight=fold.fit_weight, max_bin=model.max_bin, **how
        )
        return Binned(fit, DMatrix(fold.judge_x, **how))

    # A bin twice, by row and by column; a value of a DMatrix with the number of its column.
    size = 2 * fold.fit_x.size * (1 if bins <= _DEFAULT_BINS else 2) + 8 * fold.judge_x.size
    return _KEPT.get(study, (*key, bins, model.n_jobs, repr(model.missing)), size, make)  # type: ignore[no-any-return]


class Boosting:
    """The training of one estimator on one fold."""

    def __init__(
        self, model: Any, data: Binned, n_classes: int | None, before: str | None = None
    ) -> None:
        """Begin.

        Args:
            model: For which `boosts_in_rounds` is true.
            data: What it is trained and judged on.
            n_classes: At least 2; None for regression.
            before: What `text` gave: goes on from there; None: nothing is trained yet.

        Raises:
            XGBoostError: `before` is something else.
        """
        from xgboost import Booster

        params = model.get_xgb_params()
        if n_classes is not None and n_classes > 2:
            params |= {"objective": "multi:softprob", "num_class": n_classes}
        self._data = data
        self._n_classes = n_classes
        known = None if before is None else bytearray(before.encode())
        self._booster = Booster(params, [data.fit], known)
        self.n_rounds: int = self._booster.num_boosted_rounds()
        """That are trained."""

    def advance(self, n_rounds: int) -> None:
        """Train until so many rounds are done."""
        for i in range(self.n_rounds, n_rounds):
            self._booster.update(self._data.fit, i)
        self.n_rounds = max(n_rounds, self.n_rounds)

    def text(self) -> str:
        """The trees so far, as JSON."""
        return bytes(self._booster.save_raw("json")).decode()

    def costs(self, wanted: Sequence[Cost], row: np.ndarray) -> dict[Cost, float]:
        """What the model costs now; see `costs_of`."""
        return costs_of(wanted, self._booster, self._booster.inplace_predict, row)

    def answer(self) -> np.ndarray:
        """What the model says now about the rows to judge on, exactly as the fitted estimator does.

        The booster remembers its sums over the trees so far, so that asking costs little.

        Returns:
            float32: shape (n_rows, n_classes), probabilities; (n_rows,) for regression.
        """
        scores: np.ndarray = self._booster.predict(self._data.judge)
        if self._n_classes is not None and scores.ndim == 1:
            return np.vstack((1.0 - scores, scores)).T
        return scores
