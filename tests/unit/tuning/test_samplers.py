from __future__ import annotations

import math
import sys
import warnings
from collections import Counter
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from holdtrue.declaration import Candidate, Range
from holdtrue.errors import ConfigError
from holdtrue.tuning import _tree
from holdtrue.tuning._samplers import check_sampler, make_sampler, seed_for
from holdtrue.tuning._space import Space
from holdtrue.tuning._tree import TreeSampler, _Known
from holdtrue.tuning._types import Past, Setting

optuna.logging.set_verbosity(optuna.logging.WARNING)
UNIT = Range(float=(0, 1))
NUMBERS = {"x": UNIT, "y": Range(float=(0.01, 1), log=True), "n": Range(int=(1, 9))}
TOY = Space.of(NUMBERS)
FAMILIES = Space([Candidate(estimator=f"a.{name}", space={"x": UNIT, "y": UNIT}) for name in "ABC"])
BRANCHES = Space(
    [
        Candidate(estimator="a.Line", space={"c": UNIT}),
        Candidate(
            estimator="a.Tree",
            space={
                "kind": Range(choice=("u", "v")),
                "one": Range(int=(4, 4)),
                "u": Range(float=(0, 1), when={"kind": ("u",)}),
                "v": Range(float=(0, 1), when={"kind": ("v",)}),
            },
        ),
    ]
)


def toy(setting: Setting) -> float:
    params = setting.params
    return (
        (params["x"] - 0.3) ** 2 + (math.log10(params["y"]) + 1) ** 2 + (params["n"] - 6) ** 2 / 64
    )


def branches(setting: Setting) -> float:
    params = setting.params
    if setting.candidate == "a.Line":
        return 0.2 + (params["c"] - 0.5) ** 2
    return (params["u"] - 0.1) ** 2 + 0.1 if params["kind"] == "u" else (params["v"] - 0.8) ** 2


def new_study(sampler: optuna.samplers.BaseSampler, direction: str = "minimize") -> optuna.Study:
    return optuna.create_study(sampler=sampler, direction=direction)


def search(
    study: optuna.Study, space: Space, value: Any, n: int, seed: int | None = 0
) -> list[Setting]:
    """Ask and tell, each seeded by its number where there is a seed."""
    found = []
    for number in range(len(study.trials), len(study.trials) + n):
        if seed is not None:
            seed_for(study.sampler, seed, number)
        trial = study.ask()
        setting = space.suggest(trial)
        found.append(setting)
        study.tell(trial, value(setting))
    return found


def needed(name: str) -> None:
    """Skip where a sampler's package is not installed."""
    module = {"cmaes": "cmaes", "gp": "torch"}.get(name)
    if module is not None:
        pytest.importorskip(module)


# What 30 trials reach with seeds 0, 1 and 2, with room for other versions of the libraries.
FLOORS = {
    "tpe": 0.05,
    "random": 0.4,
    "qmc": 0.3,
    "nsga2": 0.3,
    "nsga3": 0.3,
    "cmaes": 0.1,
    "gp": 0.02,
}


@pytest.mark.parametrize("name", FLOORS)
def test_each_sampler_finds_a_good_setting(name: str) -> None:
    needed(name)
    best = []
    for seed in range(3):
        study = new_study(make_sampler(name, TOY, seed))
        search(study, TOY, toy, 30, seed)
        best.append(study.best_value)
    assert np.median(best) < FLOORS[name]


def test_tpe_learns_to_keep_within_the_limits() -> None:
    # The best settings cost too much: n may be at most 3, its best value is 6.
    inside, best = [], []
    for seed in range(3):
        study = new_study(make_sampler("tpe", TOY, seed))
        for number in range(60):
            seed_for(study.sampler, seed, number)
            trial = study.ask()
            setting = TOY.suggest(trial)
            trial.set_constraint("n", setting.params["n"] / 3 - 1)
            study.tell(trial, toy(setting))
        within = [trial for trial in study.trials if trial.constraints["n"] <= 0]
        inside.append(sum(trial.number >= 30 for trial in within) / 30)
        best.append(min(trial.value or 0.0 for trial in within))
    assert np.median(inside) > 0.6  # a third of the space
    assert np.median(best) < 9 / 64 + FLOORS["tpe"]


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "nsga2", "nsga3", "cmaes", "gp"])
def test_a_search_that_is_resumed_goes_on_as_if_it_were_not(name: str) -> None:
    needed(name)
    whole = search(new_study(make_sampler(name, TOY, 3)), TOY, toy, 26, 3)
    first = new_study(make_sampler(name, TOY, 3))
    before = search(first, TOY, toy, 18, 3)
    again = new_study(make_sampler(name, TOY, 3))
    again.add_trials(first.trials)
    assert before + search(again, TOY, toy, 8, 3) == whole


