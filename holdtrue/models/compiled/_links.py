"""From raw sums to answers, with the roundings of the library that the model comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from holdtrue.models.compiled._trees import Link

    Floats = npt.NDArray[np.float64]

# The exponent in a sigmoid is limited, so that nothing overflows; the first is XGBoost's limit.
_ONE = np.float32(1)
_LARGEST_SINGLE, _LARGEST = np.float32(88.7), np.float64(709.0)


def answers(raw: npt.NDArray[Any], link: Link, n_classes: int | None) -> Floats:
    """Apply a link.

    Args:
        raw: shape (n_rows, n_outputs), of single precision where the model computes in it.
        link: Which; ``shares`` divides each output by the sum of all.
        n_classes: Of a classification; None for values.

    Returns:
        float64: shape (n_rows, n_classes), or (n_rows,) for values.
    """
    if link == "sigmoid" and raw.shape == (1, 1) and raw.dtype == np.float32 and n_classes:
        return _one_pair(raw)
    found = _applied(raw, link)
    if n_classes is None:
        return found[:, 0].astype(np.float64)
    if found.shape[1] > 1:
        return found.astype(np.float64)
    pair = np.empty((len(found), 2))
    pair[:, 0] = 1 - found[:, 0]
    pair[:, 1] = found[:, 0]
    return pair


def _one_pair(raw: npt.NDArray[np.float32]) -> Floats:
    """What `answers` gives for one row of two classes, to the last bit, in a tenth of the time.

    Most requests have one row, for which an operation on an array costs far more than arithmetic.
    """
    power = np.exp(min(-raw.item(), float(_LARGEST_SINGLE)))
    odds = _ONE / (_ONE + np.float32(power))
    return np.array([[_ONE - odds, odds]], np.float64)


def _applied(raw: npt.NDArray[Any], link: Link) -> npt.NDArray[Any]:
    if link == "identity":
        return raw
    if link == "exp":
        with np.errstate(over="ignore"):
            return _exp(raw)
    if link == "softmax":
        powers = _exp(raw - raw.max(axis=1, keepdims=True))
        # XGBoost sums in double precision and divides in single.
        total = powers.sum(axis=1, keepdims=True, dtype=np.float64).astype(raw.dtype)
        shares: npt.NDArray[Any] = powers / total
        return shares
    largest = _LARGEST_SINGLE if raw.dtype == np.float32 else _LARGEST
    odds: npt.NDArray[Any] = 1 / (1 + _exp(np.minimum(-raw, largest)))
    if link == "sigmoid":
        return odds
    sums = odds.sum(axis=1, keepdims=True)
    same = np.full_like(odds, 1 / odds.shape[1])
    np.divide(odds, sums, out=same, where=sums > 0)
    return same


def _exp(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # Through double precision: as near as the C library's function for single precision.
    powers: npt.NDArray[Any] = np.exp(values, dtype=np.float64).astype(values.dtype, copy=False)
    return powers
