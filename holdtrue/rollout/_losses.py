"""What answers have cost where their truth is known by now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from holdtrue.references import Reference

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

# Answers may cost this much more than the champion's before it is a reason to go back.
WORSE_LOSS = 1.05
# Answers of about the same time are compared; each such stretch has some of both versions.
_STRETCHES = 50
_ROWS_A_STRETCH = 10


class Losses(Reference):
    """The losses of both versions, compared between answers of about the same time."""

    n: int = 0
    """Answers of the challenger with a known truth, given while the champion answered too."""
    champion_n: int = 0
    loss: float = 0.0
    """Mean of the challenger's answers: squared distance to the truth for classification (Brier,
    0..2), absolute distance for regression."""
    champion_loss: float = 0.0
    total: float = 0.0
    """By how much the challenger's losses exceed `WORSE_LOSS` times the champion's, summed."""
    spread: float = 0.0
    """Variance of `total`."""


def compare_losses(
    champion: Floats, champion_at: Floats, challenger: Floats, challenger_at: Floats
) -> Losses:
    """Compare losses within stretches of time: a bad hour is bad for both versions.

    Args:
        champion: shape (n_0,), its losses.
        champion_at: shape (n_0,), when the answers were given, in seconds.
        challenger: shape (n_1,).
        challenger_at: shape (n_1,).
    """
    if not len(champion) or not len(challenger):
        return Losses(n=len(challenger), champion_n=len(champion))
    n_stretches = int(np.clip(len(challenger) // _ROWS_A_STRETCH, 1, _STRETCHES))
    edges = np.quantile(challenger_at, np.linspace(0, 1, n_stretches + 1)[1:-1])
    where = [np.searchsorted(edges, at, side="right") for at in (champion_at, challenger_at)]
    variance = [float(losses.var()) for losses in (champion, challenger)]
    n = champion_n = 0
    sums = [0.0, 0.0]
    total = spread = 0.0
    for stretch in range(n_stretches):
        first, second = champion[where[0] == stretch], challenger[where[1] == stretch]
        n_0, n_1 = len(first), len(second)
        if not n_0 or not n_1:
            continue
        n, champion_n = n + n_1, champion_n + n_0
        sums = [sums[0] + n_1 * float(first.mean()), sums[1] + float(second.sum())]
        total += n_1 * (float(second.mean()) - WORSE_LOSS * float(first.mean()))
        spread += n_1**2 * (variance[1] / n_1 + WORSE_LOSS**2 * variance[0] / n_0)
    return Losses(
        n=n,
        champion_n=champion_n,
        loss=sums[1] / max(n, 1),
        champion_loss=sums[0] / max(n, 1),
        total=total,
        spread=spread,
    )
