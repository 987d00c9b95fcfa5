from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np

from holdtrue.rollout import Arms, Counts, Moments, Plan, Rollout

BEGAN = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)


def at(seconds: float) -> dt.datetime:
    return BEGAN + dt.timedelta(seconds=seconds)


def rollout(**changes: Any) -> Rollout:
    plan = {"shares": (0.05, 0.25), "every_s": 60, "requests": 200, "bounds_s": BOUNDS_S}
    plan |= {key: changes.pop(key) for key in [*changes] if key in Plan.model_fields}
    values = {"id": 1, "system": "s", "champion": 1, "challenger": 2, "generation": 1}
    values |= {"plan": Plan.model_validate(plan), "began": BEGAN, "since": BEGAN}
    return Rollout.model_validate(values | changes)


def moments(values: np.ndarray) -> Moments:
    """Of values of shape (n, n_columns)."""
    mean = values.mean(axis=0)
    m2 = ((values - mean) ** 2).sum(axis=0)
    return Moments(n=len(values), mean=tuple(mean.tolist()), m2=tuple(m2.tolist()))


class Traffic:
    """Counters of two versions that answer requests, as replicas count them.

    Args:
        seed: Of everything that is drawn.
        failures: Rates of champion and challenger.
        seconds: Median time of an answer.
        shift: How much higher the challenger scores, in log-odds.
    """

    def __init__(
        self,
        seed: int,
        failures: tuple[float, float] = (0.002, 0.002),
        seconds: tuple[float, float] = (0.002, 0.002),
        shift: float = 0.0,
    ) -> None:
        self._chance = np.random.default_rng(seed)
        self._failures, self._seconds, self._shifts = failures, seconds, (0.0, shift)
        self._n = [0, 0]
        self._failed = [0, 0]
        self._durations = [np.zeros(len(BOUNDS_S) + 1, dtype=int) for _ in range(2)]
        self._scores: list[list[np.ndarray]] = [[], []]

    def go_on(self, requests: int, share: float) -> Arms:
        """Answer so many requests more; a share of 0 is a shadow that scores a copy of all."""
        second = requests if share == 0 else int(self._chance.binomial(requests, share))
        first = requests if share == 0 else requests - second
        for i, n in enumerate((first, second)):
            failed = int(self._chance.binomial(n, self._failures[i]))
            took = self._seconds[i] * self._chance.lognormal(0, 0.5, n - failed)
            odds = np.exp(self._chance.normal(self._shifts[i] - 1, 1, n - failed))
            self._n[i] += n
            self._failed[i] += failed
            if share or not i:
                where = np.searchsorted(BOUNDS_S, took)
                self._durations[i] += np.bincount(where, minlength=len(BOUNDS_S) + 1)
            yes = odds / (1 + odds)
            self._scores[i].append(np.column_stack([1 - yes, yes]))
        return Arms(champion=self._counts(0), challenger=self._counts(1))

    def _counts(self, i: int) -> Counts:
        scores = np.concatenate(self._scores[i])
        return Counts(
            requests=self._n[i],
            failures=self._failed[i],
            durations=tuple(self._durations[i].tolist()),
            scores=moments(scores) if len(scores) else Moments(),
        )
