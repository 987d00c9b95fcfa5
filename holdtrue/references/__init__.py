"""What steps take and return: small frozen objects that point to data, never the data."""

from holdtrue.references._data import (
    ColumnSummary,
    DataCheck,
    Finding,
    NewClass,
    ProfileRef,
    Snapshot,
    Split,
)
from holdtrue.references._drift import (
    ColumnDrift,
    Decision,
    DriftReport,
    PerformanceCheck,
    WindowCheck,
)
from holdtrue.references._evaluation import (
    Calibrated,
    Coverage,
    Curves,
    Decisions,
    Difference,
    Estimate,
    Evaluation,
    Gain,
    Judgement,
    SliceResult,
    Verdict,
)
from holdtrue.references._interval import Interval, ScoredInterval, moment_words
from holdtrue.references._model import (
    Compilation,
    ModelRef,
    Refit,
    Release,
    Version,
)
from holdtrue.references._reference import Digest, Kind, Reference
from holdtrue.references._study import Origin, Study, Trial

__all__ = [
    "Calibrated",
    "ColumnDrift",
    "ColumnSummary",
    "Compilation",
    "Coverage",
    "Curves",
    "DataCheck",
    "Decision",
    "Decisions",
    "Difference",
    "Digest",
    "DriftReport",
    "Estimate",
    "Evaluation",
    "Finding",
    "Gain",
    "Interval",
    "Judgement",
    "Kind",
    "ModelRef",
    "NewClass",
    "Origin",
    "PerformanceCheck",
    "ProfileRef",
    "Reference",
    "Refit",
    "Release",
    "ScoredInterval",
    "SliceResult",
    "Snapshot",
    "Split",
    "Study",
    "Trial",
    "Verdict",
    "Version",
    "WindowCheck",
    "moment_words",
]
