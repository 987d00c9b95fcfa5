"""`promote: [{check: ...}]`: functions of the project that judge the answered test rows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdtrue.declaration._models import Gate
from holdtrue.errors import ConfigError, DataError
from holdtrue.evaluation import takes_champion
from holdtrue.evaluation._gates import judge_own
from holdtrue.plan import BY_NAME
from holdtrue.plan._step import Work
from holdtrue.progress import Silent
from holdtrue.references import Verdict
from holdtrue.system import System
from tests.unit.plan.conftest import LATER
from tests.unit.plan.test_rolling import Turned

Make = Callable[..., System]
CODE = """
def right(rows):
    print("said aside")
    assert {"x", "z", "at", "y", "prediction", "probability_0", "probability_1"} <= {*rows}
    assert set(rows["prediction"]) <= {"0", "1"}
    return float((rows["prediction"] == rows["y"]).mean())

def better(rows, champion):
    if champion is None:
        return True, "nobody to beat"
    mine, theirs = right(rows), right(champion)
    return mine >= theirs, f"{mine:.0%} against {theirs:.0%}"

def raises(rows):
    return rows["nothing"]

def words(rows):
    return "fine"

class Several:
    pass

several = Several()

def greedy(rows, champion, third):
    return True

def nothing():
    return True
"""


@pytest.fixture
def project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delitem(sys.modules, "gates_of_a_test", raising=False)
    (project / "gates_of_a_test.py").write_text(CODE)
    return project


def gate_of(world: Turned) -> Verdict:
    """What the gates of a world say to a fit that knows the rule of the test rows."""
    inputs: dict[str, Any] = {
        "split": world.split(22),
        "fit": world.fit(22),
        "evaluate": LATER["evaluate"],
    }
    with Silent().step("gate") as progress:
        found = BY_NAME["gate"].run(Work(world.context, inputs, {}, progress))
    assert isinstance(found, Verdict)
    return found


def test_checks_judge_the_answered_rows_beside_those_of_the_champion(
    system: Make, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gates = [
        {"check": "gates_of_a_test.right", "at_least": 0.7},
        {"check": "gates_of_a_test.right", "at_least": 0.99},
        {"check": "gates_of_a_test.better"},
    ]
    world = Turned(system("promote", gates))
    first = gate_of(world)
    assert [one.passed for one in first.judgements] == [True, False, True]
    assert not first.passed
    assert first.judgements[0].gate == "gates_of_a_test.right at least 0.7"
    assert first.judgements[2].reason == "nobody to beat"
    # The champion has learnt the rule that was turned round since.
    world.champion(world.fit(17), None)
    second = gate_of(world)
    assert second.judgements[2].passed
    mine, theirs = (
        float(one.rstrip("%")) for one in second.judgements[2].reason.split(" against ")
    )
    assert mine > 70 > 40 > theirs
    assert "said aside" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "limit", "said"),
    [
        ("raises", {}, "the check gates_of_a_test.raises failed: KeyError: 'nothing' (gates_of_a_"),
        ("words", {}, "returned str, expected true or false, or a pair of that and words"),
        ("right", {}, "returned float, expected true or false"),
        ("better", {"at_most": 1}, "returned bool, expected a number to be at most 1"),
    ],
)
def test_a_check_that_gives_no_verdict_ends_the_training(
    system: Make, project: Path, name: str, limit: dict[str, float], said: str
) -> None:
    world = Turned(system("promote", [{"check": f"gates_of_a_test.{name}"} | limit]))
    with pytest.raises(DataError) as caught:
        gate_of(world)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("several", "is a Several, expected a function"),
        ("greedy", "takes (rows, champion, third)"),
        ("nothing", "takes ()"),
        ("rigth", "did you mean gates_of_a_test.right?"),
    ],
)
def test_what_is_no_check_is_refused_before_anything_runs(
    system: Make, project: Path, name: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        system("promote", [{"check": f"gates_of_a_test.{name}"}]).check()
    assert said in str(caught.value)


def test_changed_code_asks_the_gates_again(done: Make, project: Path) -> None:
    path = project / "gates_of_a_test.py"

    def reason() -> str:
        made = done("promote", [{"check": "gates_of_a_test.right", "at_least": 0.7}])
        planned = {one.step: one for one in made.plan()}
        assert not planned["evaluate"].runs
        return planned["gate"].reason

    assert "gates_of_a_test.right: null -> " in reason()
    path.write_text(CODE + "\n# looked at again\n")
    assert "gates_of_a_test.right" in reason()


def test_a_check_may_be_an_object_and_leave_the_champion_out() -> None:
    class Fair:
        def __call__(self, rows: object) -> bool:
            return True

    assert not takes_champion(Fair(), "a.fair")
    assert takes_champion(lambda rows, champion=None: True, "a.fair")
    assert not takes_champion(lambda rows, **more: True, "a.fair")


@pytest.mark.parametrize(
    ("gate", "found", "passed", "reason"),
    [
        (Gate(check="a.b"), np.bool_(True), True, "holds"),
        (Gate(check="a.b"), (False, "too few"), False, "too few"),
        (Gate(check="a.b", at_most=3), np.int64(3), True, "3 is at most 3"),
        (Gate(check="a.b", at_least=3), (2.5, "EUR"), False, "2.5 is not at least 3: EUR"),
        (Gate(check="a.b", at_least=3), float("nan"), False, "nan is not at least 3"),
    ],
)
def test_verdicts(gate: Gate, found: object, passed: bool, reason: str) -> None:
    judged = judge_own(gate, "a.b", found)
    assert (judged.passed, judged.reason) == (passed, reason)


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({}, "exactly one of: metric, check"),
        ({"metric": "f1", "check": "a.b", "at_least": 0.5}, "exactly one of: metric, check"),
        ({"check": "a.b", "better_than": "champion"}, "better_than is of metrics"),
        ({"check": "a.b", "slice": "color"}, "slice is of metrics"),
        ({"check": "a.b", "at_least": 1, "at_most": 2}, "at most one of: at_least, at_most"),
        ({"metric": "f1"}, "exactly one of: at_least, at_most, better_than"),
    ],
)
def test_gates_that_cannot_be_are_refused(system: Make, gate: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        system("promote", [gate])
    assert said in str(caught.value)
