"""What is known of a model's quality, and what the gates made of it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from holdtrue.references._reference import Digest, Reference


class Estimate(Reference):
    """A metric with its interval."""

    value: float
    low: float
    high: float


class SliceResult(Reference):
    """The metrics of the rows that have one value of a column."""

    rows: int
    metrics: dict[str, Estimate]
    """Metrics that cannot be computed (one class only, too few rows) are left out."""


class PartResult(Reference):
    """The metrics of a part of the test rows, which a fit of all rows before it has answered."""

    since: datetime
    """First moment of the part."""
    learnt: int
    """Rows that the fit has learnt from."""
    rows: int
    metrics: dict[str, Estimate]
    """Metrics that cannot be computed (one class only, too few rows) are left out."""
    champion: dict[str, float] = {}
    """The same of the champion, as far as it had learnt by then; empty where it cannot be said."""


class Difference(Reference):
    """Candidate minus champion on the same rows, signed so that positive is better."""

    metric: str
    candidate: float
    champion: float
    gain: float
    low: float
    high: float
    """Two-sided interval of the gain at the declared confidence."""
    probability: float
    """Probability that the candidate is better, from paired differences; 0.5 where equal."""


class Gain(Reference):
    """One beside another on the same rows, signed so that positive is better."""

    value: float
    """The metric of the one."""
    other: float
    """The metric of the other."""
    gain: float
    low: float
    high: float
    """Two-sided interval of the gain."""

    @classmethod
    def of(cls, difference: Difference) -> Gain:
        """What a difference says of any two."""
        return cls(
            value=difference.candidate,
            other=difference.champion,
            gain=difference.gain,
            low=difference.low,
            high=difference.high,
        )

    def verdict(self, unclear: str) -> str:
        """Whether the one is better, with the interval of the gain.

        Args:
            unclear: What is said where the interval contains 0.
        """
        interval = f"{self.low:.3g} to {self.high:.3g}"
        if self.low > 0:
            return f"better by {self.gain:.3g} ({interval})"
        if self.high < 0:
            return f"worse by {-self.gain:.3g} ({-self.high:.3g} to {-self.low:.3g})"
        return f"{unclear}: the interval of the gain contains 0 ({interval})"


class Curves(Reference):
    """Points for plots. Empty where they do not apply to the task."""

    roc: tuple[tuple[float, float], ...] = ()
    """(false positive rate, true positive rate), binary tasks."""
    precision_recall: tuple[tuple[float, float], ...] = ()
    """(recall, precision), binary tasks."""
    calibration: tuple[tuple[float, float, int], ...] = ()
    """(mean predicted probability, observed share, rows) by tenth of the rows, classification; of
    more than two classes all, each against the rest."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Rows: true class, columns: most probable class; classification."""
    residuals: tuple[tuple[float, float], ...] = ()
    """(predicted, true) of at most 1,000 rows, regression."""


class Calibrated(Reference):
    """What calibration does to the probabilities of unseen rows."""

    method: Literal["isotonic", "sigmoid"]
    rows: int
    """Training rows that it was learnt on."""
    uncorrected: tuple[str, ...] = ()
    """Classes with too few rows to learn it: their probabilities are as they were."""
    before: dict[str, float]
    """log_loss, brier, and calibration_error: mean distance of predicted and observed share."""
    after: dict[str, float]
    curve: tuple[tuple[float, float, int], ...]
    """As the curve of calibration, before it."""


class Decisions(Reference):
    """What the answered classes cost on unseen rows, by the declared costs."""

    costs: tuple[tuple[float, ...], ...]
    """By true class, then decided class."""
    threshold: float | None
    """Above which probability the second of two classes is answered."""
    cost: Estimate
    """Mean of a row."""
    most_probable: Estimate
    """The same of answering the most probable class."""
    gain: Estimate
    """How much less a row costs than by the most probable class."""
    confusion: tuple[tuple[int, ...], ...]
    """Rows: true class, columns: decided class."""


class Coverage(Reference):
    """How often the truth of unseen rows is in the answered interval."""

    share: float
    """How often was declared, 0..1."""
    covered: Estimate
    below: float
    """Share of rows whose truth is below the interval."""
    above: float
    width: float
    """Mean width, in the unit of the target."""


