"""Trees as flat arrays, whatever library grew them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Link = Literal["identity", "exp", "sigmoid", "softmax", "shares"]


@dataclass(frozen=True)
class Trees:
    """An ensemble: base + the sum of the leaves that a row falls into, by output.

    A row goes left where x < threshold (`strict`, XGBoost) or x <= threshold (scikit-learn), and a
    missing value where `missing_left` says.
    """

    roots: npt.NDArray[np.int64]
    """shape (n_trees,): number of the root's node."""
    outputs: npt.NDArray[np.int64]
    """shape (n_trees,): which output the tree adds to."""
    feature: npt.NDArray[np.int64]
    """shape (n_nodes,): place in the matrix; -1 for a leaf."""
    threshold: npt.NDArray[np.float64]
    """shape (n_nodes,)."""
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    missing_left: npt.NDArray[np.bool_]
    value: npt.NDArray[np.float64]
    """shape (n_nodes,): of a leaf, what it adds."""
    base: npt.NDArray[np.float64]
    """shape (n_outputs,)."""
    strict: bool
    single: bool
    """Whether thresholds, leaves and their sum are of single precision (XGBoost)."""
    single_inputs: bool
    """Whether rows are rounded to single precision before they are compared."""

    @property
    def n_splits(self) -> int:
        """Nodes that are no leaves."""
        return int(np.count_nonzero(self.feature >= 0))

    def goes_left(self, values: npt.NDArray[np.float64], node: int) -> npt.NDArray[np.bool_]:
        """Which way encoded values, shape (n,), of a node's feature go."""
        if self.single_inputs:
            with np.errstate(over="ignore"):
                values = values.astype(np.float32).astype(np.float64)
        threshold = self.threshold[node]
        left = values < threshold if self.strict else values <= threshold
        sides: npt.NDArray[np.bool_] = np.where(np.isnan(values), self.missing_left[node], left)
        return sides


@dataclass(frozen=True)
class Tree:
    """One tree; nodes are numbered from its root, 0."""

    feature: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float64]
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    missing_left: npt.NDArray[np.bool_]
    value: npt.NDArray[np.float64]
    output: int = 0


def ensemble(
    trees: Sequence[Tree],
    base: Sequence[float] | npt.NDArray[np.float64],
    *,
    strict: bool,
    single: bool,
    single_inputs: bool,
) -> Trees:
    """Put trees one after the other."""
    starts = np.cumsum([0] + [len(tree.feature) for tree in trees])[:-1]

    def joined(name: str, dtype: type) -> npt.NDArray[Any]:
        return np.concatenate([np.asarray(getattr(tree, name), dtype) for tree in trees])

    def shifted(name: str) -> npt.NDArray[np.int64]:
        return np.concatenate(
            [getattr(tree, name) + start for tree, start in zip(trees, starts, strict=True)]
        ).astype(np.int64)

    return Trees(
        roots=starts.astype(np.int64),
        outputs=np.array([tree.output for tree in trees], np.int64),
        feature=joined("feature", np.int64),
        threshold=joined("threshold", np.float64),
        left=shifted("left"),
        right=shifted("right"),
        missing_left=joined("missing_left", np.bool_),
        value=joined("value", np.float64),
        base=np.array(base, np.float64),
        strict=strict,
        single=single,
        single_inputs=single_inputs,
    )
