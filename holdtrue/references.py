"""What steps take and return: small frozen objects that point to data, never the data."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["integer", "number", "string", "boolean", "time"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Reference(BaseModel):
    """A small frozen object that can be written as JSON and read back equal."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Snapshot(Reference):
    """One version of the system's table: what was extracted."""

    table: str
    """Folder of the Delta table, relative to the store."""
    version: int
    """Version of the Delta table."""
    digest: Digest
    """Digest of names, kinds and values."""
    rows: int
    start: datetime | None
    """First moment of the window (inclusive); None where the declaration has no time column."""
    end: datetime | None
    """End of the window (exclusive)."""
    columns: dict[str, Kind]


class Finding(Reference):
    """The result of one rule of the contract."""

    rule: str
    """Such as ``distance: min 1``."""
    column: str | None
    passed: bool
    blocking: bool
    """Whether a failure stops the training; others are warnings."""
    rows: int = 0
    """Rows that break the rule."""
    detail: str = ""
    """What was found, in words."""


class DataCheck(Reference):
    """What the contract said about a snapshot, and which rows are left to learn from."""

    rows: int
    """Rows of the snapshot."""
    unlabelled: int
    """Rows without a target; not learnt from."""
    quarantined: int
    """Rows that break a rule; set aside."""
    quarantine: str | None
    """Parquet file with the quarantined rows and reasons, relative to the store."""
    kept: str
    """Parquet file with the rows to learn from, relative to the store."""
    kept_rows: int
    asked: str
    """Parquet file with the feature columns (and the time) of every sound row, labelled or not:
    what a served model would have been asked. Relative to the store."""
    findings: tuple[Finding, ...]
    numeric: tuple[str, ...]
    """Feature columns used as numbers."""
    categorical: tuple[str, ...]
    """Feature columns used as categories."""
    temporal: tuple[str, ...] = ()
    """Feature columns used as times."""
    classes: tuple[str, ...] | None
    """Names of the classes, sorted; None for regression."""

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The rules that stop the training."""
        return tuple(found for found in self.findings if found.blocking and not found.passed)


class ColumnSummary(Reference):
    """One column in numbers, for reports."""

    kind: Literal["numeric", "categorical"]
    missing: float
    """Share of missing values, 0..1."""
    quantiles: tuple[float, ...] = ()
    """For numbers: 201 quantiles from the smallest to the largest value."""
    levels: dict[str, int] = {}
    """For categories: the most frequent values with their counts, most frequent first."""
    distinct: float = 0.0
    """Estimated number of distinct values."""


class ProfileRef(Reference):
    """A whylogs profile of rows on disk, with the alarm thresholds calibrated on it."""

    path: str
    """Folder with profile.bin, summary.json and calibration.json, relative to the store."""
    digest: Digest
    rows: int
    blocks: int
    """Blocks of the monitoring window's length that the thresholds were calibrated on."""
    columns: dict[str, ColumnSummary]


class Split(Reference):
    """Which rows are trained on and which are only tested on."""

    train: str
    """Parquet file, relative to the store."""
    test: str
    """Parquet file, relative to the store."""
    train_rows: int
    test_rows: int
    boundary: datetime | None
    """First moment of the test rows, where the split follows time."""
    target_share: dict[str, tuple[float, float]]
    """For classification, by class: share of it in the training and in the test rows."""


Origin = Literal["sampler", "champion", "earlier", "default"]


