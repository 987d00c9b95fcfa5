from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight

from holdtrue.declaration import Model
from holdtrue.errors import ConfigError
from holdtrue.models import (
    Answering,
    check_classes,
    check_new,
    class_weights,
    sample_weights,
)
from holdtrue.models._classes import cost_matrix, decide, threshold
from holdtrue.references import NewClass

CLASSES = ("early", "late", "on time")


def declared(**given: Any) -> Model:
    return Model.model_validate({"candidates": [{"estimator": "a.B"}], **given})


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    target = np.array([0, 0, 0, 1, 2, 2])
    found = sample_weights(target, CLASSES, "balanced")
    np.testing.assert_allclose(found, compute_sample_weight("balanced", target))


def test_classes_that_are_not_named_count_one() -> None:
    found = sample_weights(np.array([0, 1, 2]), CLASSES, {"late": 5.0})
    assert found is not None
    assert found.tolist() == [1.0, 5.0, 1.0]


def test_nothing_declared_is_no_weights() -> None:
    assert sample_weights(np.array([0, 1, 2]), CLASSES, None) is None


def test_a_class_without_rows_does_no_harm() -> None:
    found = class_weights(np.array([4, 0, 2]), CLASSES, "balanced")
    assert found is not None
    assert np.isfinite(found).all()


@st.composite
def decisions(draw: st.DrawFn) -> tuple[np.ndarray, tuple[tuple[float, ...], ...]]:
    n_classes = draw(st.integers(2, 5))
    weights = st.lists(st.integers(1, 100), min_size=n_classes, max_size=n_classes)
    rows = draw(st.lists(weights, min_size=1, max_size=8))
    costs = draw(st.lists(st.tuples(*[st.integers(-20, 20)] * n_classes), min_size=n_classes))
    probabilities = np.array(rows, dtype=np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities, tuple(tuple(map(float, row)) for row in costs[:n_classes])


@given(decisions())
def test_no_other_decision_is_expected_to_cost_less(
    made: tuple[np.ndarray, tuple[tuple[float, ...], ...]],
) -> None:
    probabilities, costs = made
    expected = probabilities @ np.array(costs)
    chosen = decide(probabilities, costs)
    np.testing.assert_allclose(
        expected[np.arange(len(chosen)), chosen], expected.min(axis=1), atol=1e-12
    )


@given(decisions())
def test_a_row_is_decided_the_same_alone_and_among_others(
    made: tuple[np.ndarray, tuple[tuple[float, ...], ...]],
) -> None:
    probabilities, costs = made
    alone = [int(decide(row[None, :], costs)[0]) for row in probabilities]
    assert decide(probabilities, costs).tolist() == alone


def test_equal_costs_choose_the_most_probable_class() -> None:
    probabilities = np.random.default_rng(0).dirichlet((1, 1, 1), 200)
    equal = tuple(tuple(float(i != j) for j in range(3)) for i in range(3))
    np.testing.assert_array_equal(decide(probabilities, equal), decide(probabilities, None))
    np.testing.assert_array_equal(decide(probabilities, None), probabilities.argmax(axis=1))


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ({"no": {"yes": 1}, "yes": {"no": 5}}, 1 / 6),
        ({"no": {"yes": 1}, "yes": {"no": 1}}, 1 / 2),
        ({"no": {"yes": 3}, "yes": {"no": 5, "yes": 4}}, 3 / 4),
        ({"no": {"yes": 1, "no": -1}, "yes": {"no": 2}}, 1 / 2),
    ],
)
def test_two_classes_are_told_apart_by_a_threshold(
    costs: dict[str, dict[str, float]], expected: float
) -> None:
    table = cost_matrix(("no", "yes"), costs)
    assert threshold(table) == pytest.approx(expected)
    assert Answering(costs=table).threshold == pytest.approx(expected)
    for p, answer in ((expected - 1e-6, 0), (expected + 1e-6, 1)):
        assert decide(np.array([[1 - p, p]]), table).tolist() == [answer]


def test_only_two_classes_have_a_threshold() -> None:
    assert Answering().threshold is None
    assert Answering(costs=cost_matrix(CLASSES, {"late": {"early": 1}})).threshold is None


def test_what_the_data_have_is_accepted() -> None:
    check_classes(declared(), CLASSES)
    check_classes(declared(class_weight="balanced"), CLASSES)
    costs = {"late": {"early": 5, "on time": 3}, "on time": {"late": 1}, "early": {"late": 1}}
    check_classes(declared(class_weight={"late": 2}, costs=costs), CLASSES)


@pytest.mark.parametrize(
    ("given", "said", "hint"),
    [
        (
            {"class_weight": {"Late": 2}},
            "model.class_weight.Late: the data have no class Late",
            "did you mean late?",
        ),
        (
            {"costs": {"lat": {"early": 2}}},
            "model.costs.lat: the data have no class lat",
            "did you mean late?",
        ),
        (
            {"costs": {"late": {"ontime": 2}}},
            "model.costs.late.ontime: the data have no class ontime",
            "did you mean on time?",
        ),
        (
            {"class_weight": {"x": 2}},
            "model.class_weight.x: the data have no class x",
            "known: early, late, on time",
        ),
        (
            {"costs": {"late": {"late": 1, "early": 2}}},
            "model.costs.late: deciding on time costs less than the right decision late",
            "write costs as {true class: {decided class: cost}}",
        ),
        (
            {"costs": {"late": {"early": 2, "on time": 2}}},
            "model.costs: deciding late never costs more than another decision",
            "say what it costs to decide late where the truth is early",
        ),
    ],
)
def test_what_the_data_do_not_have_is_refused(given: dict[str, Any], said: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        check_classes(declared(**given), CLASSES)
    assert caught.value.hint == hint


COSTS = {"early": {"late": 1}, "late": {"early": 5}}
NEW = {"on time": NewClass(rows=39, since=datetime(2024, 3, 2, 10, tzinfo=UTC))}


def test_a_class_that_cannot_be_learnt_yet_may_be_named() -> None:
    costs = {**COSTS, "on time": {"late": 1}}
    model = declared(class_weight={"on time": 2}, costs=costs)
    with pytest.raises(ConfigError, match="the data have no class on time"):
        check_classes(model, ("early", "late"))
    check_classes(model, ("early", "late"), {"on time": (0, 39)})


def test_a_new_class_without_costs_is_refused_with_since_when_and_how_many() -> None:
    check_new(declared(), NEW, "y")
    check_new(declared(costs={**COSTS, "late": {"on time": 1}}), NEW, "y")
    check_new(declared(costs=COSTS), {}, "y")
    with pytest.raises(ConfigError) as caught:
        check_new(declared(costs=COSTS), NEW, "y")
    assert caught.value.message == (
        "model.costs: class on time is new (39 rows, the first of 2024-03-02 10:00 UTC), and no "
        "cost of deciding it is declared, so it would always be the answer"
    )
    assert "data.contract.columns.y.allowed" in (caught.value.hint or "")
