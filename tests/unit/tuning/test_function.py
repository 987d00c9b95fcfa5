"""What a function of the user's own may report and return; without Ray."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from holdtrue.declaration import Pruner
from holdtrue.errors import ConfigError
from holdtrue.tuning import search
from holdtrue.tuning._asker import Ready
from holdtrue.tuning._batch import Work, run_one
from holdtrue.tuning._function import FunctionObjective
from holdtrue.tuning._log import StudyLog
from holdtrue.tuning._types import Report, Setting

if TYPE_CHECKING:
    from pathlib import Path

    from holdtrue.tuning._types import Outcome


def tried(*reported: tuple[Any, Any]) -> Outcome:
    def function(params: dict[str, Any], report: Any) -> float:
        for step, value in reported:
            report(step, value)
        return 0.5

    work = Work(FunctionObjective(function, reports=True), "value", "lower", None, None)
    return run_one(work, Ready(0, Setting("function", {})))


@pytest.mark.parametrize("step", [3, np.int64(3), np.uint8(3), np.array(3)])
@pytest.mark.parametrize("value", [0.25, np.float32(0.25), np.float64(0.25)])
def test_a_report_is_kept_in_plain_numbers(tmp_path: Path, step: Any, value: Any) -> None:
    outcome = tried((step, value))
    assert outcome.state == "complete"
    (report,) = outcome.reports
    assert report == Report("steps", 3, 0.25)
    assert (type(report.step), type(report.value)) == (int, float)
    with StudyLog(tmp_path / "s.log", "s", "lower", {}) as log:
        log.tell([(0, outcome)], seconds=0.0)
    lines = (tmp_path / "s.log").read_text().splitlines()
    steps = [json.loads(line).get("step") for line in lines]
    assert 3 in steps


@pytest.mark.parametrize(
    ("step", "value", "reason"),
    [
        (1.5, 0.1, "the function reported at step 1.5, expected a whole number"),
        (np.float64(2.0), 0.1, "the function reported at step np.float64(2.0), expected a whole"),
        ("one", 0.1, "the function reported at step 'one', expected a whole number"),
        (2, "0.1", "the function reported str at step 2, expected a number"),
        (2, None, "the function reported NoneType at step 2, expected a number"),
        (2, float("nan"), "the function reported nan at step 2, expected a finite number"),
        (2, np.float32("inf"), "the function reported inf at step 2, expected a finite number"),
        (1, 0.1, "the function reported at step 1 after step 1: steps must rise"),
        (-4, 0.1, "the function reported at step -4 after step 1: steps must rise"),
    ],
)
def test_what_is_no_report_fails_the_trial(step: Any, value: Any, reason: str) -> None:
    outcome = tried((1, 0.2), (step, value))
    assert outcome.state == "failed"
    assert str(outcome.reason).partition(": ")[2].startswith(reason)


def refused(tmp_path: Path, space: Any, **rules: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        search(lambda params: 0.0, space, trials=2, log=tmp_path / "s.log", **rules)
    assert not (tmp_path / "s.log").exists()
    return caught.value.message


def test_a_rule_that_can_never_end_a_trial_is_refused(tmp_path: Path) -> None:
    space = {"x": {"int": [1, 3]}}
    said = refused(tmp_path, space, pruner=Pruner(rule="median"))
    assert said == "the pruner can never end a trial: the function reports nothing on its way"
    with pytest.raises(ConfigError, match="pruner wilcoxon compares folds, and a function reports"):
        search(
            lambda params, report: 0.0,
            space,
            trials=2,
            log=tmp_path / "s.log",
            pruner=Pruner(rule="wilcoxon"),
        )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"direction": "maximize"}, "direction: 'maximize', expected one of lower, higher"),
        ({"pruner": "median"}, "pruner: 'median', expected a holdtrue.declaration.Pruner such as"),
        ({"trials": "5"}, "trials: '5', expected a whole number, 1 or more"),
        ({"trials": 0}, "trials: 0, expected a whole number, 1 or more"),
        ({"parallel": 0}, "parallel: 0, expected a whole number, 1 or more"),
        ({"cpus": True}, "cpus: True, expected a whole number, 1 or more"),
        ({"timeout": 5}, "timeout: 5, expected a timedelta such as timedelta(minutes=10)"),
        ({"timeout": timedelta(0)}, "timeout: 0:00:00, expected more than nothing"),
        ({"space": {"x": [0, 1]}}, "the space of x: [0, 1], expected a mapping such as"),
        (
            {"space": {"x": {"flot": [0, 1]}}},
            "the space of x cannot be searched: there is no flot; did you mean float?",
        ),
    ],
)
def test_an_argument_that_is_none_is_refused(
    tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    known = {"space": {"x": {"float": [0, 1]}}, "trials": 2, "log": tmp_path / "s.log"}
    with pytest.raises(ConfigError) as caught:
        search(lambda params: 0.0, **(known | given))
    assert caught.value.message.startswith(said)
    assert not (tmp_path / "s.log").exists()


def test_a_grid_needs_values_that_can_be_counted(tmp_path: Path) -> None:
    said = refused(tmp_path, {"n": {"int": [1, 3]}, "x": {"float": [0, 1]}}, sampler="grid")
    assert said == "the space of x cannot be searched: sampler grid needs a step here"


@pytest.mark.parametrize("high", [float("inf"), float("nan")])
def test_a_space_must_end_somewhere(tmp_path: Path, high: float) -> None:
    said = refused(tmp_path, {"x": {"float": [0, high]}})
    assert said == "the space of x cannot be searched: expected finite numbers"


def test_choices_must_differ(tmp_path: Path) -> None:
    said = refused(tmp_path, {"x": {"choice": [1, True]}})
    assert said == "the space of x cannot be searched: choice: 1 and True are equal"
