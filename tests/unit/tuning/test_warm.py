from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest

from holdtrue.declaration import Candidate, Range
from holdtrue.references import Trial
from holdtrue.tuning._samplers import make_sampler, seed_for
from holdtrue.tuning._space import Space
from holdtrue.tuning._types import First, Setting
from holdtrue.tuning._warm import choose, recall

optuna.logging.set_verbosity(optuna.logging.WARNING)
UNIT = Range(float=(0, 1))
SPACE = Space(
    [
        Candidate(estimator="a.A", space={"x": UNIT, "y": UNIT}, params={"fixed": 1}),
        Candidate(estimator="a.B", space={"z": UNIT}),
    ]
)


def trial(number: int, value: float | None, candidate: str = "a.A", **params: Any) -> Trial:
    state = "complete" if value is not None else "failed"
    return Trial(
        number=number, candidate=candidate, params=params, state=state, value=value, seconds=1.0
    )


def settings(first: list[First], origin: str) -> list[dict[str, Any]]:
    return [one.setting.params for one in first if one.origin == origin]


def test_without_a_past_each_candidate_begins_in_the_middle() -> None:
    first, notes = choose((), None, SPACE, 20, direction="lower")
    assert [(one.setting, one.origin) for one in first] == [
        (Setting("a.A", {"x": 0.5, "y": 0.5}), "default"),
        (Setting("a.B", {"z": 0.5}), "default"),
    ]
    assert notes == []


def test_the_live_models_setting_is_tried_first() -> None:
    live = ("a.A", {"x": 0.1, "y": 0.2, "fixed": 1, "random_state": 0})
    earlier = [trial(0, 0.1, x=0.9, y=0.9)]
    first, notes = choose([earlier], live, SPACE, 20, direction="lower")
    assert first[0] == First(Setting("a.A", {"x": 0.1, "y": 0.2}), "champion")
    assert [one.origin for one in first] == ["champion", "earlier", "default"]
    assert first[2].setting.candidate == "a.B"
    assert notes == []


@pytest.mark.parametrize(("direction", "best"), [("lower", 0.1), ("higher", 0.9)])
def test_the_best_comes_before_the_others(direction: Any, best: float) -> None:
    earlier = [trial(i, value, x=value, y=0.5) for i, value in enumerate((0.3, 0.1, 0.5, 0.9, 0.7))]
    first, _ = choose([earlier], None, SPACE, 20, direction=direction)
    assert settings(first, "earlier")[0]["x"] == best


def test_good_settings_unlike_each_other_are_chosen() -> None:
    near = [trial(i, 0.1 + i / 1_000, x=0.5 + i / 1_000, y=0.5) for i in range(10)]
    far = [trial(10, 0.12, x=0.05, y=0.9), trial(11, 0.9, x=0.9, y=0.1)]
    rest = [trial(12 + i, 1.0, x=0.2, y=0.2) for i in range(12)]
    first, _ = choose([[*near, *far, *rest]], None, SPACE, 20, direction="lower")
    chosen = settings(first, "earlier")
    assert chosen[0] == {"x": 0.5, "y": 0.5}
    assert chosen[1] == {"x": 0.05, "y": 0.9}


@pytest.mark.parametrize(("trials", "most"), [(1, 1), (2, 2), (10, 3), (20, 3), (100, 10)])
def test_at_most_a_tenth_or_three_are_known(trials: int, most: int) -> None:
    chance = np.random.default_rng(0)
    earlier = [trial(i, chance.random(), x=chance.random(), y=chance.random()) for i in range(300)]
    live = ("a.A", {"x": 0.1, "y": 0.2})
    first, _ = choose([earlier], live, SPACE, trials, direction="lower")
    assert sum(one.origin != "default" for one in first) == most
    assert len(first) <= trials
    assert len({repr(one.setting) for one in first}) == len(first)


def test_the_same_setting_is_tried_once() -> None:
    earlier = [trial(i % 5, 0.1, x=0.1, y=0.2) for i in range(20)]
    live = ("a.A", {"x": 0.1, "y": 0.2})
    first, _ = choose([earlier], live, SPACE, 20, direction="lower")
    assert [one.origin for one in first] == ["champion", "default"]


