"""What the monitor saw, and what it decided."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from holdtrue.references._evaluation import Estimate
from holdtrue.references._reference import Reference


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
    """One of the metrics; or ``known_classes``, the share of labels of classes that it knows."""
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


class SliceQuality(Reference):
    """The quality of those labelled rows that have one value of a column."""

    version: int
    metric: str
    column: str
    """One of ``evaluate.slices``."""
    slice: str
    """The value."""
    rows: int
    start: datetime
    end: datetime
    value: Estimate
    expected: float
    """Value of the same slice in the evaluation of that version."""
    limit: float
    worse: bool
    """Whether it is surely beyond the limit, however many slices were looked at."""
    detail: str


class ColumnShift(Reference):
    """How much more or less one column adds to the scores than it did on the test rows."""

    column: str
    output: str | None
    """Whose score: the second of two classes, one of more, or None (a regression)."""
    shift: float
    """Of its mean Shapley value; those of all columns add up to the shift of the mean score."""
    effect: float
    """The shift in standard deviations between stretches of the test rows."""
    expected_share: float
    """Its share in the mean absolute Shapley values on the test rows, 0..1."""
    share: float
    """The same now."""


class AttributionCheck(Reference):
    """What makes up the scores of a window's rows, beside what did on the test rows."""

    version: int
    rows: int
    """Those that were looked at: 2,000 at most."""
    start: datetime
    end: datetime
    unit: str
    """Of scores and shifts."""
    scores: dict[str, tuple[float, float]]
    """By output, or the target's name: the mean score on the test rows, and now; not calibrated."""
    effect: float
    """The largest of all columns."""
    limit: float
    """The largest of stretches of the test rows."""
    moved: bool
    """Whether it is beyond the limit."""
    columns: tuple[ColumnShift, ...]
    """The 10 largest shifts, first the largest."""
    detail: str


class EstimatedQuality(Reference):
    """What the quality of served predictions probably is, by their probabilities alone."""

    version: int
    metric: str
    of: Literal["window", "unlabelled"]
    """A window that was compared; or all rows whose labels are not due yet."""
    rows: int
    start: datetime
    end: datetime
    value: Estimate
    expected: float
    """Value in the evaluation of that version."""
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
    slices: tuple[SliceQuality, ...] = ()
    """The quality by slice, on the rows of `performance`: the 20 that lost most, first the most."""
    attribution: tuple[AttributionCheck, ...] = ()
    """Of each window compared in this run, oldest first; it decides nothing. Empty for models that
    are not explained, and for versions evaluated before it could be said."""
    estimated: tuple[EstimatedQuality, ...] = ()
    """Of each window compared in this run, oldest first, then of all rows without labels; it
    decides nothing. Empty for regression, and for versions evaluated before it could be said."""
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
