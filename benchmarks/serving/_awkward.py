"""A model that is slow, or that fails or hangs as a shadow."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

SLEEPS_S = 10.0
_SHADOW = "shadow"


class Awkward(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Answers every row with the shares of the classes that it was fitted on.

    Args:
        waits_s: How long it waits in each call, without using the CPU.
        as_shadow: ``answers``, ``raises`` or ``sleeps`` for 10 s; only where it is a shadow, since
            a version that does not answer its own sample is not taken.
    """

    def __init__(self, waits_s: float = 0.0, as_shadow: str = "answers") -> None:
        self.waits_s = waits_s
        self.as_shadow = as_shadow

    def fit(self, _x: Any, y: Any) -> Awkward:
        """Count the classes."""
        self.classes_, counts = np.unique(y, return_counts=True)
        self.shares_ = counts / counts.sum()
        return self

    def predict_proba(self, x: Any) -> np.ndarray:
        """The shares, for each row."""
        if self.as_shadow != "answers" and threading.current_thread().name == _SHADOW:
            if self.as_shadow == "raises":
                message = "as it was told"
                raise RuntimeError(message)
            time.sleep(SLEEPS_S)
        time.sleep(self.waits_s)
        return np.tile(self.shares_, (len(x), 1))