class Trial(Reference):
    """One setting that was tried."""

    number: int
    candidate: str
    """Label of the candidate: the import path of its estimator, numbered where it occurs twice."""
    params: dict[str, Any]
    """The searched arguments."""
    state: Literal["complete", "pruned", "failed"]
    """``pruned``: ended early because it was worse than others."""
    value: float | None
    """Mean of the metric over the folds; of a pruned trial the last one that it reported."""
    fold_values: tuple[float, ...] = ()
    """The metric on each fold; as many as were finished."""
    reports: tuple[tuple[int, float], ...] = ()
    """(step, value) on the way: boosting rounds or folds that were done, and the metric then."""
    ladder: Literal["rounds", "folds", "steps"] | None = None
    """What the steps of its reports count; None where it made none."""
    share: float = 1.0
    """Share of its work that was done, 0..1."""
    seconds: float
    """Wall time in its worker."""
    cpu_seconds: float = 0.0
    """CPU time of its worker."""
    reason: str | None = None
    """Why it failed."""
    costs: dict[str, float] = {}
    """By name, where it is asked for: what its models cost those who use them."""
    within_limits: bool = True
    """Whether it costs no more than is declared."""
    origin: Origin = "sampler"
    """Where the setting comes from; ``default``: the middle of a candidate's space."""

    @property
    def saved_cpu_seconds(self) -> float:
        """CPU time that ending it early saved, taken as proportional to the work left undone."""
        return self.cpu_seconds * (1 / self.share - 1) if 0 < self.share < 1 else 0.0


class Study(Reference):
    """A search for the best setting."""

    metric: str
    direction: Literal["higher", "lower"]
    trials: tuple[Trial, ...]
    """Finished ones, by number."""
    best: int
    """Number of the trial whose setting is refitted."""
    choice: str | None = None
    """Why it is not the one with the best metric, in words."""
    folds: int
    sample_rows: int
    """Training rows that trials saw."""
    seconds: float
    """Wall time of the search, over all runs that it took."""
    workers: int
    """Trials at a time."""
    log: str
    """The study as an Optuna journal file, relative to the store."""
    stopped: str
    """What ended the search, in words."""
    sampler: str = "tpe"
    pruner: str | None = None
    """Name of the rule; None where no trial was ended early."""
    seed: int = 0
    deterministic: bool = False
    notes: tuple[str, ...] = ()
    """What a reader should know: settings of earlier studies that were clipped or dropped, say."""

    def to_frame(self) -> pd.DataFrame:
        """The trials as a table, by number.

        Columns: their fields, ``params_<name>``, ``costs_<name>``, ``step`` of the last report.
        """
        import pandas as pd

        rows = [
            trial.model_dump(exclude={"fold_values", "reports"})
            | {"step": trial.reports[-1][0] if trial.reports else None}
            for trial in self.trials
        ]
        return pd.json_normalize(rows, sep="_").set_index("number").astype({"step": "Int64"})

    @property
    def best_trial(self) -> Trial:
        """The trial whose setting is refitted."""
        return next(trial for trial in self.trials if trial.number == self.best)

    @property
    def saved_cpu_seconds(self) -> float:
        """CPU time that ending trials early saved."""
        return sum(trial.saved_cpu_seconds for trial in self.trials if trial.state == "pruned")


class Compilation(Reference):
    """Whether a model answers without pandas and scikit-learn, and how that was proven."""

    compiled: bool
    """Whether the compiled scorer serves; else the pipeline itself."""
    reason: str | None = None
    """Why the pipeline serves, in words."""
    rows: int = 0
    """Rows that both have answered: of the training, at the thresholds of the trees, with nulls,
    with known and unknown categories."""
    splits: int = 0
    """Thresholds of the trees."""
    split_rows: int = 0
    """Those of the rows that were made to lie at a threshold or one step beside it."""
    unreachable: int = 0
    """Thresholds that no row can get to."""
    max_difference: float | None = None
    """Largest difference of two answers; None where they were not compared."""
    identical: bool = True
    """Whether the compiled scorer gives the same bits one by one and in batches of any size."""

    def __str__(self) -> str:
        if not self.compiled:
            return f"not compiled, so the pipeline itself answers: {self.reason}"
        return (
            f"compiled, and proven equal to the pipeline on {self.rows:,} rows: the largest "
            f"difference is {self.max_difference:.2g}"
        )


class ModelRef(Reference):
    """A fitted model: a bundle on disk."""

    bundle: str
    """Folder of the bundle, relative to the store."""
    digest: Digest
    """Digest of the bundle's manifest."""
    estimator: str
    params: dict[str, Any]
    rows: int
    """Training rows that it has learnt from."""
    shards: int = 1
    """Processes that trained together, each on a part of the rows."""
    seconds: float
    """Wall time of the fit."""
    compilation: Compilation | None = None
    """Whether it is compiled; None for one of an earlier time."""


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


