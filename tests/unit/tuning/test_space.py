from __future__ import annotations

from typing import Any

import optuna
import pytest

from holdtrue.declaration import Candidate
from holdtrue.tuning._drive import _sampler
from holdtrue.tuning._space import fixed, labels, middle, suggest

BOOSTED = Candidate.model_validate(
    {
        "estimator": "xgboost.XGBClassifier",
        "space": {
            "max_depth": {"int": [3, 9]},
            "n_estimators": {"int": [10, 1000], "log": True},
            "learning_rate": {"float": [0.01, 1.0], "log": True},
            "subsample": {"float": [0.5, 1.0]},
            "booster": {"choice": ["gbtree", "dart", None]},
        },
    }
)
LINEAR = Candidate.model_validate(
    {"estimator": "sklearn.linear_model.LogisticRegression", "space": {"C": {"float": [0.1, 10]}}}
)
BARE = Candidate.model_validate({"estimator": "sklearn.linear_model.LogisticRegression"})


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def ask(
    candidates: tuple[Candidate, ...], n: int, seed: int = 0
) -> list[tuple[int, dict[str, Any]]]:
    study = optuna.create_study(sampler=_sampler(seed))
    found = []
    for number in range(n):
        trial = study.ask()
        found.append(suggest(trial, candidates))
        study.tell(trial, float(number % 7))
    return found


def test_every_setting_lies_in_the_space() -> None:
    seen = ask((BOOSTED, LINEAR), 60)
    assert {index for index, _ in seen} == {0, 1}
    for index, params in seen:
        if index == 1:
            assert set(params) == {"C"}
            assert 0.1 <= params["C"] <= 10
            continue
        assert set(params) == set(BOOSTED.space)
        assert isinstance(params["max_depth"], int)
        assert 3 <= params["max_depth"] <= 9
        assert 10 <= params["n_estimators"] <= 1000
        assert 0.01 <= params["learning_rate"] <= 1
        assert 0.5 <= params["subsample"] <= 1
        assert params["booster"] in ("gbtree", "dart", None)


def test_the_same_seed_gives_the_same_settings() -> None:
    first = ask((BOOSTED, LINEAR), 25)
    assert ask((BOOSTED, LINEAR), 25) == first
    assert ask((BOOSTED, LINEAR), 25, seed=1) != first


def test_one_candidate_is_not_chosen() -> None:
    study = optuna.create_study(sampler=_sampler(0))
    trial = study.ask()
    assert suggest(trial, (LINEAR,))[0] == 0
    assert list(trial.params) == ["sklearn.linear_model.LogisticRegression:C"]
    assert suggest(study.ask(), (BARE,)) == (0, {})


def test_the_same_estimator_twice_has_two_names() -> None:
    assert labels((LINEAR, BOOSTED, LINEAR)) == [
        "sklearn.linear_model.LogisticRegression#1",
        "xgboost.XGBClassifier",
        "sklearn.linear_model.LogisticRegression#2",
    ]


def test_the_middle_of_a_space() -> None:
    assert middle(BOOSTED) == {
        "max_depth": 6,
        "n_estimators": 100,
        "learning_rate": pytest.approx(0.1),
        "subsample": 0.75,
        "booster": "gbtree",
    }
    assert middle(BARE) == {}


KNOWN = middle(BOOSTED)


@pytest.mark.parametrize(
    ("change", "inside"),
    [
        ({}, True),
        ({"max_depth": 3}, True),
        ({"max_depth": 9.0}, True),
        ({"max_depth": 2}, False),
        ({"max_depth": 3.5}, False),
        ({"max_depth": True}, False),
        ({"max_depth": "3"}, False),
        ({"learning_rate": 1.0}, True),
        ({"learning_rate": 1.1}, False),
        ({"booster": None}, True),
        ({"booster": "gblinear"}, False),
        ({"something": "of an earlier space"}, True),
    ],
)
def test_a_known_setting_is_given_only_where_the_space_holds_it(
    change: dict[str, Any], inside: bool
) -> None:
    setting = fixed((BOOSTED, LINEAR), "xgboost.XGBClassifier", KNOWN | change)
    assert (setting is not None) == inside
    if setting is not None:
        assert setting["candidate"] == "xgboost.XGBClassifier"
        study = optuna.create_study(sampler=_sampler(0))
        study.enqueue_trial(setting)
        index, params = suggest(study.ask(), (BOOSTED, LINEAR))
        assert index == 0
        assert params == {name: (KNOWN | change)[name] for name in BOOSTED.space}


def test_a_setting_of_another_candidate_or_too_few_parameters_is_left_out() -> None:
    assert fixed((LINEAR,), "xgboost.XGBClassifier", KNOWN) is None
    assert fixed((BOOSTED,), "xgboost.XGBClassifier", {"max_depth": 3}) is None
