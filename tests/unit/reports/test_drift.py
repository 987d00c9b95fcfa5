from __future__ import annotations

from datetime import UTC, datetime, timedelta

from holdtrue.references import Decision, DriftReport, Estimate, PerformanceCheck
from holdtrue.reports._drift import _performance

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def look(number: int) -> DriftReport:
    """One of every hour."""
    at = BEGIN + number * HOUR
    check = PerformanceCheck(
        version=1 + (number >= 60),
        metric="log_loss",
        rows=500,
        start=at - 14 * 24 * HOUR,
        end=at,
        value=Estimate(value=float(number), low=0.0, high=100.0),
        expected=0.5,
        limit=0.55,
        worse=False,
        detail="",
    )
    return DriftReport(
        system="flights",
        version=1,
        at=at,
        windows=(),
        performance=(check,),
        decision=Decision(at=at, action="none", reason="nothing"),
    )


def test_of_many_looks_within_a_window_the_last_is_shown() -> None:
    shown = _performance([look(number) for number in range(72)], 24 * HOUR)
    assert [(check.version, check.value.value) for check in shown] == [
        (1, 23),
        (1, 47),
        (1, 59),  # the champion changed within the third day
        (2, 71),
    ]
    assert len(_performance([look(number) for number in range(72)], HOUR)) == 72
