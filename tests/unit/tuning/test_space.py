from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from holdtrue.declaration import Candidate, Range
from holdtrue.errors import ConfigError
from holdtrue.tuning._space import FUNCTION, Space, labels
from holdtrue.tuning._types import Setting

FOREST = "sklearn.ensemble.RandomForestClassifier"
LINEAR = "sklearn.linear_model.LogisticRegression"
BOOSTED = Candidate(
    estimator="xgboost.XGBClassifier",
    space={
        "skip": Range(float=(0, 1), when={"booster": ("dart",)}),
        "booster": Range(choice=("gbtree", "dart")),
        "max_depth": Range(int=(3, 10)),
        "rounds": Range(int=(50, 800), log=True),
        "rate": Range(float=(0.01, 0.3), log=True),
        "momentum": Range(float=(0.5, 0.999), log="reverse"),
        "share": Range(float=(0.5, 1.0), step=0.2),
        "trees": Range(int=(1, 10), step=4),
    },
)
PLAIN = Candidate(estimator=LINEAR, space={"C": Range(float=(1e-3, 100), log=True)})


@pytest.fixture
def space() -> Space:
    return Space([BOOSTED, PLAIN])


def asked(space: Space, n: int, seed: int = 0) -> list[tuple[Setting, optuna.trial.FrozenTrial]]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    found = []
    for _ in range(n):
        trial = study.ask()
        setting = space.suggest(trial)
        found.append((setting, study.tell(trial, 0.0)))
    return found


def test_labels_tell_equal_estimators_apart() -> None:
    candidates = [Candidate(estimator=path) for path in ("a.B", LINEAR, "a.B")]
    assert labels(candidates) == ["a.B#1", LINEAR, "a.B#2"]


def test_a_study_names_parameters_after_their_candidate(space: Space) -> None:
    assert list(space.distributions)[:2] == ["candidate", "xgboost.XGBClassifier:booster"]
    assert "xgboost.XGBClassifier:1-momentum" in space.distributions
    assert "candidate" not in Space([PLAIN]).distributions


def test_settings_are_the_same_in_a_study_and_back(space: Space) -> None:
    for setting, trial in asked(space, 100):
        params, distributions = space.to_optuna(setting)
        assert distributions == trial.distributions
        assert params == pytest.approx(trial.params)
        assert space.from_optuna(trial.params) == setting
        optuna.trial.create_trial(params=params, distributions=distributions, value=0.0)


def test_the_ends_of_a_reverse_scale_are_within_it(space: Space) -> None:
    for end in (0.5, 0.999):
        setting = Setting("xgboost.XGBClassifier", {"momentum": end})
        params, distributions = space.to_optuna(setting)
        optuna.trial.create_trial(params=params, distributions=distributions, value=0.0)
        assert space.from_optuna(params).params["momentum"] == pytest.approx(end, abs=1e-12)


def test_steps_end_at_the_last_whole_one(space: Space) -> None:
    settings = [s.params for s, _ in asked(space, 200) if "share" in s.params]
    assert {round(params["share"], 10) for params in settings} == {0.5, 0.7, 0.9}
    assert {params["trees"] for params in settings} == {1, 5, 9}


@pytest.mark.parametrize(
    ("span", "scale"),
    [
        (Range(float=(2, 5)), lambda x: (x - 2) / 3),
        (Range(float=(1e-4, 10), log=True), lambda x: math.log(x / 1e-4) / math.log(1e5)),
        (
            Range(float=(0.5, 0.999), log="reverse"),
            lambda x: math.log(0.5 / (1 - x)) / math.log(0.5 / 0.001),
        ),
    ],
    ids=["linear", "log", "reverse"],
)
def test_values_are_uniform_on_their_scale(span: Range, scale: Any) -> None:
    space = Space.of({"x": span})
    found = [scale(setting.params["x"]) for setting, _ in asked(space, 2_000, seed=1)]
    assert stats.kstest(found, "uniform").pvalue > 0.05
    assert [space.position(setting)["x"] for setting, _ in asked(space, 5, seed=1)] == (
        pytest.approx(found[:5])
    )


