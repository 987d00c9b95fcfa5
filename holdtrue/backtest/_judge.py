"""How good the answers of a life were, now that the truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from holdtrue.backtest._past import microseconds
from holdtrue.backtest._result import Compared, Period, Played
from holdtrue.data import as_frame, class_names, kind_of
from holdtrue.evaluation import Rows, differences, estimates
from holdtrue.references import Gain

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    import pyarrow as pa

    from holdtrue.backtest._life import Life
    from holdtrue.backtest._past import Past
    from holdtrue.declaration import Declaration

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Of a chart, at most: each has enough rows to say something, and there are enough to see a change.
_PERIODS = 40


@dataclass(frozen=True)
class Truth:
    """What the rows of a span turned out to be.

    Args:
        past: The rows.
        target: Shape (n_rows,): indices into `classes`, or numbers for regression.
        known: Shape (n_rows,): of which rows that is known.
        unknown_class: Rows whose truth is known, and a class that no model knows.
        classes: Names of the classes that any of the models knows; None for regression.
        metrics: What is measured, the searched one first.
        confidence: Of the intervals.
    """

    past: Past
    target: npt.NDArray[np.float64]
    known: Mask
    unknown_class: int
    classes: tuple[str, ...] | None
    metrics: tuple[str, ...]
    confidence: float

    @classmethod
    def of(
        cls, declared: Declaration, past: Past, known_until: datetime, lives: Iterable[Life]
    ) -> Truth:
        """Look the truth up.

        Args:
            declared: Names the target and the metrics.
            past: The rows.
            known_until: The truth of later rows is not known.
            lives: Whose models say which classes there are.
        """
        named = {name for life in lives for said in life.said for name in said.classes or ()}
        classes = tuple(sorted(named)) or None
        target = _target(past.table, declared.data.target, classes)
        told = past.times < microseconds(known_until)
        labelled = ~past.table[declared.data.target].is_null().to_numpy()
        return cls(
            past=past,
            target=target,
            known=np.isfinite(target) & told,
            unknown_class=int((labelled & told & ~np.isfinite(target)).sum()),
            classes=classes,
            metrics=tuple(dict.fromkeys((declared.tune.metric, *declared.metrics))),
            confidence=declared.evaluate.confidence,
        )

    def scores(self, life: Life) -> Floats:
        """What was answered in a life, NaN where a row was refused.

        Returns:
            Shape (n_rows, n_classes), or (n_rows,) for regression. A class that a model did not
            know had no chance: its probability is 0.
        """
        if self.classes is None:
            return np.concatenate([said.scores for said in life.said])
        found = np.zeros((len(self.target), len(self.classes)))
        for said in life.said:
            places = [self.classes.index(name) for name in said.classes or ()]
            found[said.rows, places] = said.scores
            found[said.rows][np.isnan(said.scores).any(axis=1)] = np.nan
        return found

    def played(self, policy: str, life: Life) -> Played:
        """Judge a life."""
        scores = self.scores(life)
        answered = _answered(scores)
        labelled = self.known & answered
        compared = [window for window in life.windows if window.state != "too_few_rows"]
        return Played(
            policy=policy,
            rows=int(answered.sum()),
            refused=int((~answered).sum()),
            labelled=int(labelled.sum()),
            metrics=estimates(self.metrics, self._rows(scores, labelled), self.confidence),
            trainings=life.trainings,
            windows=len(compared),
            suspect=tuple(window.start for window in compared if window.state == "suspect"),
            alarmed=tuple(window.start for window in compared if window.state == "alarm"),
            periods=tuple(self._periods(scores, labelled)),
        )

    def compared(self, ours: Life, other: str, theirs: Life) -> Compared:
        """Compare a life with another one, on the labelled rows that both have answered."""
        first, second = self.scores(ours), self.scores(theirs)
        both = self.known & _answered(first) & _answered(second)
        found = differences(
            self.metrics, self._rows(first, both), self._rows(second, both), self.confidence
        )
        gains = {metric: Gain.of(difference) for metric, difference in found.items()}
        return Compared(other=other, rows=int(both.sum()), gains=gains)

    def _rows(self, scores: Floats, chosen: Mask) -> Rows:
        target = self.target[chosen]
        return Rows(
            target if self.classes is None else target.astype("int64"), scores[chosen], self.classes
        )

    def _periods(self, scores: Floats, labelled: Mask) -> Iterable[Period]:
        steps = self.past.steps
        together = -(-len(steps) // _PERIODS)
        for number in range(0, len(steps), together):
            part = steps[number : number + together]
            start, end = part[0][0], part[-1][1]
            chosen = np.zeros(len(labelled), dtype=bool)
            within = self.past.between((start, end))
            chosen[within] = labelled[within]
            found = estimates(self.metrics[:1], self._rows(scores, chosen), self.confidence)
            value = found.get(self.metrics[0])
            yield Period(start=start, end=end, rows=int(chosen.sum()), value=value)


def _answered(scores: Floats) -> Mask:
    return np.asarray(np.isfinite(scores.reshape(len(scores), -1)).all(axis=1))


def _target(table: pa.Table, name: str, classes: tuple[str, ...] | None) -> Floats:
    """The target as numbers, NaN where it is missing or a class that no model knows."""
    kind = kind_of(table.schema.field(name).type)
    values = as_frame(table.select([name]), {name: kind or "number"})[name]
    if classes is None:
        numbers: Floats = values.to_numpy("float64", na_value=np.nan)
        return numbers
    codes = pd.Index(classes).get_indexer(class_names(values))
    return np.where(codes < 0, np.nan, codes)
