from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from holdtrue.errors import ServingError
from holdtrue.evaluation import (
    _attribution,
    evenly,
    explained,
    learn_attribution,
    rows_explained,
    shares,
)
from holdtrue.models import ServedModel, Signature, pipeline, typed, write_bundle
from holdtrue.models._explain import Contributions

COLUMNS = ("a", "b", "idle")
ESTIMATORS: dict[str, dict[str, Any]] = {
    "xgboost.XGBClassifier": {"n_estimators": 20, "max_depth": 3},
    "sklearn.linear_model.LogisticRegression": {},
    "sklearn.neighbors.KNeighborsClassifier": {},
}


def given(values: np.ndarray, base: float = 0.5) -> Contributions:
    """Shapley values, shape (n_rows, 3) or (n_rows, 3, n_outputs)."""
    values = values.reshape(len(values), len(COLUMNS), -1)
    n_outputs = values.shape[2]
    return Contributions(
        columns=COLUMNS,
        outputs=("yes",) if n_outputs == 1 else tuple(f"c{n}" for n in range(n_outputs)),
        base=np.full((len(values), n_outputs), base),
        values=values,
        unit="log-odds",
        calibrated=False,
    )


def test_the_means_of_the_columns_add_up_to_the_mean_score() -> None:
    values = np.random.default_rng(0).normal([0.3, -0.1, 0.0], [1.0, 0.5, 0.0], (4_000, 3))
    found = learn_attribution(given(values))
    assert found is not None
    assert list(found.columns) == ["a", "b", "idle"]  # the largest share first
    assert found.outputs == ("yes",)
    (score,) = found.scores
    assert score == pytest.approx(0.5 + sum(c.means[0] for c in found.columns.values()))
    assert sum(c.share for c in found.columns.values()) == pytest.approx(1)
    assert found.columns["a"].share == pytest.approx(2 / 3, abs=0.02)
    assert found.stretches == 20


def test_what_days_do_to_a_column_is_its_spread() -> None:
    chance = np.random.default_rng(0)
    values = chance.normal(0, 0.01, (4_000, 3))
    values[:, 0] += np.repeat(np.tile([1.0, -1.0], 10), 200)
    found = learn_attribution(given(values))
    assert found is not None
    assert found.columns["a"].spreads[0] == pytest.approx(1, rel=0.01)
    # What is no matter is no reason for an alarm: a hundredth of all that moves a score.
    assert found.columns["idle"].spreads[0] == pytest.approx(0.01, rel=0.05)
    assert 1 <= found.limit < 1.5


def test_each_class_of_more_than_two_is_looked_at() -> None:
    values = np.random.default_rng(0).normal(size=(2_000, 3, 3))
    found = learn_attribution(given(values))
    assert found is not None
    assert found.outputs == ("c0", "c1", "c2")
    assert all(len(c.means) == len(c.spreads) == 3 for c in found.columns.values())
    assert found.columns["a"].means == pytest.approx(values[:, 0].mean(axis=0).tolist())


@pytest.mark.parametrize("values", [np.ones((999, 3)), np.zeros((4_000, 3))])
def test_nothing_is_learnt_of_few_rows_or_of_a_constant_model(values: np.ndarray) -> None:
    assert learn_attribution(given(values)) is None


def test_shares_of_what_moves_nothing_are_none() -> None:
    assert shares(np.zeros((3, 2, 1))).tolist() == [0.0, 0.0]
    assert shares(np.array([[[1.0], [-3.0]]])).tolist() == [0.25, 0.75]


@pytest.mark.parametrize(("n_rows", "taken"), [(0, 0), (10, 10), (11, 6), (4_001, 10)])
def test_rows_are_taken_evenly(n_rows: int, taken: int) -> None:
    assert len(range(n_rows)[evenly(n_rows, 10)]) == taken


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_rows_that_a_model_does_not_take_are_left_out(
    tmp_path: Path, estimator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = Signature(
        target="y",
        task="classification",
        classes=("no", "yes"),
        columns={"a": "number", "b": "number"},
        categorical=(),
    )
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 2)), columns=["a", "b"])
    model = pipeline(estimator, ESTIMATORS[estimator], signature, seed=0, threads=1)
    model.fit(typed(rows, signature), (rows["a"] > 0).astype("int64"))
    digest = write_bundle(
        tmp_path / "one",
        model,
        signature,
        estimator=estimator,
        params=ESTIMATORS[estimator],
        sample=[{"a": 0.5, "b": 0.1}],
    )
    served = ServedModel.load(tmp_path / "one", digest)
    columns = {name: rows[name].to_numpy(copy=True) for name in rows}
    columns["b"][7] = np.inf
    if served.scorer is None:
        with pytest.raises(ServingError, match="cannot be explained"):
            explained(served, columns, len(rows))
        return
    assert [rows_explained(served, learn=learn) for learn in (True, False)] == [4_000, 2_000]
    splits = served.explained_splits
    assert (splits > 20) == estimator.startswith("xgboost")
    # Of a large model fewer, or none where they would say nothing.
    monkeypatch.setattr(_attribution, "_SPLITS_TO_LEARN", 999 * max(1, splits))
    monkeypatch.setattr(_attribution, "_SPLITS_TO_COMPARE", 250 * max(1, splits))
    assert [rows_explained(served, learn=learn) for learn in (True, False)] == [0, 250]
    found = explained(served, columns, len(rows))
    kept = {name: np.delete(values, 7) for name, values in columns.items()}
    scores = served.predict(served.encode_columns(kept, 299))[:, 1]
    assert len(found.values) == 299
    assert found.scores[:, 0] == pytest.approx(np.log(scores / (1 - scores)), abs=1e-4)
