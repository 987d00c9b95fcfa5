"""XGBoost's own JSON as flat arrays."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdtrue.models.compiled._refusal import NotCompilable
from holdtrue.models.compiled._trees import Link, Tree, Trees, ensemble

if TYPE_CHECKING:
    from collections.abc import Sequence

# Which function XGBoost applies to the sum of the leaves.
_LINKS: dict[str, Link] = {
    "binary:logistic": "sigmoid",
    "count:poisson": "exp",
    "multi:softprob": "softmax",
    "reg:absoluteerror": "identity",
    "reg:gamma": "exp",
    "reg:logistic": "sigmoid",
    "reg:pseudohubererror": "identity",
    "reg:quantileerror": "identity",
    "reg:squarederror": "identity",
    "reg:squaredlogerror": "identity",
    "reg:tweedie": "exp",
}


def read_booster(content: bytes) -> tuple[Trees, Link, int]:
    """Read a model as `Booster.save_raw("json")` gives it.

    Returns:
        The trees that it answers with, the function of their sum, and the number of rounds
        (0: all) that are to be asked of XGBoost itself.

    Raises:
        NotCompilable: It is not made of plain trees, or its objective is not known.
    """
    learner = json.loads(content)["learner"]
    objective = learner["objective"]["name"]
    if objective not in _LINKS:
        message = f"the objective {objective} of XGBoost is not one that is compiled"
        raise NotCompilable(message)
    booster = learner["gradient_booster"]
    if booster["name"] not in ("gbtree", "dart"):
        message = f"the booster {booster['name']} of XGBoost is not made of trees"
        raise NotCompilable(message)
    drops = booster.get("weight_drop")
    model = booster["gbtree"]["model"] if booster["name"] == "dart" else booster["model"]
    best = learner["attributes"].get("best_iteration")
    rounds = 0 if best is None else int(best) + 1
    n_trees = model["iteration_indptr"][rounds] if rounds else len(model["trees"])
    trees = [
        _tree(tree, output, 1.0 if drops is None else float(drops[number]))
        for number, (tree, output) in enumerate(
            zip(model["trees"][:n_trees], model["tree_info"][:n_trees], strict=True)
        )
    ]
    link = _LINKS[objective]
    base = _base(learner["learner_model_param"], link)
    found = ensemble(trees, base, strict=True, single=True, single_inputs=True)
    return found, link, rounds


def _tree(tree: dict[str, Any], output: int, weight: float) -> Tree:
    if int(tree["tree_param"].get("size_leaf_vector", "1")) > 1:
        message = "trees of XGBoost with a vector in each leaf are not compiled"
        raise NotCompilable(message)
    if tree.get("categories_nodes"):
        message = "splits of XGBoost on its own categories are not compiled"
        raise NotCompilable(message)
    left = np.array(tree["left_children"], np.int64)
    leaf = left < 0
    # Written as the shortest decimals that are read back as the same single-precision numbers.
    conditions = np.array(tree["split_conditions"], np.float32)
    return Tree(
        feature=np.where(leaf, -1, np.array(tree["split_indices"], np.int64)),
        threshold=np.where(leaf, 0.0, conditions).astype(np.float64),
        left=left,
        right=np.array(tree["right_children"], np.int64),
        missing_left=np.array(tree["default_left"], np.bool_),
        value=np.where(leaf, conditions * np.float32(weight), 0.0).astype(np.float64),
        output=int(output),
    )


def _base(params: dict[str, Any], link: Link) -> npt.NDArray[np.float64]:
    """What the sum starts from: the base score before the link, in single precision."""
    written = params["base_score"]
    scores = json.loads(written) if written.startswith("[") else [float(written)]
    n_outputs = max(1, int(params["num_class"]))
    single = np.array(_repeat(scores, n_outputs), np.float32)
    one = np.float32(1.0)
    if link == "sigmoid":
        single = -np.log(one / single - one)
    elif link == "exp":
        single = np.log(single)
    return single.astype(np.float64)


def _repeat(scores: Sequence[float], n: int) -> list[float]:
    return list(scores) if len(scores) == n else [scores[0]] * n
