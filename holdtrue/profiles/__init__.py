"""Profiles of rows (the only place that imports whylogs) and the limits calibrated on them."""

from __future__ import annotations

from holdtrue.profiles._blocks import MIN_ROWS
from holdtrue.profiles._calibration import (
    CALIBRATION_FILE,
    P_LIMIT,
    Calibration,
    ColumnCalibration,
    Effect,
)
from holdtrue.profiles._difference import Measured, Test
from holdtrue.profiles._limits import IN_A_ROW
from holdtrue.profiles._normalise import until_event
from holdtrue.profiles._profile import Column, Profile
from holdtrue.profiles._reference import PROFILE_FILE, SUMMARY_FILE, reference

__all__ = [
    "CALIBRATION_FILE",
    "IN_A_ROW",
    "MIN_ROWS",
    "PROFILE_FILE",
    "P_LIMIT",
    "SUMMARY_FILE",
    "Calibration",
    "Column",
    "ColumnCalibration",
    "Effect",
    "Measured",
    "Profile",
    "Test",
    "reference",
    "until_event",
]