class Evaluation(Reference):
    """How good a model is on rows that it has never seen."""

    model: Digest
    rows: int
    classes: tuple[str, ...] | None
    confidence: float
    metrics: dict[str, Estimate]
    baseline: dict[str, float]
    """The same metrics of always answering the training shares, or the training mean."""
    slices: dict[str, dict[str, SliceResult]]
    """By column, then by value."""
    champion: int | None = None
    """Version that it was compared with."""
    differences: dict[str, Difference] = {}
    """By metric; empty where there is no champion."""
    curves: Curves = Curves()
    importance: dict[str, float] = {}
    """By feature, most important first: how much the metric worsens when it is shuffled."""
    calibrated: Calibrated | None = None
    decisions: Decisions | None = None
    coverage: Coverage | None = None


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


class Version(Reference):
    """A model in the registry."""

    system: str
    number: int
    digest: Digest
    """Digest of the model's bundle."""
    promoted: bool
    """Whether this registration made it the champion."""
    reason: str


class Release(Reference):
    """What is served."""

    system: str
    version: int
    digest: Digest
    endpoint: str
    """URL that predictions are posted to."""


class ColumnDrift(Reference):
    """How one column differs from the reference in one window."""

    column: str
    effect: float
    """The largest of its standardised effects; 1 is the 90 % level of quiet blocks."""
    test: str
    """Which effect or test that is: location, levels, missing, unseen."""
    p_value: float
    """The smallest p-value of the column's tests."""


class WindowCheck(Reference):
    """The comparison of one window with the reference."""

    start: datetime
    end: datetime
    rows: int
    state: Literal["quiet", "suspect", "alarm", "too_few_rows"]
    """``alarm``: so broken that one window is enough (column missing, many unseen values)."""
    effect: float
    """Largest standardised effect over columns."""
    effect_limit: float
    """Calibrated limit for it."""
    p_value: float
    """Smallest p-value over columns."""
    p_limit: float
    columns: tuple[ColumnDrift, ...]
    """The most different first; the 10 first of them in a report."""
    in_a_row: int
    """Suspect windows in a row up to this one."""
    detail: str
    """What was seen, in words."""


class PerformanceCheck(Reference):
    """The quality of served predictions whose labels have arrived."""

    version: int
    metric: str
    rows: int
    start: datetime
    end: datetime
    value: Estimate
    expected: float
    """Value in the evaluation of that version."""
    limit: float
    worse: bool
    """Whether even the favourable end of the interval is beyond the limit."""
    detail: str


class Decision(Reference):
    """What the monitor decided, and why."""

    at: datetime
    action: Literal["none", "warn", "retrain", "fix_data"]
    signals: tuple[Literal["drift", "performance", "data", "age", "schema"], ...] = ()
    held_back: str | None = None
    """Why a retraining that was called for is not started: cooldown, budget, manual."""
    reason: str
    """In words: what was seen, against which limit, and what follows."""
    seen: dict[str, str] = {}
    """What windows showed to the last one, by ``drift`` or ``schema``: it holds until a later
    window is compared."""
    since: datetime | None = None
    """When that was first decided on."""


class DriftReport(Reference):
    """One run of the monitor."""

    system: str
    version: int
    at: datetime
    windows: tuple[WindowCheck, ...]
    """Windows compared in this run, oldest first."""
    performance: tuple[PerformanceCheck, ...]
    decision: Decision
    folded: int = 0
    """Captured rows that were moved into the table."""
    answered: int = 0
    """Requests that were answered until then, from the first one on."""
    refused: int = 0
    """The same of those that were refused for their content (400 and 422)."""
    lost: int = 0
    """Answered rows that could not be captured until then, from the first one on."""
    removed: int = 0
    """Captured rows that were older than ``serve.keep`` and were deleted."""
