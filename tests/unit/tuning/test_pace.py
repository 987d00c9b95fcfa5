from __future__ import annotations

import math
import random
from typing import Any

import pytest

from holdtrue.declaration import Candidate, Range
from holdtrue.tuning._pace import Pace
from holdtrue.tuning._space import Space
from holdtrue.tuning._types import Outcome, Setting

FOREST, BOOST = "sklearn.ensemble.RandomForestClassifier", "xgboost.XGBClassifier"
SPACE = Space(
    [
        Candidate(
            estimator=BOOST,
            space={
                "max_depth": Range(int=(2, 12)),
                "learning_rate": Range(float=(0.01, 1.0), log=True),
                "grow_policy": Range(choice=("depthwise", "lossguide")),
                "max_leaves": Range(int=(8, 64), when={"grow_policy": ("lossguide",)}),
            },
        ),
        Candidate(estimator=FOREST, space={"n_estimators": Range(int=(10, 500), log=True)}),
    ]
)


def seconds(setting: Setting) -> float:
    """Of a trial: what decides is the depth, the policy and, of the forest, how many trees."""
    params = setting.params
    if setting.candidate == FOREST:
        return 0.01 * float(params["n_estimators"])
    slower = 4.0 if params["grow_policy"] == "lossguide" else 1.0
    return slower * 0.1 * math.exp(0.25 * params["max_depth"])


def drawn(count: int, seed: int = 0) -> list[Setting]:
    draw = random.Random(seed)  # noqa: S311
    return [next(SPACE.walk(draw.choice(SPACE.labels), draw.random)) for _ in range(count)]


def known(count: int, state: Any = "complete") -> Pace:
    pace = Pace(SPACE)
    for setting in drawn(count):
        pace.add(setting, Outcome(state, 0.5, seconds(setting), 0.0))
    return pace


def test_what_takes_long_is_known_from_those_that_are_finished() -> None:
    settings = drawn(100, seed=1)
    expected = known(200).expect(settings)
    assert expected is not None
    assert expected == pytest.approx([seconds(setting) for setting in settings], rel=0.5)


def test_a_few_trials_are_enough_to_tell_long_ones_from_short_ones() -> None:
    settings = drawn(60, seed=1)
    expected = known(12).expect(settings)
    assert expected is not None
    by_length = [s for _, s in sorted(zip(expected, map(seconds, settings), strict=True))]
    assert sum(by_length[-20:]) > 3 * sum(by_length[:20])


def test_nothing_is_said_of_too_few() -> None:
    assert known(7).expect(drawn(3)) is None
    assert known(50, "pruned").expect(drawn(3)) is None
    assert known(8).expect([]) == []


def test_a_candidate_that_was_never_tried_takes_as_long_as_the_others() -> None:
    pace = Pace(SPACE)
    forests = [setting for setting in drawn(60) if setting.candidate == FOREST]
    for setting in forests:
        pace.add(setting, Outcome("complete", 0.5, 2.0, 0.0))
    other = next(setting for setting in drawn(60) if setting.candidate == BOOST)
    assert pace.expect([other]) == pytest.approx([2.0])


def test_trials_that_take_no_time_are_estimated() -> None:
    pace = Pace(SPACE)
    for setting in drawn(20):
        pace.add(setting, Outcome("complete", 0.5, 0.0, 0.0))
    found = pace.expect(drawn(1))
    assert found is not None
    assert 0 < found[0] < 1e-3
