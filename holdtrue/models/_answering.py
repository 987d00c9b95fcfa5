"""What becomes of a pipeline's scores before they are an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.models._calibration import Calibration
from holdtrue.models._classes import Costs, decide, threshold
from holdtrue.models._conformal import Interval
from holdtrue.references import Reference

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


class Answering(Reference):
    """How scores become answers; without anything declared they are the answers."""

    calibration: Calibration | None = None
    costs: Costs | None = None
    """By true class, then decided class."""
    interval: Interval | None = None

    def calibrated(self, scores: Floats) -> Floats:
        """Correct the scores of a pipeline, shape (n_rows, n_classes) or (n_rows,)."""
        return scores if self.calibration is None else self.calibration(scores)

    def decide(self, probabilities: Floats) -> npt.NDArray[np.int64]:
        """Index of the class that is answered, shape (n_rows,).

        Args:
            probabilities: shape (n_rows, n_classes), calibrated.
        """
        return decide(probabilities, self.costs)

    def intervals(self, values: Floats) -> Floats | None:
        """Lower and upper end for each value, shape (n_rows, 2); None where none is declared."""
        return None if self.interval is None else self.interval(values)

    @property
    def threshold(self) -> float | None:
        """Of two classes: above which probability the second is answered; None without costs."""
        return None if self.costs is None or len(self.costs) != 2 else threshold(self.costs)
