from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdtrue.trial_times import _lanes, trial_times
from holdtrue.tuning._log import Asked, StudyLog
from holdtrue.tuning._types import Outcome

AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_trials_of_a_log_are_placed_by_what_they_took(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    before = datetime.now(UTC)
    with StudyLog(path, "s", "lower", {}) as log:
        log.ask([Asked(0, {}, {}), Asked(1, {}, {}), Asked(2, {}, {})])
        time.sleep(0.3)
        log.tell([(0, Outcome("complete", 0.5, 0.2, 0.1))], 1.0)
        log.tell([(1, Outcome("failed", None, 60.0, 0.25, reason="no"))], 1.0)
    longer, short = trial_times(path, before)
    assert (short.number, short.state, short.cpu_seconds) == (0, "complete", 0.1)
    assert (short.ended - short.began).total_seconds() == pytest.approx(0.2)
    # No earlier than it was chosen, whatever its worker says.
    assert (longer.number, longer.state) == (1, "failed")
    assert before <= longer.began < short.began
    assert {longer.lane, short.lane} == {0, 1}
    assert trial_times(path, datetime.now(UTC)) == []


def test_a_broken_log_has_no_trials(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    path.write_text("no log\n")
    assert trial_times(path, AT) == []
    assert trial_times(tmp_path / "none.log", AT) == []


def test_what_runs_side_by_side_has_lanes_of_its_own() -> None:
    def span(begin: float, end: float) -> tuple[datetime, datetime]:
        return AT + timedelta(seconds=begin), AT + timedelta(seconds=end)

    spans = [span(0, 10), span(0, 2), span(1.9, 5), span(3, 4), span(6, 7)]
    assert _lanes(spans, None) == [0, 1, 1, 2, 1]
    assert _lanes(spans, 3) == [0, 1, 1, 2, 1]
    assert _lanes(spans, 2) == [0, 1, 1, 1, 1]
    assert _lanes([], 2) == []
