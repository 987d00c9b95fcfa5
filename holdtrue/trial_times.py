"""When the trials of a search ran, from its log, and which of them ran side by side."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class TrialTime:
    """A finished trial in time."""

    number: int
    state: str
    """``complete``, ``pruned`` or ``failed``."""
    began: datetime
    """When its worker began with it, as far as the log says."""
    ended: datetime
    cpu_seconds: float
    lane: int
    """From 0. The log names no workers: it is the first lane that was free."""


def trial_times(log: Path, since: datetime) -> list[TrialTime]:
    """The finished trials of a search that ended at a moment or later, by when they began.

    A trial is written down when it is chosen, which may be long before a worker takes it, and once
    its result has come. It began so many seconds before the latter as its worker took.

    Returns:
        None at all where the log cannot be read.
    """
    from holdtrue.tuning._earlier import _read

    try:
        study, trials = _read(log)
    except Exception:  # noqa: BLE001 - a broken journal raises anything
        return []
    spans = []
    for trial in trials:
        start, end = trial.datetime_start, trial.datetime_complete
        if not trial.state.is_finished() or start is None or end is None:
            continue
        # Optuna gives moments of here without a zone.
        chosen, ended = start.astimezone(UTC), end.astimezone(UTC)
        took = timedelta(seconds=float(trial.user_attrs.get("seconds", 0.0)))
        if ended >= since:
            began = max(chosen, ended - took)
            cpu_s = float(trial.user_attrs.get("cpu_seconds", 0.0))
            spans.append((began, ended, trial.number, _STATES[trial.state.name], cpu_s))
    spans.sort()
    most = None if study is None else study.user_attrs.get("workers")
    lanes = _lanes([(began, ended) for began, ended, *_ in spans], most)
    return [
        TrialTime(number, state, began, ended, cpu_s, lane)
        for (began, ended, number, state, cpu_s), lane in zip(spans, lanes, strict=True)
    ]


_STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
# Results come a little late, so that trials of one worker seem to overlap: by at most so much, and
# by at most this share of the shorter one.
_SLACK = timedelta(seconds=0.25)
_SLACK_SHARE = 0.25


def _lanes(spans: Sequence[tuple[datetime, datetime]], most: int | None) -> list[int]:
    """For each span, in order of its begin, the first lane in which nothing else is then.

    Where there are `most` lanes already, it is the one that is free first: results of several short
    trials may come at once, and seem to overlap.
    """
    last: list[tuple[datetime, datetime]] = []
    lanes = []
    for began, ended in spans:
        lane = next((i for i, one in enumerate(last) if _follows(one, began, ended)), len(last))
        if lane == most:
            lane = min(range(lane), key=lambda i: last[i][1])
        last[lane : lane + 1] = [(began, ended)]
        lanes.append(lane)
    return lanes


def _follows(before: tuple[datetime, datetime], began: datetime, ended: datetime) -> bool:
    shorter = min(before[1] - before[0], ended - began)
    return before[1] - began <= min(_SLACK, _SLACK_SHARE * shorter)
