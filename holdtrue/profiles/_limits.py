"""The limits of the drift alarm, chosen so that the reference itself would have stayed quiet."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from holdtrue.profiles._calibration import P_LIMIT

if TYPE_CHECKING:
    from numpy.typing import NDArray

IN_A_ROW = 3
"""Suspect windows in a row that are a drift."""
_SHARES = (0.9, 0.95, 0.98, 1.0)
_BEYOND = (1.25, 1.5, 2.0, 3.0)
_ALONE = 3.0


class Limits(NamedTuple):
    """What `choose_limits` found."""

    suspect: float
    """Effect above which a significant difference makes a window suspect."""
    alone: float
    """Effect above which any difference makes a window suspect."""
    alarms: float
    """False alarms to expect in the declared period, at most."""


def choose_limits(
    effects: NDArray[np.float64],
    sizes: NDArray[np.float64],
    p_values: NDArray[np.float64],
    *,
    allowed: int,
    windows: float,
) -> Limits:
    """Choose the lowest limit that keeps the declared rate of false alarms.

    An alarm is three suspect windows in a row. Candidates are the 90, 95, 98 and 100 % levels of
    the blocks' largest effects, then 1.25, 1.5, 2 and 3 times the largest; never less than 1. The
    first is taken with which both hold:

    - if windows were independent, three in a row are rare enough: alpha^3 <= allowed / windows,
      where alpha is the share of blocks above the limit, (1 + number) / (1 + blocks), and beyond
      the largest block falls exponentially with the mean excess over the 90 % level;
    - the rule itself, run over the blocks in their order, gives no more alarms than are allowed
      in that many windows. This is what keeps storms and seasons, where windows depend on each
      other, from being taken for drift.

    The last candidate is taken where none will do; the expected number of alarms says so.

    Args:
        effects: shape (n_blocks, n_columns), each column's largest standardised effect.
        sizes: shape (n_blocks, n_columns), the same without unseen labels, which have an alarm of
            their own.
        p_values: shape (n_blocks, n_columns), each column's smallest adjusted p-value.
        allowed: False alarms that are acceptable in a period.
        windows: Windows in that period.
    """
    n_blocks = len(effects)
    largest = effects.max(axis=1)
    top = float(np.max(largest))
    base = float(np.quantile(largest, _SHARES[0]))
    excess = float(largest[largest > base].mean()) - base if top > base else 1.0
    alone = max(_ALONE, _ALONE * float(np.max(sizes)))
    budget = allowed / windows
    candidates = [float(np.quantile(largest, share)) for share in _SHARES]
    candidates += [top * factor for factor in _BEYOND]
    limit, rate = 1.0, 1.0
    for candidate in candidates:
        limit = max(candidate, 1.0)
        alpha = (1 + int((largest > limit).sum())) / (1 + n_blocks)
        alpha *= float(np.exp(-max(limit - top, 0.0) / excess))
        suspect = ((p_values < P_LIMIT) & (effects > limit)).any(axis=1)
        n_alarms = alarms(np.logical_or(suspect, (sizes > alone).any(axis=1)))
        rate = max(alpha**IN_A_ROW, n_alarms / n_blocks)
        if alpha**IN_A_ROW <= budget and n_alarms <= budget * n_blocks:
            break
    return Limits(limit, alone, rate * windows)


def alarms(suspect: NDArray[np.bool_]) -> int:
    """Count the alarms in a series of windows: one for every three suspect windows in a row."""
    total = run = 0
    for one in suspect.tolist():
        run = run + 1 if one else 0
        total += run > 0 and run % IN_A_ROW == 0
    return total