def test_every_value_of_whole_numbers_and_choices_is_found(space: Space) -> None:
    settings = [s.params for s, _ in asked(space, 400) if "booster" in s.params]
    assert {params["max_depth"] for params in settings} == set(range(3, 11))
    assert {params["booster"] for params in settings} == {"gbtree", "dart"}


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Up to three candidates, conditions on choices before and behind."""
    candidates = []
    for index in range(draw(st.integers(1, 3))):
        names = [f"p{i}" for i in range(draw(st.integers(1, 6)))]
        spans: dict[str, Range] = {}
        for name in names:
            when = {}
            choices = [key for key, span in spans.items() if span.choice]
            if choices and draw(st.booleans()):
                other = draw(st.sampled_from(choices))
                when = {other: tuple(draw(st.sets(st.sampled_from((1, "b", None)), min_size=1)))}
            kind = draw(st.sampled_from(("choice", "int", "float", "log", "reverse", "step")))
            spans[name] = {
                "choice": Range(choice=(1, "b", None), when=when),
                "int": Range(int=(1, 4), when=when),
                "float": Range(float=(-1, 1), when=when),
                "log": Range(float=(0.1, 1), log=True, when=when),
                "reverse": Range(float=(0, 0.9), log="reverse", when=when),
                "step": Range(float=(0, 1), step=0.3, when=when),
            }[kind]
        order = draw(st.permutations(names))
        candidates.append(
            Candidate(estimator=f"a.E{index}", space={name: spans[name] for name in order})
        )
    return Space(candidates)


@settings(max_examples=25)
@given(spaces(), st.integers(0, 1_000))
def test_no_setting_has_a_parameter_of_another_family(space: Space, seed: int) -> None:
    middles = [space.middle(label) for label in space.labels]
    for setting in [s for s, _ in asked(space, 8, seed)] + middles:
        spans = space.spans(setting.candidate)
        for name, span in spans.items():
            wanted = all(
                other in setting.params and setting.params[other] in values
                for other, values in span.when.items()
            )
            assert (name in setting.params) == wanted
        params, _ = space.to_optuna(setting)
        own = f"{setting.candidate}:"
        assert all(key.startswith(own) or key == "candidate" for key in params)
        assert space.adapt(setting.candidate, setting.params) == (setting, [])


@settings(max_examples=25)
@given(spaces())
def test_groups_hold_each_parameter_once(space: Space) -> None:
    for label in space.labels:
        names = [name for group in space.groups[label] for name in group.names]
        assert sorted(names) == sorted(space.spans(label))
        for group in space.groups[label]:
            before = names[: names.index(group.names[0])]
            assert set(group.when) <= set(before)


def test_a_group_needs_the_conditions_of_its_conditions() -> None:
    space = Space.of(
        {
            "a": Range(choice=(1, 2)),
            "b": Range(choice=(1, 2, 3), when={"a": (1,)}),
            "c": Range(int=(1, 2), when={"b": (2, 3)}),
        }
    )
    assert [(dict(g.when), g.names) for g in space.groups[FUNCTION]] == [
        ({}, ("a",)),
        ({"a": (1,)}, ("b",)),
        ({"a": (1,), "b": (2, 3)}, ("c",)),
    ]


def test_the_middle_is_on_the_scale_of_each_parameter(space: Space) -> None:
    params = space.middle("xgboost.XGBClassifier").params
    assert params["booster"] == "gbtree"
    assert "skip" not in params
    assert params["max_depth"] == 6
    assert params["rounds"] == 200
    assert params["rate"] == pytest.approx(math.sqrt(0.003))
    assert params["momentum"] == pytest.approx(1 - math.sqrt(0.5 * 0.001))
    assert params["share"] == 0.7
    assert params["trees"] in {5, 9}


def test_a_grid_has_every_combination_once() -> None:
    space = Space(
        [
            Candidate(
                estimator="a.A",
                space={
                    "kind": Range(choice=("u", "v")),
                    "n": Range(int=(1, 3)),
                    "x": Range(float=(0, 1), step=0.5, when={"kind": ("v",)}),
                },
            ),
            Candidate(estimator="a.B"),
        ]
    )
    grid = list(space.grid())
    assert len(grid) == 3 + 9 + 1
    assert len({repr(setting) for setting in grid}) == len(grid)
    assert grid[-1] == Setting("a.B", {})
    for setting in grid:
        params, distributions = space.to_optuna(setting)
        optuna.trial.create_trial(params=params, distributions=distributions, value=0.0)


@settings(max_examples=50)
@given(spaces())
def test_settings_are_counted_without_being_made(space: Space) -> None:
    for label in space.labels:
        spans = space.spans(label)
        counted = all(span.float is None or span.step is not None for span in spans.values())
        assert (space.sizes[label] is not None) == counted
    if space.size is not None:
        assert space.size == len(list(space.grid()))


@settings(max_examples=50)
@given(spaces(), st.randoms(use_true_random=False))
def test_a_walk_goes_through_every_setting_once(space: Space, chance: Any) -> None:
    for label in space.labels:
        found = list(space.walk(label, chance.random))
        for setting in found:
            assert space.adapt(label, setting.params) == (setting, [])
        if space.sizes[label] is not None:
            every = [one for one in space.grid() if one.candidate == label]
            assert sorted(map(repr, found)) == sorted(map(repr, every))


class TestAdapt:
    GOOD = {  # noqa: RUF012
        "booster": "gbtree",
        "max_depth": 5,
        "rounds": 100,
        "rate": 0.1,
        "momentum": 0.9,
        "share": 0.7,
        "trees": 5,
    }

    @pytest.mark.parametrize(
        ("change", "expected", "notes"),
        [
            ({}, {}, []),
            ({"max_depth": 12}, {"max_depth": 10}, ["max_depth 12 clipped to 10"]),
            ({"rate": 1}, {"rate": 0.3}, ["rate 1 clipped to 0.3"]),
            ({"momentum": 0.1}, {"momentum": 0.5}, ["momentum 0.1 clipped to 0.5"]),
            ({"trees": 8}, {"trees": 9}, ["trees 8 rounded to 9"]),
            ({"share": 2.0}, {"share": 0.9}, ["share 2 clipped to 0.9"]),
            (
                {"booster": "gblinear"},
                {"booster": "gbtree"},
                ["booster gblinear is no choice any more: gbtree"],
            ),
            ({"rate": "fast"}, {"rate": math.sqrt(0.003)}, ["rate fast is no number: 0.0547723"]),
            ({"gamma": 1.0}, {}, ["gamma is not searched any more"]),
        ],
        ids=lambda value: str(value)[:30],
    )
    def test_what_is_outside_is_moved_inside(
        self, space: Space, change: dict[str, Any], expected: dict[str, Any], notes: list[str]
    ) -> None:
        setting, said = space.adapt("xgboost.XGBClassifier", self.GOOD | change)
        assert setting is not None
        assert setting.params == pytest.approx(self.GOOD | expected)
        assert said == notes

    def test_what_is_missing_takes_the_middle(self, space: Space) -> None:
        params = {key: value for key, value in self.GOOD.items() if key != "max_depth"}
        setting, said = space.adapt("xgboost.XGBClassifier", params | {"booster": "dart"})
        assert setting is not None
        assert (setting.params["max_depth"], setting.params["skip"]) == (6, 0.5)
        assert said == ["skip is new: 0.5", "max_depth is new: 6"]

    def test_a_candidate_that_is_gone(self, space: Space) -> None:
        assert space.adapt("a.B", {}) == (None, ["a.B is not a candidate any more"])

    @pytest.mark.parametrize(
        ("now", "then", "found"),
        [
            (["a.B"], "a.B#2", "a.B"),
            (["a.B", "a.B"], "a.B", "a.B#1"),
            (["a.B", "a.B"], "a.B#2", "a.B#2"),
            (["a.B", "a.B"], "a.B#3", "a.B#1"),
        ],
        ids=str,
    )
    def test_numbers_of_labels_may_change(self, now: list[str], then: str, found: str) -> None:
        setting, _ = Space([Candidate(estimator=path) for path in now]).adapt(then, {})
        assert setting == Setting(found, {})

    def test_constants_tell_equal_estimators_apart(self) -> None:
        two = [Candidate(estimator="a.B", params={"kind": kind}) for kind in ("u", "v")]
        assert Space(two).adapt("a.B", {"kind": "v"}) == (Setting("a.B#2", {}), [])


class TestFunction:
    def test_its_space_has_one_candidate(self) -> None:
        space = Space.of({"x": Range(float=(0, 1)), "y": Range(int=(1, 3))})
        assert space.labels == (FUNCTION,)
        assert list(space.distributions) == ["function:x", "function:y"]
        assert space.middle(FUNCTION).params == {"x": 0.5, "y": 2}

    def test_a_bad_condition_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"x.when: kind is not in this space"):
            Space.of({"x": Range(float=(0, 1), when={"kind": ("u",)})})
