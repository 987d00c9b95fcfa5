from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from holdtrue.evaluation import importance


@pytest.fixture
def frame(generator) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "noise": generator.normal(size=3_000),
            "strong": generator.normal(size=3_000),
            "weak": generator.normal(size=3_000),
            "group": pd.Series(["a", None, "b"] * 1_000, dtype="str"),
        }
    )


def predict(rows: pd.DataFrame) -> np.ndarray:
    return (3 * rows["strong"] + rows["weak"] + (rows["group"] == "a")).to_numpy(float)


@pytest.mark.parametrize("metric", ["rmse", "r2"])
def test_features_are_ordered_by_their_weight(frame, metric):
    before = frame.copy()
    found = importance(predict, frame, predict(frame), metric, None, seed=3)
    assert list(found) == ["strong", "weak", "group", "noise"]
    assert found["group"] > 0
    assert found["noise"] == 0
    pd.testing.assert_frame_equal(frame, before)


def test_the_same_seed_gives_the_same_answer(frame):
    target = predict(frame)
    once, again, other = (
        importance(predict, frame, target, "mae", None, seed=seed, sample=500, repeats=2)
        for seed in (3, 3, 4)
    )
    assert once == again
    assert once != other


def test_nothing_is_said_where_the_metric_is_undefined(frame):
    def scores(rows: pd.DataFrame) -> np.ndarray:
        return np.full((len(rows), 2), 0.5)

    target = np.zeros(len(frame), dtype=int)
    assert importance(scores, frame, target, "roc_auc", ("no", "yes"), seed=0) == {}
