"""Compares a window of served rows with the reference that its model was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from holdtrue.profiles import MIN_ROWS, P_LIMIT, Column
from holdtrue.references import ColumnDrift, WindowCheck

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from holdtrue.profiles import Calibration, ColumnCalibration, Measured, Profile, Test

_SHOWN = 10
_BY_CHANCE = 1e-6  # an empty column is an alarm where chance would not leave it empty
BROKEN_SHARE = 0.5
"""With more unseen labels than this, a column is broken rather than drifting."""


@dataclass(frozen=True)
class _Found:
    """The largest difference of one column."""

    column: str
    test: str
    effect: float
    size_effect: float
    p_value: float
    text: str
    alarm: bool = False

    def suspect(self, limit: float, alone_limit: float) -> bool:
        significant = self.p_value < P_LIMIT and self.effect > limit
        return self.alarm or significant or self.size_effect > alone_limit


def compare(
    calibration: Calibration,
    window: Profile,
    start: datetime,
    end: datetime,
    in_a_row_before: int,
    tolerance: Mapping[str, float | None] | None = None,
) -> WindowCheck:
    """Compare one window with the reference.

    A window is suspect if some column differs significantly (p-values of Kolmogorov-Smirnov,
    chi-square, two-proportion and Poisson tests, adjusted for their number) and by more than
    quiet windows do, or if it differs by more than three times the largest quiet difference. It is
    an alarm by itself if a column is not there, is empty, or has too many values never seen.

    Args:
        calibration: What `holdtrue.profiles.reference` learnt from the training rows.
        window: Profile of the window's rows.
        start: Begin of the window (inclusive).
        end: End of the window (exclusive).
        in_a_row_before: Suspect windows in a row just before this one, of the same model.
        tolerance: By column: how many times as much as the limits is still taken for quiet, above
            0; None where only its absence counts. 1 where left out.

    Returns:
        The check. Windows of fewer than 200 rows are not judged (``too_few_rows``): merge their
        profile into that of the next window.
    """
    widening = calibration.widening(window.rows)
    limit, alone_limit = calibration.suspect_limit * widening, calibration.alone_limit * widening
    if window.rows < MIN_ROWS:
        return WindowCheck(
            start=start,
            end=end,
            rows=window.rows,
            state="too_few_rows",
            effect=0.0,
            effect_limit=limit,
            p_value=1.0,
            p_limit=P_LIMIT,
            columns=(),
            in_a_row=in_a_row_before,
            detail=f"{window.rows:,} rows; at least {MIN_ROWS} are needed for a comparison",
        )
    tolerated = tolerance or {}
    each = (
        _column(calibration, column, window, limit, tolerated.get(column.name, 1.0))
        for column in calibration.columns
    )
    found = [one for one in each if one is not None]
    suspects = [one for one in found if one.suspect(limit, alone_limit)]
    broken = [one for one in found if one.alarm]
    found.sort(key=lambda one: (one.alarm, one in suspects, one.effect), reverse=True)
    state = "alarm" if broken else "suspect" if suspects else "quiet"
    return WindowCheck(
        start=start,
        end=end,
        rows=window.rows,
        state=state,
        effect=max((one.effect for one in found), default=0.0),
        effect_limit=limit,
        p_value=min((one.p_value for one in found), default=1.0),
        p_limit=P_LIMIT,
        columns=tuple(
            ColumnDrift(column=one.column, effect=one.effect, test=one.test, p_value=one.p_value)
            for one in found
        ),
        in_a_row=in_a_row_before + 1 if suspects else 0,
        detail=_detail(found, len(suspects)),
    )


def _detail(found: list[_Found], n_suspects: int) -> str:
    if n_suspects:
        return "; ".join(one.text for one in found[: min(n_suspects, _SHOWN)])
    if not found:
        return "no column is compared"
    most = max(found, key=lambda one: one.effect)
    return f"nothing unusual; most different: {most.text}"


def _column(
    calibration: Calibration,
    reference: ColumnCalibration,
    window: Profile,
    limit: float,
    tolerance: float | None,
) -> _Found | None:
    column = window.column(reference.name)
    broken = None
    if column is None:
        column = Column(window.rows, window.rows, 0.0, np.empty(0), {}, np.empty(0, np.int64))
        broken = "absent"
    elif column.present == 0:
        share = reference.missing / reference.rows
        by_chance = reference.may_be_empty or share**column.rows > _BY_CHANCE
        broken = None if by_chance else "empty"
    if tolerance is None and broken is None:
        return None
    return _judge(calibration, reference, column, limit, broken, tolerance or 1.0)


def _judge(
    calibration: Calibration,
    reference: ColumnCalibration,
    column: Column,
    limit: float,
    broken: str | None,
    tolerance: float,
) -> _Found:
    name = reference.name
    measured = reference.measure(column)
    effects = {
        test: reference.effects[test].standardise(test, one.value) for test, one in measured.items()
    }
    p_values = {test: calibration.adjust(test, one.p_value) for test, one in measured.items()}
    sizes = [effect for test, effect in effects.items() if test != "unseen"]
    # Of the tests that are significant, the largest effect; of all where none is.
    significant = [test for test in effects if p_values[test] < P_LIMIT]
    top = max(significant or effects, key=lambda test: effects[test])
    unseen = measured["unseen"].value if "unseen" in measured else 0.0
    strange = unseen > reference.unseen_limit * tolerance and p_values["unseen"] < P_LIMIT
    test: str = top
    text = _text(reference, column, top, measured[top], limit * tolerance)
    if broken == "absent":
        test, text = broken, f"{name} is not in the rows"
    elif broken == "empty":
        test, text = broken, f"{name} is empty in all {column.rows:,} rows"
    elif strange:
        test = "broken" if unseen > BROKEN_SHARE else "unseen"
        text = (
            f"{unseen:.1%} of the rows have a value of {name} that was never seen in training "
            f"(limit {reference.unseen_limit * tolerance:.1%})"
        )
    return _Found(
        column=name,
        test=test,
        effect=effects[top] / tolerance,
        size_effect=max(sizes) / tolerance,
        p_value=min(p_values.values()),
        text=text,
        alarm=broken is not None or strange,
    )


def _text(
    reference: ColumnCalibration, column: Column, test: Test, measured: Measured, limit: float
) -> str:
    name = reference.name
    bound = reference.effects[test].invert(test, limit)
    if test == "location":
        return f"{name} moved by {measured.value:.2f} standard deviations (limit {bound:.2f})"
    if test == "levels":
        return f"{measured.value:.1%} of the rows changed their {name} (limit {bound:.1%})"
    if test == "missing":
        before = reference.missing / reference.rows
        now = column.missing / column.rows
        return (
            f"{name} is missing in {now:.1%} of the rows, before {before:.1%} (limit +-{bound:.1%})"
        )
    return (
        f"{measured.value:.1%} of the rows have a value of {name} that was never seen in training "
        f"(limit {bound:.1%})"
    )
