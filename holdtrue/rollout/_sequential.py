"""Evidence and intervals that hold at every moment, however often one looks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

# Odds ratios that evidence is gathered for, each with the same weight beforehand: from a small
# excess, seen after thousands of requests, to a version that fails always, seen after a few.
ODDS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)
# The interval of a mean is narrowest when about so many requests were seen.
_NARROWEST_AT = 1_000


def no_evidence() -> tuple[float, ...]:
    """What is known before the first request: the logarithm of 1 for each of `ODDS`."""
    return (0.0,) * len(ODDS)


def with_counts(
    before: Sequence[float],
    champion: tuple[int, int],
    challenger: tuple[int, int],
    null_odds: float = 1.0,
) -> tuple[float, ...]:
    """Add what was counted since the last look.

    Given how many requests each version answered and how many of all went wrong, the number that
    went wrong with the challenger follows Fisher's noncentral hypergeometric law, which depends
    on the odds ratio alone: neither on the rate of failures, which may change over the day, nor
    on the shares of the versions, which change with the steps. For each odds ratio the product
    of the likelihood ratios against `null_odds` is a supermartingale whenever the true ratio is
    at most `null_odds`, so that by Ville's inequality it ever reaches 1 / a with a probability
    of at most a, whenever and however often one looks.

    Args:
        before: Logarithms so far, one for each of `ODDS`.
        champion: Requests that went wrong and all requests, since the last look.
        challenger: The same of the challenger.
        null_odds: Odds ratio up to which the challenger is no worse.

    Returns:
        Logarithms of the likelihood ratios, one for each of `ODDS`.

    References:
        Ville 1939, Etude critique de la notion de collectif.
        Johari, Koomen, Pekelis, Walsh 2022, Always valid inference (mixtures of such ratios).
        Turner, Ly, Grünwald 2024, Generic E-variables for exact sequential k-sample tests.
        Howard, Ramdas, McAuliffe, Sekhon 2021, Time-uniform confidence sequences.
    """
    (wrong_0, n_0), (wrong_1, n_1) = champion, challenger
    wrong = wrong_0 + wrong_1
    if not (n_0 and n_1 and wrong and wrong < n_0 + n_1):
        return tuple(before)  # nothing can be learnt
    log_odds = np.log(null_odds) + np.log(ODDS)
    count, weight = _hypergeometric(n_0, n_1, wrong)
    null = _log_sum(weight + count * math.log(null_odds))
    scale = _log_sum(weight + count * log_odds[:, None])
    ratio = wrong_1 * (log_odds - math.log(null_odds)) - (scale - null)
    return tuple((np.asarray(before) + ratio).tolist())


def evidence(logs: Sequence[float]) -> float:
    """Natural logarithm of the evidence over all of `ODDS`; reaches log(1 / a) with chance a."""
    return float(_log_sum(np.asarray(logs, dtype="float64"))) - math.log(len(ODDS))


def mean_radius(n: float, sd: float, alpha: float) -> float:
    """Half the width of an interval around a mean that holds for all n at once.

    The interval of Waudby-Smith and others is asymptotic: it leaves the truth out with a
    probability of about `alpha` over the whole run, for n large enough for a normal law.

    Args:
        n: Independent observations.
        sd: Their standard deviation.
        alpha: Probability that the truth is ever left out, in (0, 1).

    References:
        Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas 2024, Time-uniform central limit theory and
        asymptotic confidence sequences, theorem 2.2, with rho as in its equation (11).
    """
    if n <= 0:
        return math.inf
    rare = -2 * math.log(alpha)
    rho_2 = (rare + math.log(rare + 1)) / _NARROWEST_AT
    scale = n * rho_2 + 1
    return sd * math.sqrt(2 * scale / (n**2 * rho_2) * math.log(math.sqrt(scale) / alpha))


def _hypergeometric(
    n_0: int, n_1: int, wrong: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How many of the wrong ones can be the challenger's, and the log weight of each (one is 0)."""
    low, high = max(0, wrong - n_0), min(wrong, n_1)
    count = np.arange(low, high + 1, dtype="float64")
    ratio = (n_1 - count[:-1]) * (wrong - count[:-1]) / (count[1:] * (n_0 - wrong + count[1:]))
    return count, np.concatenate([[0.0], np.cumsum(np.log(ratio))])


def _log_sum(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Logarithm of the sum of exponentials over the last axis."""
    top = values.max(axis=-1, keepdims=True)
    total: npt.NDArray[np.float64] = np.log(np.exp(values - top).sum(axis=-1)) + top[..., 0]
    return total