@pytest.mark.parametrize("name", ["nsga2", "nsga3"])
@pytest.mark.parametrize("stop", [17, 30, 33, 47])
def test_parents_are_the_same_where_a_search_is_resumed_within_a_generation(
    name: str, stop: int
) -> None:
    def value(setting: Setting) -> float:
        return float(round(toy(setting)))  # many are equally good

    whole = search(new_study(make_sampler(name, TOY, 3)), TOY, value, 60, 3)
    first = new_study(make_sampler(name, TOY, 3))
    before = search(first, TOY, value, stop, 3)
    again = new_study(make_sampler(name, TOY, 3))
    again.add_trials(first.trials)
    assert before + search(again, TOY, value, 60 - stop, 3) == whole


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "nsga2", "nsga3"])
def test_settings_depend_on_the_seed(name: str) -> None:
    one, two = (search(new_study(make_sampler(name, TOY, s)), TOY, toy, 3, s) for s in (1, 2))
    assert one != two


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "nsga2", "nsga3"])
def test_conditional_spaces_are_searched_in_every_branch(name: str) -> None:
    study = new_study(make_sampler(name, BRANCHES, 0))
    found = search(study, BRANCHES, branches, 40)
    for setting in found:
        expected = {"c"} if setting.candidate == "a.Line" else {"kind", "one"}
        assert set(setting.params) == expected | {setting.params.get("kind", "c")}
    assert {tuple(sorted(setting.params)) for setting in found} == {
        ("c",),
        ("kind", "one", "u"),
        ("kind", "one", "v"),
    }


# 3 * 2 + 4 settings, and one.
COUNTED = Space(
    [
        Candidate(
            estimator="a.Tree",
            space={
                "kind": Range(choice=("u", "v")),
                "depth": Range(int=(1, 3), when={"kind": ("u",)}),
                "flat": Range(choice=(True, False), when={"kind": ("u",)}),
                "share": Range(float=(0.1, 0.4), step=0.1, when={"kind": ("v",)}),
                "one": Range(int=(4, 4)),
            },
        ),
        Candidate(estimator="a.Same"),
    ]
)
WHOLE = Space.of({"n": Range(int=(1, 5)), "m": Range(int=(1, 9), step=4)})


def different(found: list[Setting]) -> set[str]:
    return {repr((one.candidate, sorted(one.params.items()))) for one in found}


@pytest.mark.parametrize(
    ("name", "space"),
    [(name, COUNTED) for name in ("tpe", "random", "qmc", "nsga2", "nsga3", "grid")]
    + [(name, WHOLE) for name in ("cmaes", "gp")],
)
def test_each_setting_of_a_space_that_can_be_counted_is_tried_once(name: str, space: Space) -> None:
    needed(name)
    every = list(space.grid())
    for seed in range(3):
        found = search(
            new_study(make_sampler(name, space, seed)),
            space,
            lambda setting: float(len(setting.params.get("kind", "u"))),
            len(every),
            seed,
        )
        assert different(found) == different(every)


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "nsga2", "nsga3"])
def test_a_candidate_with_nothing_new_gets_no_more_trials(name: str) -> None:
    space = Space(
        [
            Candidate(estimator="a.Fixed"),
            Candidate(estimator="a.Free", space={"x": UNIT, "y": UNIT}),
        ]
    )
    # Best by far: it would get nearly all of them.
    found = search(new_study(make_sampler(name, space, 0)), space, lambda s: len(s.params), 30)
    assert Counter(setting.candidate for setting in found) == {"a.Fixed": 1, "a.Free": 29}
    assert len(different(found)) == 30


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "nsga2", "nsga3"])
def test_a_branch_with_nothing_new_gets_no_more_trials(name: str) -> None:
    space = Space.of(
        {
            "kind": Range(choice=("fixed", "free")),
            "x": Range(float=(0, 1), when={"kind": ("free",)}),
        }
    )
    found = search(new_study(make_sampler(name, space, 0)), space, lambda s: len(s.params), 30)
    assert Counter(setting.params["kind"] for setting in found) == {"fixed": 1, "free": 29}


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "nsga2", "nsga3"])
def test_a_search_of_a_small_space_is_resumed_as_if_it_were_not(name: str) -> None:
    def value(setting: Setting) -> float:
        return float(setting.params.get("depth", 2))

    whole = search(new_study(make_sampler(name, COUNTED, 3)), COUNTED, value, 11, 3)
    for stop in range(1, 11):
        first = new_study(make_sampler(name, COUNTED, 3))
        before = search(first, COUNTED, value, stop, 3)
        again = new_study(make_sampler(name, COUNTED, 3))
        again.add_trials(first.trials)
        assert before + search(again, COUNTED, value, 11 - stop, 3) == whole


