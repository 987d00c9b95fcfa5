from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from holdtrue.errors import TrainingError
from holdtrue.models import Signature
from holdtrue.tuning import _folds
from holdtrue.tuning._folds import Kept, cut, encode_folds


def test_ordered_folds_never_judge_earlier_rows() -> None:
    parts = list(cut(np.zeros(100), 4, ordered=True, classification=True, seed=0))
    assert len(parts) == 4
    for fit, judge in parts:
        assert len(fit) > 0
        assert fit.max() < judge.min()
    judged = np.concatenate([judge for _, judge in parts])
    assert len(judged) == len(set(judged)) == 80


def test_shuffled_folds_keep_the_share_of_each_class() -> None:
    target = np.array([1] * 20 + [0] * 80)
    parts = list(cut(target, 4, ordered=False, classification=True, seed=0))
    assert [int(target[judge].sum()) for _, judge in parts] == [5, 5, 5, 5]
    assert sorted(np.concatenate([judge for _, judge in parts])) == list(range(100))


@pytest.mark.parametrize("classification", [True, False])
def test_shuffled_folds_are_seeded(classification: bool) -> None:
    target = np.arange(60) % 2

    def judged(seed: int) -> list[list[int]]:
        parts = cut(target, 3, ordered=False, classification=classification, seed=seed)
        return [judge.tolist() for _, judge in parts]

    assert judged(0) == judged(0)
    assert judged(0) != judged(1)


@pytest.mark.parametrize(
    ("target", "ordered", "classification", "said"),
    [
        ([0, 1, 0], True, True, "3 rows cannot be cut into 3 folds"),
        ([0, 1], False, False, "2 rows cannot be cut into 3 folds"),
        ([0], False, True, "1 row cannot be cut into 3 folds"),
        ([0, 1, 0, 1], False, True, "4 rows with at most 2 of a class cannot be cut into 3 folds"),
    ],
)
def test_too_few_rows_for_the_folds_are_refused_in_a_sentence(
    target: list[int], ordered: bool, classification: bool, said: str
) -> None:
    with pytest.raises(TrainingError) as caught:
        list(cut(np.array(target), 3, ordered=ordered, classification=classification, seed=0))
    assert caught.value.message == said
    assert "fewer tune.folds" in (caught.value.hint or "")


@pytest.mark.filterwarnings("ignore:The least populated class")
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("classification", [True, False])
@pytest.mark.parametrize("n_folds", [2, 3, 5])
def test_just_enough_rows_are_cut(ordered: bool, classification: bool, n_folds: int) -> None:
    target = np.array([0] * n_folds + [1] * ordered)
    cuts = cut(target, n_folds, ordered=ordered, classification=classification, seed=0)
    assert all(len(fit) > 0 and len(judge) > 0 for fit, judge in cuts)


SIGNATURE = Signature(
    target="y",
    task="classification",
    classes=("no", "yes"),
    columns={"x": "number", "c": "string"},
    categorical=("c",),
)


def frame_and_target() -> tuple[pd.DataFrame, np.ndarray]:
    chance = np.random.default_rng(0)
    frame = pd.DataFrame({"x": chance.normal(size=90), "c": chance.choice(["a", "b", "z"], 90)})
    return frame.astype({"c": object}), np.asarray(chance.integers(0, 2, 90))


def test_the_encoder_sees_the_rows_to_fit_on_only(monkeypatch: pytest.MonkeyPatch) -> None:
    frame, target = frame_and_target()
    parts = list(cut(target, 3, ordered=True, classification=True, seed=0))
    seen: list[tuple[list[int], list[int]]] = []
    real = _folds.encoder

    def watched(kind, signature, *, seed):
        made = real(kind, signature, seed=seed)
        fit_transform = made.fit_transform

        def fitting(rows, y):
            seen.append((rows.index.tolist(), y.tolist()))
            return fit_transform(rows, y)

        made.fit_transform = fitting
        return made

    monkeypatch.setattr(_folds, "encoder", watched)
    encode_folds(frame, target, parts, "plain", SIGNATURE, 0)
    assert seen == [(fit.tolist(), target[fit].tolist()) for fit, _ in parts]


