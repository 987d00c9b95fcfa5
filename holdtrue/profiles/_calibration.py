"""What a reference says about quiet windows: the usual differences, and the limits that follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from holdtrue.errors import MonitoringError
from holdtrue.profiles import _difference as difference
from holdtrue.profiles._difference import Measured, Test
from holdtrue.references import Reference

if TYPE_CHECKING:
    from pathlib import Path

    from holdtrue.profiles._profile import Column

CALIBRATION_FILE = "calibration.json"
P_LIMIT = 0.01
"""Acceptable chance that any test of a window is significant, if rows were independent."""
_UNSEEN_PART = 0.2  # of that chance; the other tests share the rest
# Smallest difference that counts, added to the spread of the quiet blocks: half a per cent of the
# rows or of a standard deviation; a tenth of a per cent for new labels, which are rarer.
_FLOOR: dict[Test, float] = {"location": 0.005, "levels": 0.005, "missing": 0.005, "unseen": 0.001}


def multiplier(test: Test, n_others: int, n_unseen: int) -> float:
    """What a p-value is multiplied by: the number of tests over their part of the chance."""
    return n_unseen / _UNSEEN_PART if test == "unseen" else n_others / (1 - _UNSEEN_PART)


class Effect(Reference):
    """The size of one difference in quiet blocks."""

    median: float
    q90: float

    def standardise(self, test: Test, value: float) -> float:
        """A size in units of the quiet blocks: 0 is their median, 1 about their 90 % level."""
        return (value - self.median) / self.unit(test)

    def unit(self, test: Test) -> float:
        """The size of an effect of 1 above the median."""
        return self.q90 - self.median + _FLOOR[test]

    def invert(self, test: Test, effect: float) -> float:
        """The size that has this effect."""
        return self.median + effect * self.unit(test)


class ColumnCalibration(Reference):
    """The reference of one column, and how far quiet blocks lie from the others."""

    name: str
    kind: Literal["numeric", "categorical"]
    rows: int
    missing: int
    deviation: float = 0.0
    """For numbers: standard deviation."""
    quantiles: tuple[float, ...] = ()
    """For numbers: 401 quantiles."""
    levels: dict[str, int] | None = None
    """For categories with at most 500 labels: rows by label."""
    buckets: tuple[int, ...] = ()
    """For other categories: rows by hash of the label."""
    effects: dict[Test, Effect] = Field(default_factory=dict)
    """The tests that are made, with the sizes seen in quiet blocks."""
    unseen_limit: float = 0.0
    """Share of unseen labels that is an alarm at once."""
    may_be_empty: bool = False
    """Whether some quiet block had no value at all."""

    def measure(self, column: Column) -> dict[Test, Measured]:
        """Compare rows with the reference.

        Args:
            column: The same column in a window's profile.
        """
        found = {
            "missing": difference.missing(self.rows, self.missing, column.rows, column.missing)
        }
        if self.kind == "numeric":
            found["location"] = difference.location(
                np.asarray(self.quantiles),
                self.rows - self.missing,
                self.deviation,
                column.quantiles,
                column.present if len(column.quantiles) else 0,
            )
        elif self.levels is None:
            found["levels"] = difference.levels(np.asarray(self.buckets), column.buckets)
        else:
            known = np.fromiter(self.levels.values(), dtype=np.int64, count=len(self.levels))
            seen = column.levels or {}
            counts = np.asarray([seen.get(label, 0) for label in self.levels], dtype=np.int64)
            n_unknown = max(0, column.present - int(counts.sum()))
            found["levels"] = difference.levels(np.append(known, 0), np.append(counts, n_unknown))
            found["unseen"] = difference.unseen(known, counts, n_unknown)
        return {test: found[test] for test in self.effects}


class Calibration(Reference):
    """Everything that a window is compared with."""

    rows: int
    """Rows of the reference."""
    blocks: int
    """Blocks of the reference that the limits come from."""
    block_rows: int
    """Rows of the median block."""
    by_time: bool
    """Whether blocks are stretches of time; random rows otherwise."""
    suspect_limit: float
    """A window with a significant difference and an effect above this is suspect."""
    alone_limit: float
    """A window with an effect above this is suspect in any case."""
    expected_alarms: float
    """False drift alarms to expect in the declared period, at most."""
    false_alarms: str
    """What was declared, such as ``1 per 30d``."""
    columns: tuple[ColumnCalibration, ...]

    def adjust(self, test: Test, p_value: float) -> float:
        """Multiply a p-value by the number of tests (Bonferroni): below 0.01 is significant."""
        n_unseen = sum("unseen" in column.effects for column in self.columns)
        n_others = sum(len(column.effects) for column in self.columns) - n_unseen
        return min(1.0, p_value * multiplier(test, n_others, n_unseen))

    def widening(self, rows: int) -> float:
        """Factor for the limits of windows smaller than the blocks, whose chance noise is larger.

        Noise of shares and quantiles falls with the root of the rows.
        """
        return max(1.0, float(np.sqrt(self.block_rows / max(rows, 1))))

    @classmethod
    def read(cls, folder: Path) -> Calibration:
        """Read the calibration of a reference profile.

        Args:
            folder: Where `reference` wrote it.

        Raises:
            MonitoringError: It is missing or damaged.
        """
        path = folder / CALIBRATION_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as err:
            message = f"the calibration {path} cannot be read: {err.strerror or err}"
            raise MonitoringError(message, hint="train the model again") from err
        except ValueError as err:
            message = f"the calibration {path} is damaged"
            raise MonitoringError(message, hint="train the model again") from err