def test_what_is_new_is_still_chosen_by_what_is_known() -> None:
    space = Space.of({"a": Range(int=(1, 20)), "b": Range(int=(1, 20))})

    def value(setting: Setting) -> float:
        return float((setting.params["a"] - 15) ** 2 + (setting.params["b"] - 5) ** 2)

    means = {}
    for name in ("tpe", "random"):
        found = search(new_study(make_sampler(name, space, 0)), space, value, 80)
        assert len(different(found)) == 80
        means[name] = np.mean([value(setting) for setting in found[20:]])
    assert means["tpe"] < means["random"] / 2


def test_a_huge_space_is_never_gone_through() -> None:
    space = Space.of({f"n{i}": Range(int=(1, 10**9)) for i in range(3)})
    assert space.size == 10**27
    assert (
        len(different(search(new_study(make_sampler("tpe", space, 0)), space, lambda s: 0, 9))) == 9
    )


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "nsga2", "nsga3"])
def test_a_candidate_may_have_nothing_but_single_values(name: str) -> None:
    space = Space(
        [
            Candidate(estimator="a.Fixed", space={"n": Range(int=(3, 3))}),
            Candidate(estimator="a.Free", space={"x": UNIT}),
        ]
    )
    found = search(new_study(make_sampler(name, space, 0)), space, lambda s: 0.0, 9)
    assert [one.params for one in found if one.candidate == "a.Fixed"] == [{"n": 3}]


def test_where_nothing_is_left_a_sampler_repeats_itself() -> None:
    space = Space([Candidate(estimator="a.Same")])
    found = search(new_study(make_sampler("tpe", space, 0)), space, lambda s: 0.0, 3)
    assert found == [Setting("a.Same", {})] * 3


def test_a_sampler_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed, where it is
    with pytest.raises(ConfigError, match="gp needs PyTorch, which is not installed"):
        check_sampler("gp")
    check_sampler("tpe")


def mixed() -> Space:
    return Space.of(
        {
            **NUMBERS,
            "m": Range(int=(1, 300), log=True),
            "kind": Range(choice=("u", "v", None)),
            "step": Range(float=(0, 1), step=0.25),
            "near": Range(float=(0.5, 0.999), log="reverse"),
            "same": Range(int=(5, 5)),
        }
    )


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_one_candidate_is_searched_as_by_optuna(direction: str) -> None:
    space = mixed()

    def value(setting: Setting) -> float:
        return toy(setting) + (setting.params["kind"] == "u") - setting.params["near"]

    def run(sampler: optuna.samplers.BaseSampler) -> list[dict[str, Any]]:
        study = new_study(sampler, direction)
        start = new_study(optuna.samplers.RandomSampler(seed=5))
        for setting in search(start, space, value, 10, None):
            params, distributions = space.to_optuna(setting)
            study.add_trial(
                optuna.create_trial(
                    params=params, distributions=distributions, value=value(setting)
                )
            )
        found = []
        for number in range(60):
            trial = study.ask()
            setting = space.suggest(trial)
            found.append(setting.params)
            if number % 7 == 3:
                continue  # it runs until the end
            if number % 5 == 2:
                trial.report(value(setting), 3)
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, value(setting))
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = optuna.samplers.TPESampler(seed=0, multivariate=True, constant_liar=True)
    for ours, other in zip(run(make_sampler("tpe", space, 0)), run(theirs), strict=True):
        assert ours == {
            key: pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
            for key, value in other.items()
        }