class Expectation(Reference):
    """How a metric follows from probabilities alone, before the truth of their rows is known."""

    curves: tuple[tuple[float, float], ...]
    """a and b of Platt's curve 1 / (1 + exp(a f + b)) over the log-odds f of each class against the
    rest, which the truth follows on the test rows; of two classes that of the second."""
    spread: dict[str, float]
    """By metric: standard deviation between expected and real values of stretches of the test rows,
    beyond chance."""


class ColumnAttribution(Reference):
    """What one column adds to the scores of the test rows."""

    means: tuple[float, ...]
    """By output: its mean Shapley value."""
    spreads: tuple[float, ...]
    """By output: standard deviation of that between stretches of the test rows; at least a
    hundredth of what all columns together move a score on average."""
    share: float
    """Its share in the mean absolute Shapley values, 0..1."""


class Attribution(Reference):
    """What makes up a model's scores on the test rows."""

    unit: str
    """Of scores and Shapley values: ``log-odds``, ``probability``, or that of the target."""
    outputs: tuple[str | None, ...]
    """What is explained: the second of two classes, each of more, or None (a regression)."""
    scores: tuple[float, ...]
    """By output: the mean score, not calibrated."""
    columns: dict[str, ColumnAttribution]
    """By column, original or derived; the largest share first."""
    limit: float
    """How many spreads the mean of any column was away in any stretch of the test rows, at most."""
    stretches: int


class Evaluation(Reference):
    """How good a model is on rows that it has never seen."""

    model: Digest
    rows: int
    """Without those of classes that it could not learn."""
    classes: tuple[str, ...] | None
    confidence: float
    metrics: dict[str, Estimate]
    baseline: dict[str, float]
    """The same metrics of always answering the training shares, or the training mean."""
    over_baseline: dict[str, Difference] = {}
    """By metric: how much better it is than that."""
    slices: dict[str, dict[str, SliceResult]]
    """By column, then by value."""
    parts: tuple[PartResult, ...] = ()
    """With `evaluate.rolling`, in order of time."""
    champion: int | None = None
    """Version that it was compared with."""
    champion_refitted: bool = False
    """Whether that was its fit before the refit, rather than what it serves."""
    differences: dict[str, Difference] = {}
    """By metric; empty where there is no champion, or none that can be compared."""
    champion_lacks: tuple[str, ...] = ()
    """Classes that this model knows, and the champion does not."""
    champion_only: tuple[str, ...] = ()
    """Classes that the champion knows, and this model does not."""
    untaught: dict[str, tuple[int, int]] = {}
    """By class with too few training rows to learn it: how many there are, and how many test
    rows, which no metric counts."""
    curves: Curves = Curves()
    importance: dict[str, float] = {}
    """By feature, most important first: how much the metric worsens when it is shuffled."""
    calibrated: Calibrated | None = None
    decisions: Decisions | None = None
    coverage: Coverage | None = None
    expectation: Expectation | None = None
    """Of classification; None where there were too few rows, and in old records."""
    attribution: Attribution | None = None
    """Of the fit on the training rows; None where there were too few rows, for models that are not
    explained, and in old records."""

    @property
    def compared_rows(self) -> int:
        """Rows on which it was compared with the champion, who may know more classes."""
        return self.rows + sum(
            self.untaught[n][1] for n in self.champion_only if n in self.untaught
        )

    @property
    def left_out(self) -> str:
        """Which test rows no metric counts, and why, in words; empty where there are none."""
        return "; ".join(
            f"{test:,} test row{'s are' if test > 1 else ' is'} of class {name}, of which "
            f"{f'only {train}' if train else 'no'} training row{'s are' if train > 1 else ' is'}: "
            "this model cannot be right about such rows, which are left out of the metrics"
            for name, (train, test) in self.untaught.items()
            if test
        )


class Judgement(Reference):
    """The verdict of one gate, with its numbers."""

    gate: str
    """Such as ``roc_auc at least 0.7``."""
    passed: bool
    reason: str


class Verdict(Reference):
    """Whether a model may be promoted, and why."""

    passed: bool
    judgements: tuple[Judgement, ...]
    reason: str
