"""Each column's share of a score: exact Shapley values of sums of trees and of linear models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import orjson

from holdtrue.errors import ServingError
from holdtrue.models.compiled._forests import ALONE, BINNED, read_ensemble
from holdtrue.models.compiled._lightgbm import LIGHTGBM, cover_of, read_lightgbm
from holdtrue.models.compiled._xgboost import read_booster

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdtrue.models.compiled._compiled import Compiled
    from holdtrue.models.compiled._encode import Column
    from holdtrue.models.compiled._trees import Trees

    Flags = npt.NDArray[np.bool_]
    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

# Conditions on the ways to all leaves, together: 8 million take about 300 MB.
_MOST_CONDITIONS = 8_000_000
# Rows are taken together as far as their conditions stay in the processor's cache.
_AT_A_TIME = 100_000
# A way that no training row took would divide by nothing.
_LEAST_SHARE = 1e-12


@dataclass(frozen=True)
class _Paths:
    """The ways to the leaves that ask for the same number of different features.

    A row fulfils a condition where low < x <= high; all arrays of them have the shape
    (n_conditions, n_paths).
    """

    feature: Ints
    low: Floats
    high: Floats
    missing: Flags
    """Whether a missing value fulfils it."""
    share: Floats
    """Share of the training rows that fulfil it, of those that come to its splits."""
    value: Floats
    """shape (n_paths,): what the leaf adds."""
    output: Ints
    """shape (n_paths,): to which output."""


class TreeExplainer:
    """Shapley values of a sum of trees, where what is not known is averaged over the trees' cover.

    A leaf's part in the score is a product over the features on the way to it: each gives 1 or 0
    where it is known, and the share of the training rows that go along where it is not. The value
    of a feature in such a product game is the integral over 0..1 of the derivative of its
    multilinear extension along the diagonal (Owen), a polynomial, which Gauss's quadrature of half
    as many nodes as there are features gives exactly. Summed over all leaves these are the values
    that Lundberg's path-dependent algorithm gives.

    Args:
        trees: The ensemble.
        cover: shape (n_nodes,): weight of the training rows that came to each node.

    Raises:
        ServingError: There are too many leaves.

    References:
        Owen (1972), Multilinear extensions of games, Management Science 18, P64-P79.
        Lundberg et al. (2020), From local explanations to global understanding with explainable AI
        for trees, Nature Machine Intelligence 2, 56-67, algorithm 2.
    """

    def __init__(self, trees: Trees, cover: Floats) -> None:
        self.n_splits = trees.n_splits
        self._single = trees.single_inputs
        self._groups = _paths(trees, cover)
        self._n_outputs = len(trees.base)
        self.base: Floats = trees.base.copy()
        """shape (n_outputs,): the mean score."""
        for group in self._groups:
            mean = group.value * group.share.prod(axis=0)
            self.base += np.bincount(group.output, mean, minlength=self._n_outputs)

    def __call__(self, matrix: Floats, places: Ints) -> Floats:
        """Explain encoded rows.

        Args:
            matrix: shape (n_rows, width).
            places: shape (width,): number of the column that each place belongs to.

        Returns:
            shape (n_rows, n_columns, n_outputs).
        """
        if self._single:
            with np.errstate(over="ignore"):
                matrix = matrix.astype(np.float32).astype(np.float64)
        n_cells = (int(places.max(initial=-1)) + 1) * self._n_outputs
        result = np.zeros((len(matrix), n_cells))
        for group in self._groups:
            if not len(group.feature):
                continue
            cells = (places[group.feature] * self._n_outputs + group.output).ravel()
            step = max(1, _AT_A_TIME // group.feature.size)
            for first in range(0, len(matrix), step):
                values = _shapley(group, matrix[first : first + step])
                for number, row in enumerate(values, first):
                    result[number] += np.bincount(cells, row.ravel(), minlength=n_cells)
        return result.reshape(len(matrix), -1, self._n_outputs)


class LinearExplainer:
    """Shapley values of a linear model of independent columns: coefficient x (x - mean).

    Args:
        coefficients: shape (n_outputs, width).
        intercepts: shape (n_outputs,).
        means: shape (width,): of the encoded training rows.

    References:
        Lundberg and Lee (2017), A unified approach to interpreting model predictions, NeurIPS 30,
        corollary 1.
    """

    def __init__(self, coefficients: Floats, intercepts: Floats, means: Floats) -> None:
        self.n_splits = 0
        self._coefficients = coefficients
        self._means = means
        self.base: Floats = intercepts + coefficients @ means
        """shape (n_outputs,): the mean score."""

    def __call__(self, matrix: Floats, places: Ints) -> Floats:
        """Explain encoded rows; as `TreeExplainer`."""
        each = (matrix - self._means)[:, :, None] * self._coefficients.T
        n_columns = int(places.max(initial=-1)) + 1
        result = np.zeros((len(matrix), n_columns, len(self._coefficients)))
        for place, column in enumerate(places):
            result[:, column] += each[:, place]
        return result


Explainer = TreeExplainer | LinearExplainer


def explainer_of(scorer: Compiled, fitted: Callable[[], Any]) -> Explainer:
    """What explains a compiled model.

    Args:
        scorer: The model.
        fitted: Gives the estimator; called for trees of scikit-learn and LightGBM, whose cover is
            there.

    Raises:
        ServingError: It has too many leaves.
    """
    if scorer.linear is not None:
        linear = scorer.linear
        means = np.zeros(linear.coefficients.shape[1])
        return LinearExplainer(linear.coefficients, linear.intercepts, means)
    if scorer.booster is not None:
        return TreeExplainer(*_read_booster(scorer.booster))
    return TreeExplainer(*_read_ensemble(fitted()))


def _read_booster(content: bytes) -> tuple[Trees, Floats]:
    """XGBoost's trees with their cover: the sum of the second derivatives of the rows' loss."""
    trees, _, _ = read_booster(content)
    booster = orjson.loads(content)["learner"]["gradient_booster"]
    model = booster["gbtree"]["model"] if "gbtree" in booster else booster["model"]
    grown = model["trees"][: len(trees.roots)]
    return trees, np.concatenate([np.array(tree["sum_hessian"], np.float64) for tree in grown])


def _read_ensemble(model: Any) -> tuple[Trees, Floats]:
    """Trees of scikit-learn or LightGBM with their cover: the weight of their training rows."""
    name = type(model).__name__
    if name in LIGHTGBM:
        return read_lightgbm(model)[0], cover_of(model)
    trees, _, _ = read_ensemble(model)
    if name in BINNED:
        return trees, np.concatenate(
            [tree.nodes["count"] for each in model._predictors for tree in each]
        ).astype(np.float64)
    if name in ALONE:
        members = [model]
    else:
        members = [member for each in model.estimators_ for member in np.atleast_1d(each)]
    # A tree with a share for each of several classes is written as one tree for each class.
    copies = len(trees.roots) // len(members)
    covers = [member.tree_.weighted_n_node_samples for member in members for _ in range(copies)]
    return trees, np.concatenate(covers)


def places_of(columns: Sequence[Column]) -> Ints:
    """The number of the column that each place of the matrix belongs to, shape (width,)."""
    places = np.zeros(sum(column.width for column in columns), np.int64)
    for number, column in enumerate(columns):
        places[column.at : column.at + column.width] = number
    return places


def _shapley(group: _Paths, matrix: Floats) -> Floats:
    """What each condition of each path gives, shape (n_rows, n_conditions, n_paths)."""
    x = matrix[:, group.feature]
    fulfilled = (x > group.low) & (x <= group.high) | np.isnan(x) & group.missing
    known = fulfilled.astype(np.float64)
    values = np.zeros_like(known)
    nodes, weights = np.polynomial.legendre.leggauss((len(group.feature) + 1) // 2)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        term = known * node
        term += group.share * (1 - node)
        others = weight * term.prod(axis=1, keepdims=True) / term
        values += others
    known -= group.share
    values *= known
    values *= group.value
    return values


@dataclass(frozen=True)
class _Way:
    """The ways from the roots to the nodes of one level; what is not asked for yet is -1."""

    node: Ints
    output: Ints
    feature: Ints
    low: Floats
    high: Floats
    missing: Flags
    share: Floats

    def of(self, chosen: Flags) -> _Way:
        """Some of the ways."""
        return _Way(*(getattr(self, name)[..., chosen] for name in _WAY))

    def asking(self, feature: Ints) -> tuple[_Way, tuple[Ints, Ints]]:
        """Have a condition on a feature in each way; that which is there, or a new one."""
        before = self.feature == feature
        place = (self.feature >= 0).sum(axis=0)
        row, column = np.nonzero(before)
        place[column] = row
        parts = {name: getattr(self, name) for name in _CONDITION}
        if place.max() == len(before):
            shape = (1, len(feature))
            new = {"feature": -1, "low": -np.inf, "high": np.inf, "missing": True, "share": 1.0}
            parts = {
                name: np.vstack([part, np.full(shape, new[name], part.dtype)])
                for name, part in parts.items()
            }
        at = (place, np.arange(len(feature)))
        parts["feature"] = parts["feature"].copy()
        parts["feature"][at] = feature
        return _Way(self.node, self.output, **parts), at

    def paths(self, values: Floats) -> dict[int, _Paths]:
        """Those that end here, by their number of conditions."""
        lengths = (self.feature >= 0).sum(axis=0)
        found = {}
        for length in np.unique(lengths).tolist():
            same = lengths == length
            conditions = {name: getattr(self, name)[:length, same] for name in _CONDITION}
            found[length] = _Paths(**conditions, value=values[same], output=self.output[same])
        return found


_CONDITION = ("feature", "low", "high", "missing", "share")
_WAY = ("node", "output", *_CONDITION)


def _paths(trees: Trees, cover: Floats) -> list[_Paths]:
    """Follow all trees from their roots at a time, level by level."""
    threshold = trees.threshold
    if trees.strict:  # x < t is x <= the number before t
        lowest = np.float32(-np.inf)
        threshold = np.nextafter(threshold.astype(np.float32), lowest).astype(np.float64)
    shape = (0, len(trees.roots))
    way = _Way(
        trees.roots,
        trees.outputs,
        np.empty(shape, np.int64),
        np.empty(shape),
        np.empty(shape),
        np.empty(shape, np.bool_),
        np.empty(shape),
    )
    found: dict[int, list[_Paths]] = {}
    n_conditions = 0
    while way.node.size:
        leaf = trees.feature[way.node] < 0
        ended, way = way.of(leaf), way.of(~leaf)
        for length, paths in ended.paths(trees.value[ended.node]).items():
            found.setdefault(length, []).append(paths)
            n_conditions += paths.feature.size
        if n_conditions + 2 * way.feature.size > _MOST_CONDITIONS:
            message = "this model cannot be explained: its trees have too many leaves"
            raise ServingError(message)
        if way.node.size:
            sides = [_step(way, trees, threshold, cover, left=left) for left in (True, False)]
            way = _Way(*(_joined(sides, name) for name in _WAY))
    names = (*_CONDITION, "value", "output")
    return [
        _Paths(*(_joined(groups, name) for name in names)) for _, groups in sorted(found.items())
    ]


def _step(way: _Way, trees: Trees, threshold: Floats, cover: Floats, *, left: bool) -> _Way:
    """Go on to the children on one side."""
    node = way.node
    child = trees.left[node] if left else trees.right[node]
    way, at = way.asking(trees.feature[node])
    low, high, share = way.low.copy(), way.high.copy(), way.share.copy()
    missing = way.missing.copy()
    if left:
        high[at] = np.minimum(high[at], threshold[node])
    else:
        low[at] = np.maximum(low[at], threshold[node])
    missing[at] &= trees.missing_left[node] == left
    with np.errstate(divide="ignore", invalid="ignore"):
        gone = cover[child] / cover[node]
    share[at] *= np.where(gone > _LEAST_SHARE, gone, _LEAST_SHARE)
    return _Way(child, way.output, way.feature, low, high, missing, share)


def _joined(parts: Sequence[_Way | _Paths], name: str) -> Any:
    return np.concatenate([getattr(part, name) for part in parts], axis=-1)