class TestTree:
    def test_only_the_latest_are_modelled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_tree, "WINDOW", 20)
        known = _Known(list(TreeSampler(TOY, 0)._axes.values()), [])
        for number in range(100):
            known.add(number, (0.0, abs(number - 50.0), 0.0), [float(number)] * 3)
        good, others = known.split([(100, [100.0] * 3), (101, [101.0] * 3)])
        assert good[:, 0].tolist() == list(range(45, 55))
        assert others[:, 0].tolist() == [float(n) for n in range(82, 102)]

    def test_what_earlier_studies_found_stands_for_random_settings(self) -> None:
        chance = np.random.default_rng(0)
        past = []
        for _ in range(60):
            params = {"x": chance.random(), "y": 10 ** -chance.random(), "n": 6}
            past.append(Past(Setting("function", params), 4 * abs(params["x"] - 0.3)))
        found = search(new_study(make_sampler("tpe", TOY, 0, past)), TOY, toy, 8)
        assert np.median([abs(setting.params["x"] - 0.3) for setting in found]) < 0.15

    def test_its_own_trials_take_the_place_of_the_past(self) -> None:
        known = _Known(list(TreeSampler(TOY, 0)._axes.values()), [(0.0, [-1.0] * 3)] * 30)
        assert [len(part) for part in known.split([])] == [3, 27]
        for number in range(100):
            known.add(number, (0.0, float(number), 0.0), [float(number)] * 3)
        good, others = known.split([])
        assert good[:, 0].tolist() == list(range(10))
        assert len(others) == 27 + 90

    def test_what_runs_is_not_tried_again_at_once(self) -> None:
        study = new_study(make_sampler("tpe", TOY, 0))
        search(study, TOY, toy, 20)
        asked = [TOY.suggest(study.ask()).params["x"] for _ in range(10)]
        assert np.ptp(asked) > 0.1
        assert len({round(x, 3) for x in asked}) == 10

    def test_a_study_may_be_changed_for_another(self) -> None:
        sampler = make_sampler("tpe", TOY, 0)
        search(new_study(sampler), TOY, toy, 15)
        again = search(new_study(sampler), TOY, toy, 15)
        assert again == search(new_study(make_sampler("tpe", TOY, 0)), TOY, toy, 15)

    def test_trials_may_end_in_any_order(self) -> None:
        study = new_study(make_sampler("tpe", TOY, 0))
        trials = [(trial, TOY.suggest(trial)) for trial in (study.ask() for _ in range(16))]
        for trial, setting in reversed(trials):
            study.tell(trial, toy(setting))
        ordered = new_study(make_sampler("tpe", TOY, 0))
        ordered.add_trials(study.trials)
        for one in (study, ordered):
            seed_for(one.sampler, 0, 16)
        assert TOY.suggest(study.ask()) == TOY.suggest(ordered.ask())

    def test_trials_that_ended_early_or_failed_are_learnt_from(self) -> None:
        study = new_study(make_sampler("tpe", TOY, 0))
        for number in range(30):
            seed_for(study.sampler, 0, number)
            trial = study.ask()
            value = toy(TOY.suggest(trial))
            if number % 3 == 0:
                study.tell(trial, state=TrialState.FAIL)
            elif number % 3 == 1:
                trial.report(math.nan if number % 2 else value, number)
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, value)
        known = study.sampler.sampler._known["function"][0][1]  # type: ignore[attr-defined]
        TOY.suggest(study.ask())
        assert known.n_rows == 20


class TestBudget:
    @staticmethod
    def shares(value: Any, seed: int, n: int = 40) -> Counter[str]:
        """How often each candidate is tried, two at a time."""
        study = new_study(make_sampler("tpe", FAMILIES, seed))
        noise = np.random.default_rng(seed)
        running: list[tuple[optuna.Trial, Setting]] = []
        counts: Counter[str] = Counter()
        for number in range(n):
            seed_for(study.sampler, seed, number)
            trial = study.ask()
            setting = FAMILIES.suggest(trial)
            counts[setting.candidate] += 1
            running.append((trial, setting))
            if len(running) > 1:
                done, known = running.pop(0)
                found = value(known)
                if found is None:
                    study.tell(done, state=TrialState.FAIL)
                else:
                    study.tell(done, found + 0.005 * noise.standard_normal())
        return counts

    @staticmethod
    def bowl(setting: Setting) -> float:
        return float(np.mean([(value - 0.3) ** 2 for value in setting.params.values()]))

    def test_it_goes_to_the_candidates_that_earn_it(self) -> None:
        offset = {"a.A": 0.0, "a.B": 0.05, "a.C": 0.5}
        counts = [self.shares(lambda s: offset[s.candidate] + self.bowl(s), i) for i in range(5)]
        assert all(count["a.C"] < 10 for count in counts)
        assert np.mean([count["a.A"] for count in counts]) > 20

    def test_earlier_studies_say_who_earned_it(self) -> None:
        past = [
            Past(Setting(label, {"x": 0.5, "y": 0.5}), regret)
            for label, regret in (("a.A", 0.1), ("a.B", 1.5), ("a.C", 2.0))
            for _ in range(20)
        ]
        study = new_study(make_sampler("tpe", FAMILIES, 0, past))
        found = search(study, FAMILIES, lambda setting: 0.0, 16)
        counts = Counter(setting.candidate for setting in found)
        assert counts["a.A"] > max(counts["a.B"], counts["a.C"]) >= 2

    def test_a_candidate_that_fails_is_given_up(self) -> None:
        counts = self.shares(lambda s: None if s.candidate == "a.A" else self.bowl(s), 0)
        assert 2 <= counts["a.A"] < 10

    def test_equal_candidates_are_all_tried(self) -> None:
        assert min(self.shares(self.bowl, 0).values()) >= 3