@pytest.mark.parametrize("kind", ["plain", "scaled"])
def test_what_a_fold_is_judged_on_does_not_change_what_it_is_fitted_on(kind: str) -> None:
    frame, target = frame_and_target()
    parts = list(cut(target, 3, ordered=True, classification=True, seed=0))
    folds = encode_folds(frame, target, parts, kind, SIGNATURE, 0)
    last = parts[0][1].min()
    other, changed = frame.copy(), target.copy()
    other.loc[last:, "x"] = 1e6
    other.loc[last:, "c"] = "never seen"
    changed[last:] = 1 - changed[last:]
    again = encode_folds(other, changed, parts, kind, SIGNATURE, 0)
    np.testing.assert_array_equal(folds[0].fit_x, again[0].fit_x)
    np.testing.assert_array_equal(folds[0].fit_y, again[0].fit_y)
    assert folds[0].fit_x.dtype == np.float32
    assert folds[0].judge_x.shape[1] == folds[0].fit_x.shape[1]


def test_too_few_rows_to_encode_are_refused_with_the_fold() -> None:
    frame, _ = frame_and_target()
    target = np.arange(24) % 2
    parts = list(cut(target, 3, ordered=True, classification=True, seed=0))
    with pytest.raises(TrainingError) as caught:
        encode_folds(frame[:24], target, parts, "plain", SIGNATURE, 0)
    assert caught.value.message.startswith(
        "the 6 rows that fold 1 of 3 is fitted on cannot be encoded: n_splits=5 cannot be greater"
    )
    assert "fewer tune.folds" in (caught.value.hint or "")


def test_weights_go_with_the_rows_to_fit_on() -> None:
    frame, target = frame_and_target()
    parts = list(cut(target, 3, ordered=True, classification=True, seed=0))
    weight = np.arange(90) + 1.0
    folds = encode_folds(frame, target, parts, "plain", SIGNATURE, 0, weight)
    for fold, (fit, _) in zip(folds, parts, strict=True):
        assert fold.fit_weight is not None
        np.testing.assert_array_equal(fold.fit_weight, weight[fit])
    assert encode_folds(frame, target, parts, "plain", SIGNATURE, 0)[0].fit_weight is None


def test_rows_to_fit_on_count_by_their_age_and_one_on_average() -> None:
    frame, target = frame_and_target()
    parts = list(cut(target, 3, ordered=True, classification=True, seed=0))
    # By the newest row of all, those of the first folds would count nothing.
    ages, weight = np.linspace(3_000, 0, 90), np.arange(90) + 1.0
    for given in (None, weight):
        folds = encode_folds(frame, target, parts, "plain", SIGNATURE, 0, given, ages)
        for fold, (fit, _) in zip(folds, parts, strict=True):
            assert fold.fit_weight is not None
            aged = 0.5 ** (ages[fit] - ages[fit].min())
            wanted = aged / aged.mean() * (1 if given is None else given[fit])
            np.testing.assert_allclose(fold.fit_weight, wanted, rtol=1e-6, atol=1e-30)


def test_what_is_kept_is_made_once() -> None:
    kept = Kept(100)
    made = [kept.get("study", "a", 10, object) for _ in range(3)]
    assert made[0] is made[1] is made[2]
    assert kept.get("study", "b", 10, object) is not made[0]
    assert kept.get("", "a", 10, object) is not made[0]
    assert kept.n_bytes == 20


def test_what_was_not_used_for_longest_goes_first() -> None:
    kept = Kept(30)
    first, second = (kept.get("study", name, 10, object) for name in "ab")
    kept.get("study", "c", 10, object)
    assert kept.get("study", "a", 10, object) is first
    kept.get("study", "d", 10, object)
    assert kept.n_bytes == 30
    assert kept.get("study", "a", 10, object) is first
    assert kept.get("study", "b", 10, object) is not second


def test_what_is_too_large_is_not_kept() -> None:
    kept = Kept(30)
    large = kept.get("study", "large", 31, object)
    assert kept.n_bytes == 0
    assert kept.get("study", "large", 31, object) is not large


def test_another_study_takes_the_place_of_all() -> None:
    kept = Kept(100)
    first = kept.get("one", "a", 10, object)
    kept.get("other", "b", 20, object)
    assert kept.n_bytes == 20
    assert kept.get("one", "a", 10, object) is not first
