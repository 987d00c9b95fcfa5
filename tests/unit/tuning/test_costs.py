from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from holdtrue.declaration import Tune
from holdtrue.errors import TrainingError
from holdtrue.references import Trial
from holdtrue.tuning._choice import choose_trial, front
from holdtrue.tuning._costs import constraints_of, costs_of, mean_costs

X = np.arange(80, dtype="float32").reshape(40, 2)
Y = np.arange(40) % 2


def complete(number: int, value: float, *, within: bool = True, **costs: float) -> Trial:
    return Trial(
        number=number, candidate="a.A", params={}, state="complete", value=value, seconds=1.0,
        costs=costs, within_limits=within,
    )  # fmt: skip


def plan(**sections: Any) -> Tune:
    return Tune.model_validate({"metric": "log_loss"} | sections)


# --- what is measured ---


def test_the_size_is_that_of_what_is_written() -> None:
    model = LogisticRegression().fit(X, Y)
    found = costs_of(("model_kb",), model, model.predict_proba, X[:1])
    assert found == {"model_kb": len(pickle.dumps(model, protocol=5)) / 1_000}
    boosted = xgboost.XGBClassifier(n_estimators=7).fit(X, Y)
    booster = boosted.get_booster()
    size = len(booster.save_raw("json")) / 1_000
    for one in (boosted, booster):
        assert costs_of(("model_kb",), one, booster.inplace_predict, X[:1]) == {"model_kb": size}


def test_the_time_is_the_median_of_several_calls_with_one_row() -> None:
    asked = []

    def answer(row: np.ndarray) -> None:
        asked.append(row.shape)
        if len(asked) == 1:  # the first call of a model is no measure of the others
            sum(range(1_000_000))

    found = costs_of(("predict_ms",), None, answer, X[:1])
    assert set(asked) == {(1, 2)}
    assert len(asked) == 21
    assert 0 <= found["predict_ms"] < 5


def test_the_mean_is_over_the_folds() -> None:
    assert mean_costs([{"model_kb": 1.0}, {"model_kb": 4.0}]) == {"model_kb": 2.5}
    assert mean_costs([]) == {}


def test_a_constraint_is_the_share_beyond_the_limit() -> None:
    costs = {"model_kb": 150.0, "predict_ms": 1.0}
    assert constraints_of(costs, {"model_kb": 100.0, "predict_ms": 4.0}) == {
        "model_kb": 0.5,
        "predict_ms": -0.75,
    }
    assert constraints_of(costs, {}) == {}
    assert constraints_of({}, {"model_kb": 100.0}) == {}


# --- which trial is chosen ---


def test_without_a_wish_the_best_is_chosen() -> None:
    trials = [complete(0, 0.3), complete(1, 0.2), complete(2, 0.2)]
    assert choose_trial(plan(), trials) == (trials[1], None)
    assert choose_trial(plan(metric="roc_auc"), trials) == (trials[0], None)


def test_what_is_beyond_a_limit_is_not_chosen() -> None:
    trials = [
        complete(0, 0.1, within=False, model_kb=900.0),
        complete(1, 0.3, model_kb=100.0),
        complete(2, 0.2, model_kb=400.0),
    ]
    chosen, why = choose_trial(plan(limits={"model_kb": 500}), trials)
    assert chosen is trials[2]
    assert why == "trial 0 has the best log_loss but is beyond the limits: model_kb 900"


@pytest.mark.parametrize(
    ("costs", "said"),
    [
        ([(900, 1), (700, 3)], "the least model_kb is 700, 500 is allowed"),
        ([(900, 9), (400, 9)], "the least predict_ms is 9, 2 is allowed"),
        ([(900, 1), (400, 9)], "each of model_kb and predict_ms is kept by some, but not by the"),
    ],
)
def test_where_none_is_within_the_limits_it_is_said_by_how_much(
    costs: list[tuple[int, int]], said: str
) -> None:
    trials = [complete(0, 0.1, within=False, model_kb=kb, predict_ms=ms) for kb, ms in costs]
    with pytest.raises(TrainingError) as caught:
        choose_trial(plan(limits={"model_kb": 500, "predict_ms": 2}), trials)
    assert "tune.limits: none of 2 complete trials is within them: " in caught.value.message
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("within", "number"), [("0%", 1), ("4%", 1), ("5%", 2), ("49%", 2), ("50%", 4)]
)
def test_of_those_nearly_as_good_the_cheapest_is_chosen(within: str, number: int) -> None:
    trials = [
        complete(0, 0.2, within=False, model_kb=1.0),
        complete(1, 0.2, model_kb=90.0),
        complete(2, 0.21, model_kb=50.0),
        complete(3, 0.29, model_kb=50.0),
        complete(4, 0.3, model_kb=20.0),
    ]
    wish = plan(limits={"model_kb": 100}, choose={"least": "model_kb", "within": within})
    chosen, why = choose_trial(wish, trials)
    assert chosen.number == number
    assert (why is None) == (number == 1)
    if number == 4:
        assert why == (
            "of 4 trials within 0.5 of the best log_loss (0.2, trial 1: model_kb 90), "
            "it has the least model_kb: model_kb 20"
        )


def test_higher_metrics_may_be_lower_by_that_share() -> None:
    trials = [complete(0, 0.9, predict_ms=2.0), complete(1, 0.8, predict_ms=1.0)]
    for within, number in (("11%", 0), ("12%", 1)):
        wish = plan(metric="roc_auc", choose={"least": "predict_ms", "within": within})
        assert choose_trial(wish, trials)[0].number == number


@pytest.mark.parametrize("higher", [False, True])
@given(
    points=st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 9)), min_size=1, max_size=30),
)
def test_nothing_is_better_than_the_front_in_both(
    higher: bool, points: list[tuple[float, int]]
) -> None:
    trials = [complete(n, value, model_kb=cost) for n, (value, cost) in enumerate(points)]
    found = front(trials, "model_kb", higher=higher)
    sign = -1 if higher else 1

    def beats(one: Trial, other: Trial) -> bool:
        a, b = ((sign * (t.value or 0.0), t.costs["model_kb"]) for t in (one, other))
        return a != b and a[0] <= b[0] and a[1] <= b[1]

    kept = {trial.number for trial in found}
    for trial in trials:
        beaten = any(beats(other, trial) for other in trials)
        assert not (beaten and trial.number in kept)
        same = [t for t in found if (t.value, t.costs) == (trial.value, trial.costs)]
        assert beaten or len(same) == 1
    costs = [trial.costs["model_kb"] for trial in found]
    assert all(a < b for a, b in zip(costs, [*costs[1:], math.inf], strict=True))
