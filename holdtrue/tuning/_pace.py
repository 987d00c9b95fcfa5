"""How long a trial will take, by those that have finished."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdtrue.tuning._space import Space
    from holdtrue.tuning._types import Outcome, Setting

# Complete trials, below which an estimate is a guess.
_ENOUGH = 8
# Trials that are looked at: the last ones, so that estimating stays cheap in a long search.
_RECENT = 256
# A trial that took no time at all, seconds.
_LEAST_S = 1e-6


class Pace:
    """Estimates the time of a trial from its setting.

    Ridge regression of the logarithm of the time on where each number lies on its scale, and on
    which choice and which candidate it is. The penalty is 1, so that a parameter counts once a few
    trials bear it out.

    Args:
        space: Where the settings are from.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._known: deque[tuple[dict[str, float], float]] = deque(maxlen=_RECENT)

    def add(self, setting: Setting, outcome: Outcome) -> None:
        """Take in what came of a trial. Only complete ones say how long one takes."""
        if outcome.state == "complete":
            seconds = max(outcome.seconds, _LEAST_S)
            self._known.append((self._features(setting), math.log(seconds)))

    def expect(self, settings: Sequence[Setting]) -> list[float] | None:
        """How long trials of these settings will take, seconds; None where too little is known."""
        if len(self._known) < _ENOUGH:
            return None
        import numpy as np

        names = {
            name: i for i, name in enumerate({name: 0 for row, _ in self._known for name in row})
        }

        def table(rows: Sequence[dict[str, float]]) -> np.ndarray:
            found = np.zeros((len(rows), len(names)))
            for i, row in enumerate(rows):
                for name in row.keys() & names.keys():
                    found[i, names[name]] = row[name]
            return found

        known = table([row for row, _ in self._known])
        logs = np.array([log for _, log in self._known])
        mean, mean_log = known.mean(axis=0), logs.mean()
        known -= mean
        slopes = np.linalg.solve(known.T @ known + np.eye(len(names)), known.T @ (logs - mean_log))
        asked = table([self._features(setting) for setting in settings])
        return [float(s) for s in np.exp((asked - mean) @ slopes + mean_log)]

    def _features(self, setting: Setting) -> dict[str, float]:
        spans = self._space.spans(setting.candidate)
        found = {setting.candidate: 1.0}
        for name, position in self._space.position(setting).items():
            key = f"{setting.candidate}:{name}"
            if spans[name].choice is None:
                found[key] = position - 0.5  # a parameter that is absent is as one in its middle
            else:
                found[f"{key}={position:g}"] = 1.0
        return found
