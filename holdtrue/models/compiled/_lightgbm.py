"""LightGBM's own text as flat arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.models.compiled._refusal import NotCompilable
from holdtrue.models.compiled._trees import Link, Tree, Trees, ensemble

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]
    Text = Mapping[str, str]

LIGHTGBM = ("LGBMClassifier", "LGBMRegressor")
# Which function LightGBM applies to the sum of the leaves.
_LINKS: dict[str, Link] = {
    "binary": "sigmoid",
    "cross_entropy": "sigmoid",
    "fair": "identity",
    "gamma": "exp",
    "huber": "identity",
    "mape": "identity",
    "multiclass": "softmax",
    "poisson": "exp",
    "quantile": "identity",
    "regression": "identity",
    "regression_l1": "identity",
    "tweedie": "exp",
}
# In the type of a split: by categories; a missing value goes left; which values are missing.
_CATEGORIES, _MISSING_LEFT = 1, 2
_NONE, _ZERO, _NAN = 0, 4, 8
_NOUGHT = float(np.float32(1e-35))
"""Numbers that are no larger are 0 to LightGBM."""


def read_lightgbm(model: Any) -> tuple[Trees, Link, float]:
    """Read a fitted estimator of LightGBM.

    Returns:
        The trees that it answers with, the function of their sum, and what the sum is divided by
        before that.

    Raises:
        NotCompilable: It is not made of plain trees, or its objective is not known.
    """
    head, grown = _texts(model)
    name, *words = head.get("objective", "none of LightGBM's own").split(" ")
    if name not in _LINKS or "sqrt" in words:
        message = (
            f"the objective {' '.join([name, *words])} of LightGBM is not one that is compiled"
        )
        raise NotCompilable(message)
    # The slope of the sigmoid; what is scaled is the leaves.
    slope = next((float(word[8:]) for word in words if word.startswith("sigmoid:")), 1.0)
    n_outputs = int(head["num_tree_per_iteration"])
    trees = [_tree(text, number % n_outputs, slope) for number, text in enumerate(grown)]
    divisor = len(grown) / n_outputs if "average_output" in head else 1.0
    base = [0.0] * n_outputs
    found = ensemble(trees, base, strict=False, single=False, single_inputs=False)
    return found, _LINKS[name], divisor


def cover_of(model: Any) -> Floats:
    """Training rows that came to each node of `read_lightgbm`, shape (n_nodes,)."""
    _, grown = _texts(model)
    counts = [_numbers(text, name) for text in grown for name in ("internal_count", "leaf_count")]
    return np.concatenate(counts)


def _texts(model: Any) -> tuple[Text, list[Text]]:
    """The head of the text of a model, and its trees: those that it answers with."""
    head, *grown = _sections(model.booster_.model_to_string())
    return head, grown


def _sections(text: str) -> Iterator[Text]:
    found: dict[str, str] = {}
    for line in text.partition("end of trees")[0].splitlines():
        key, _, value = line.partition("=")
        if key == "Tree":
            yield found
            found = {}
        elif key:
            found[key] = value
    yield found


def _numbers(text: Text, name: str) -> Floats:
    """The numbers under a key; none where the tree has no split."""
    return np.array(text.get(name, "").split(), np.float64)


def _about_zero(threshold: Floats) -> Floats:
    """Thresholds at which numbers that LightGBM takes for 0 go where 0 goes."""
    tiny = np.abs(threshold) <= _NOUGHT
    below = float(np.nextafter(-_NOUGHT, -np.inf))
    return np.where(tiny, np.where(threshold < 0.0, below, _NOUGHT), threshold)


def _tree(text: Text, output: int, slope: float) -> Tree:
    if int(text["num_cat"]) > 0:
        message = "splits of LightGBM on its own categories are not compiled"
        raise NotCompilable(message)
    if int(text["is_linear"]):
        message = "trees of LightGBM with a linear model in each leaf are not compiled"
        raise NotCompilable(message)
    leaves = _numbers(text, "leaf_value") * slope
    threshold = _about_zero(_numbers(text, "threshold"))
    kinds = _numbers(text, "decision_type").astype(np.int64)
    missing = kinds & (_ZERO | _NAN)
    if (kinds & _CATEGORIES).any() or (missing == _ZERO).any():
        message = "LightGBM's zero_as_missing is not compiled"
        raise NotCompilable(message)
    # Where training had no missing value, one counts as 0.
    left = np.where(missing == _NONE, threshold >= 0.0, (kinds & _MISSING_LEFT) > 0)
    n_splits, n_leaves = len(threshold), len(leaves)
    end = np.zeros(n_leaves)

    def side(name: str) -> Ints:
        child = _numbers(text, name).astype(np.int64)
        # Leaves are numbered from -1 down, and follow the splits here.
        placed = np.where(child < 0, n_splits - 1 - child, child)
        return np.concatenate([placed, np.full(n_leaves, -1)])

    return Tree(
        feature=np.concatenate([_numbers(text, "split_feature"), end - 1]).astype(np.int64),
        threshold=np.concatenate([threshold, end]),
        left=side("left_child"),
        right=side("right_child"),
        missing_left=np.concatenate([left, end > 0]),
        value=np.concatenate([np.zeros(n_splits), leaves]),
        output=output,
    )
