"""Pure functions from what was served to what is to be done: drift, performance, decision."""

from __future__ import annotations

from holdtrue.monitoring._compare import compare
from holdtrue.monitoring._decide import Before, History, decide
from holdtrue.monitoring._performance import (
    check_classes_known,
    check_performance,
    check_slices,
)

__all__ = [
    "Before",
    "History",
    "check_classes_known",
    "check_performance",
    "check_slices",
    "compare",
    "decide",
]
