"""Rows that are scored without being asked for, interval by interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task
from prefect.logging import get_run_logger

from holdtrue.intervals import score_interval, words_of
from tasks._progress import Shown
from tasks._step import OPTIONS

if TYPE_CHECKING:
    from holdtrue.references import Interval, ScoredInterval
    from holdtrue.system import Run


@task(name="score", task_run_name="{interval}", **OPTIONS)
def score(run: Run, interval: Interval) -> ScoredInterval:
    """Score the rows of one interval with the champion, publish and record them."""
    told = score_interval(run.context(Shown(run.context().system)), interval)
    get_run_logger().info("%s", words_of(told))
    return told
