"""Trees written as one ONNX node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from holdtrue.models.compiled._trees import Trees

    Values = npt.NDArray[Any]

INPUT, OUTPUT = "rows", "sums"
# The operator TreeEnsemble came with version 5 of the machine-learning operators.
_ML_VERSION = 5
_VERSION = 21
_IR_VERSION = 10
_LESS_OR_EQUAL, _LESS = 0, 1
_SUM = 1
_NO_TRANSFORM = 0


def write_onnx(trees: Trees, width: int) -> bytes:
    """Write trees as a graph from rows to the sums of their leaves.

    The base is written as a tree with one leaf that comes first, so that the sum is built in the
    order, and with the roundings, of the libraries that the trees come from.

    Args:
        trees: The ensemble.
        width: Number of values in a row.

    Returns:
        A model with the input `rows`, shape (n_rows, width), and the output `sums`, shape
        (n_rows, n_outputs), both of the trees' precision. The same trees give the same bytes.
    """
    from onnx import TensorProto, helper

    kind = TensorProto.FLOAT if trees.single else TensorProto.DOUBLE
    node = helper.make_node(
        "TreeEnsemble", [INPUT], [OUTPUT], domain="ai.onnx.ml", **_attributes(trees)
    )
    n_outputs = len(trees.base)
    graph = helper.make_graph(
        [node],
        "trees",
        [helper.make_tensor_value_info(INPUT, kind, [None, width])],
        [helper.make_tensor_value_info(OUTPUT, kind, [None, n_outputs])],
    )
    versions = [helper.make_opsetid("", _VERSION), helper.make_opsetid("ai.onnx.ml", _ML_VERSION)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=_IR_VERSION)
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def _attributes(trees: Trees) -> dict[str, Any]:
    from onnx import numpy_helper

    dtype = np.float32 if trees.single else np.float64
    n_base = len(trees.base)
    split = trees.feature >= 0
    # Splits and leaves are numbered apart; a tree without a split gets one with two equal sides.
    bare = ~split[trees.roots]
    numbers = np.cumsum(split) - 1 + n_base
    leaves = np.cumsum(~split) - 1 + n_base
    n_bare_first = n_base + int(split.sum())
    roots = np.where(bare, n_bare_first + np.cumsum(bare) - 1, numbers[trees.roots])

    def nodes(base: Values, splits: Values, alone: Values) -> Values:
        return np.concatenate([base, splits, alone])

    base_leaves = np.arange(n_base)
    zeros, zeros_alone = np.zeros(n_base), np.zeros(int(bare.sum()))
    ones, ones_alone = zeros + 1, zeros_alone + 1
    alone = leaves[trees.roots[bare]]

    def side(children: Values) -> tuple[Values, Values]:
        child = children[split]
        is_leaf = ~split[child]
        place = np.where(is_leaf, leaves[child], numbers[child])
        return nodes(base_leaves, place, alone), nodes(ones, is_leaf, ones_alone)

    true_ids, true_leaf = side(trees.left)
    false_ids, false_leaf = side(trees.right)
    n_nodes = len(true_ids)
    thresholds = nodes(zeros, trees.threshold[split], zeros_alone).astype(dtype)
    tree_of = np.searchsorted(trees.roots, np.flatnonzero(~split), side="right") - 1
    weights = np.concatenate([trees.base, trees.value[~split]]).astype(dtype)
    targets = np.concatenate([base_leaves, trees.outputs[tree_of]])
    modes = np.full(n_nodes, _LESS if trees.strict else _LESS_OR_EQUAL, np.uint8)

    def whole(values: Values) -> list[int]:
        found: list[int] = values.astype(np.int64).tolist()
        return found

    return {
        "aggregate_function": _SUM,
        "post_transform": _NO_TRANSFORM,
        "n_targets": n_base,
        "tree_roots": whole(np.concatenate([base_leaves, roots])),
        "nodes_featureids": whole(nodes(zeros, trees.feature[split], zeros_alone)),
        "nodes_splits": numpy_helper.from_array(thresholds, "nodes_splits"),
        "nodes_modes": numpy_helper.from_array(modes, "nodes_modes"),
        "nodes_missing_value_tracks_true": whole(
            nodes(zeros, trees.missing_left[split], zeros_alone)
        ),
        "nodes_truenodeids": whole(true_ids),
        "nodes_trueleafs": whole(true_leaf),
        "nodes_falsenodeids": whole(false_ids),
        "nodes_falseleafs": whole(false_leaf),
        "leaf_targetids": whole(targets),
        "leaf_weights": numpy_helper.from_array(weights, "leaf_weights"),
    }
