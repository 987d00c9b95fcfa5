"""The trees of scikit-learn's ensembles as flat arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from holdtrue.models.compiled._refusal import NotCompilable
from holdtrue.models.compiled._trees import Link, Tree, Trees, ensemble

if TYPE_CHECKING:
    from collections.abc import Sequence

BINNED = ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")
BOOSTED = ("GradientBoostingClassifier", "GradientBoostingRegressor")
AVERAGED = (
    "ExtraTreesClassifier",
    "ExtraTreesRegressor",
    "RandomForestClassifier",
    "RandomForestRegressor",
)
ALONE = (
    "DecisionTreeClassifier",
    "DecisionTreeRegressor",
    "ExtraTreeClassifier",
    "ExtraTreeRegressor",
)
_LINKS: dict[str, Link] = {
    "IdentityLink": "identity",
    "LogLink": "exp",
    "LogitLink": "sigmoid",
    "HalfLogitLink": "sigmoid",
    "MultinomialLogit": "softmax",
}


def read_ensemble(model: Any) -> tuple[Trees, Link, float]:
    """Read a fitted ensemble of scikit-learn.

    Returns:
        Its trees, the function of their sum, and what the sum is divided by before that.

    Raises:
        NotCompilable: A part of it has no compiled form.
    """
    name = type(model).__name__
    if name in BINNED:
        return _binned(model)
    if name in BOOSTED:
        return _boosted(model)
    return _averaged(model.estimators_ if name in AVERAGED else [model])


def link_of(loss: Any) -> Link:
    """The function that turns the raw value of a loss of scikit-learn into an answer."""
    name = type(loss.link).__name__
    if name not in _LINKS:
        message = f"the link {name} is not one that is compiled"
        raise NotCompilable(message)
    return _LINKS[name]


def _binned(model: Any) -> tuple[Trees, Link, float]:
    trees = []
    for each in model._predictors:
        for output, predictor in enumerate(each):
            nodes = predictor.nodes
            leaf = nodes["is_leaf"].astype(bool)
            if nodes["is_categorical"].any():
                message = "splits of scikit-learn on its own categories are not compiled"
                raise NotCompilable(message)
            trees.append(
                Tree(
                    feature=np.where(leaf, -1, nodes["feature_idx"]),
                    threshold=np.where(leaf, 0.0, nodes["num_threshold"]),
                    left=nodes["left"].astype(np.int64),
                    right=nodes["right"].astype(np.int64),
                    missing_left=nodes["missing_go_to_left"].astype(bool),
                    value=np.where(leaf, nodes["value"], 0.0),
                    output=output,
                )
            )
    base = np.ravel(model._baseline_prediction)
    found = ensemble(trees, base, strict=False, single=False, single_inputs=False)
    return found, link_of(model._loss), 1.0


def _boosted(model: Any) -> tuple[Trees, Link, float]:
    if not (model.init is None or model.init == "zero"):
        message = "gradient boosting that starts from another model is not compiled"
        raise NotCompilable(message)
    # For the exponential loss the answer is the sigmoid of twice the sum; doubling is exact.
    factor = 2.0 if type(model._loss.link).__name__ == "HalfLogitLink" else 1.0
    start = model._raw_predict_init(np.zeros((1, model.n_features_in_), np.float32))
    trees = [
        _grown(member.tree_, member.tree_.value[:, 0, 0] * model.learning_rate * factor, output)
        for each in model.estimators_
        for output, member in enumerate(each)
    ]
    base = np.ravel(start) * factor
    found = ensemble(trees, base, strict=False, single=False, single_inputs=True)
    return found, link_of(model._loss), 1.0


def _averaged(members: Sequence[Any]) -> tuple[Trees, Link, float]:
    trees: list[Tree] = []
    n_outputs = 1
    for member in members:
        grown = member.tree_
        if grown.n_outputs != 1:
            message = "trees with several targets are not compiled"
            raise NotCompilable(message)
        shares = grown.value[:, 0, :]
        if shares.shape[1] == 1:  # a value
            trees.append(_grown(grown, shares[:, 0], 0))
        elif shares.shape[1] == 2:  # the share of the second class says all
            trees.append(_grown(grown, shares[:, 1], 0))
        else:
            n_outputs = shares.shape[1]
            trees += [_grown(grown, shares[:, i], i) for i in range(n_outputs)]
    found = ensemble(trees, [0.0] * n_outputs, strict=False, single=False, single_inputs=True)
    return found, "identity", float(len(members))


def _grown(tree: Any, value: Any, output: int) -> Tree:
    leaf = tree.children_left < 0
    return Tree(
        feature=np.where(leaf, -1, tree.feature),
        threshold=np.where(leaf, 0.0, tree.threshold),
        left=tree.children_left,
        right=tree.children_right,
        missing_left=tree.missing_go_to_left.astype(bool),
        value=np.where(leaf, value, 0.0),
        output=output,
    )
