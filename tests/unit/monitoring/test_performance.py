from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from holdtrue.monitoring import check_performance, check_slices
from holdtrue.references import PerformanceCheck, SliceQuality

BEGIN = datetime(2024, 5, 1, tzinfo=UTC)


def _check(metric: str = "accuracy", share: float = 0.8, **given: Any) -> PerformanceCheck | None:
    """The model is right in a share of 1,000 rows."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, 1_000)
    right = np.arange(1_000) % 100 < share * 100
    sure = np.where(right, target, 1 - target) * 0.8 + 0.1
    arguments: dict[str, Any] = {
        "version": 3,
        "metric": metric,
        "direction": "higher",
        "target": target,
        "scores": np.column_stack([1 - sure, sure]),
        "classes": ("no", "yes"),
        "expected": 0.8,
        "worse_than": 0.1,
        "start": BEGIN,
        "end": BEGIN + timedelta(days=1),
        "seed": 0,
    }
    return check_performance(**arguments | given)


@pytest.mark.parametrize(
    ("share", "worse", "words"),
    [
        (0.8, False, "acceptable"),
        (0.71, False, "beyond it, but not surely"),
        (0.6, True, "worse than acceptable"),
    ],
)
def test_worse_only_if_sure(share: float, worse: bool, words: str) -> None:
    check = _check(share=share)
    assert check is not None
    assert check.worse is worse
    assert words in check.detail
    assert check.limit == pytest.approx(0.72)
    assert check.value.low < check.value.value < check.value.high
    assert "accuracy of version 3 is" in check.detail


def test_a_metric_that_is_better_when_lower() -> None:
    good = _check("log_loss", direction="lower", expected=0.5, share=0.8)
    bad = _check("log_loss", direction="lower", expected=0.5, share=0.5)
    assert good is not None
    assert bad is not None
    assert (good.worse, bad.worse) == (False, True)
    assert bad.limit == pytest.approx(0.55)


def test_regression() -> None:
    target = np.arange(500.0)
    check = _check(
        "rmse",
        direction="lower",
        target=target,
        scores=target + 3,
        classes=None,
        expected=1.0,
    )
    assert check is not None
    assert check.value.value == pytest.approx(3)
    assert check.worse


def test_the_same_seed_gives_the_same_interval() -> None:
    assert _check() == _check()
    assert _check() != _check(seed=1)


def test_one_bad_day_among_good_ones_is_not_a_worse_model() -> None:
    days = np.repeat(np.arange(5), 200)
    right = np.ones(1_000)
    right[days == 0] = 0
    target = np.zeros(1_000, dtype=int)
    scores = np.column_stack([right, 1 - right])
    by_row = _check(target=target, scores=scores, expected=0.95)
    by_day = _check(target=target, scores=scores, expected=0.95, blocks=days)
    assert by_row is not None
    assert by_day is not None
    assert by_row.worse
    assert not by_day.worse


@pytest.mark.parametrize(("n_days", "worse"), [(1, False), (2, False), (3, True)])
def test_a_few_blocks_are_not_judged(n_days: int, worse: bool) -> None:
    check = _check(share=0.5, blocks=np.arange(1_000) * n_days // 1_000)
    assert check is not None
    assert check.worse is worse
    assert worse or "not judged before 3 windows" in check.detail


def test_nothing_is_said_where_nothing_can_be_measured() -> None:
    few = np.zeros(199, dtype=int)
    assert _check(target=few, scores=np.full((199, 2), 0.5)) is None
    one_class = np.zeros(1_000, dtype=int)
    assert _check("roc_auc", target=one_class, scores=np.full((1_000, 2), 0.5)) is None


def _slices(right: list[float], n_days: int = 10, **given: Any) -> tuple[SliceQuality, ...]:
    """Slices of 300 rows, of which shares are answered rightly, each day as many of each."""
    n = 300
    name = np.repeat(np.arange(len(right)), n)
    number = np.tile(np.arange(n), len(right))
    target = number % 2
    good = (number // n_days) % 30 < np.array(right)[name] * 30
    sure = np.where(good, target, 1 - target) * 0.8 + 0.1
    texts = {"shop": np.array([f"s{one}" for one in name])}
    arguments: dict[str, Any] = {
        "version": 3,
        "metric": "accuracy",
        "direction": "higher",
        "target": target,
        "scores": np.column_stack([1 - sure, sure]),
        "classes": ("no", "yes"),
        "blocks": number % n_days,
        "texts": texts,
        "expected": {"shop": {f"s{one}": 0.9 for one in range(len(right))}},
        "worse_than": 0.1,
        "start": BEGIN,
        "end": BEGIN + timedelta(days=n_days),
        "seed": 0,
    }
    return check_slices(**arguments | given)


def test_the_slice_that_lost_most_comes_first_and_only_it_is_worse() -> None:
    found = _slices([0.9, 0.5, 0.84])
    assert [one.slice for one in found] == ["s1", "s2", "s0"]
    assert [one.worse for one in found] == [True, False, False]


def test_two_days_say_nothing_of_a_slice() -> None:
    (found,) = _slices([0.3], n_days=2)
    assert not found.worse
    assert "not judged before 3 windows have labels" in found.detail


def test_among_many_slices_chance_makes_none_worse() -> None:
    """What is as it was is beyond its own interval in some of 300 slices, and not worse."""
    worse, beyond = 0, 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        n, n_slices = 300, 50
        target = rng.integers(0, 2, n * n_slices)
        good = rng.random(n * n_slices) < 0.81
        sure = np.where(good, target, 1 - target) * 0.8 + 0.1
        found = _slices(
            [0.9] * n_slices,
            target=target,
            scores=np.column_stack([1 - sure, sure]),
            blocks=rng.integers(0, 10, n * n_slices),
        )
        assert len(found) == n_slices
        worse += any(one.worse for one in found)
        beyond += sum(one.value.high < one.limit for one in found)
    assert beyond > 2
    assert worse <= 1


def test_slices_without_an_expected_value_or_with_few_rows_are_left_out() -> None:
    (found,) = _slices([0.9, 0.9], expected={"shop": {"s1": 0.9}})
    assert found.slice == "s1"
    assert _slices([0.9], texts={"shop": np.array([f"s{n % 2}" for n in range(300)])}) == ()


def test_of_a_large_slice_ten_thousand_rows_are_measured() -> None:
    n = 25_000
    target = np.arange(n) % 2
    right = np.arange(n) % 3 != 1  # evenly taken, every third row is one that is right
    sure = np.where(right, target, 1 - target) * 0.8 + 0.1
    (found,) = _slices(
        [0.9],
        target=target,
        scores=np.column_stack([1 - sure, sure]),
        blocks=np.arange(n) % 10,
        texts={"shop": np.full(n, "s0")},
    )
    assert (found.rows, found.value.value) == (n, 1.0)


def test_a_slice_of_one_class_has_no_roc_auc() -> None:
    assert _slices([0.9], metric="roc_auc", target=np.zeros(300, dtype=int)) == ()