def test_the_newest_study_goes_before_older_ones() -> None:
    newest = [trial(i, 5.0 + i, x=0.1 * i, y=0.5) for i in range(4)]
    older = [trial(i, 0.1 + i, x=1 - 0.1 * i, y=0.5) for i in range(4)]
    first, _ = choose([newest, older], None, SPACE, 20, direction="lower")
    assert [params["x"] for params in settings(first, "earlier")][:2] == [0.0, 1.0]


def test_what_failed_or_was_ended_early_is_left_out() -> None:
    pruned = trial(1, 0.01, x=0.2, y=0.2).model_copy(update={"state": "pruned"})
    earlier = [trial(0, None, x=0.1, y=0.1), pruned]
    first, _ = choose([earlier], None, SPACE, 20, direction="lower")
    assert {one.origin for one in first} == {"default"}


def test_what_cost_too_much_is_left_out() -> None:
    costly = trial(1, 0.01, x=0.2, y=0.2).model_copy(update={"within_limits": False})
    earlier = [trial(0, 0.5, x=0.1, y=0.1), costly]
    first, _ = choose([earlier], None, SPACE, 20, direction="lower")
    assert settings(first, "earlier") == [{"x": 0.1, "y": 0.1}]
    assert [past.setting.params["x"] for past in recall([earlier], SPACE, direction="lower")] == [
        0.1
    ]


def test_what_does_not_fit_any_more_is_said() -> None:
    earlier = [
        trial(0, 0.1, x=1.7, y=0.2),
        trial(1, 0.2, candidate="a.Gone", x=1.0),
        trial(2, 0.3, candidate="a.Gone", x=1.0),
        trial(3, 0.4, x=0.5),
    ]
    first, notes = choose([earlier], ("a.Old", {}), SPACE, 20, direction="lower")
    assert settings(first, "earlier") == [{"x": 1.0, "y": 0.2}]
    assert notes == [
        "live model: a.Old is not a candidate any more",
        "earlier studies: a.Gone is not a candidate any more (2 trials)",
        "earlier studies: x 1.7 clipped to 1",
    ]


def test_what_is_remembered_is_measured_within_its_study() -> None:
    newest = [trial(i, 50.0 + i, x=0.1 * i, y=0.5) for i in range(5)]
    older = [trial(i, 0.1 * i, candidate="a.B", z=0.1 * i) for i in range(3)]
    gone = [trial(0, 0.1, candidate="a.Gone", x=1.0)]
    past = recall([newest, older, gone], SPACE, direction="lower")
    assert [one.setting.candidate for one in past] == ["a.A"] * 5 + ["a.B"] * 3
    assert [one.regret for one in past] == pytest.approx([0, 0.5, 1, 1.5, 2, 0.1, 1.1, 2.1])


def test_studies_are_told_apart_whatever_their_numbers() -> None:
    newest = [trial(i, 50.0 + i, x=0.1 * i, y=0.5) for i in range(3)]
    # Its first trials failed, so that its numbers go on where the other's end.
    older = [trial(3 + i, 0.1 * i, x=0.2 * i, y=0.5) for i in range(3)]
    past = recall([newest, [], older], SPACE, direction="lower")
    assert [one.regret for one in past] == pytest.approx([0, 1, 2, 0.1, 1.1, 2.1])


def test_a_warm_study_is_soon_as_good_as_a_cold_one_at_its_end() -> None:
    space = Space.of({f"x{i}": UNIT for i in range(4)})

    def search(shift: float, earlier: list[Trial], seed: int, n: int) -> list[Trial]:
        past = recall([earlier], space, direction="lower")
        first, _ = choose([earlier], None, space, 40, direction="lower")
        study = optuna.create_study(sampler=make_sampler("tpe", space, seed, past))
        trials = []
        for number in range(n):
            if number < len(first):
                study.enqueue_trial(space.to_optuna(first[number].setting)[0])
            seed_for(study.sampler, seed, number)
            asked = study.ask()
            params = space.suggest(asked).params
            value = sum((x - 0.37 - shift) ** 2 for x in params.values())
            study.tell(asked, value)
            trials.append(trial(number, value, candidate="function", **params))
        return trials

    def best(trials: list[Trial]) -> float:
        return min(one.value or 0.0 for one in trials)

    gains = []
    for seed in range(6):
        earlier = search(0.0, [], seed, 40)
        cold, warm = search(0.02, [], seed + 50, 40), search(0.02, earlier, seed + 50, 12)
        gains.append(best(cold) - best(warm))
    assert np.median(gains) >= 0
