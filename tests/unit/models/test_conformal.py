from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from holdtrue.declaration import Model
from holdtrue.errors import TrainingError
from holdtrue.models import Signature, learn_answering
from holdtrue.models._conformal import Interval, fit_interval
from holdtrue.models._fit import fit_pipeline

RIDGE = "sklearn.linear_model.Ridge"


def test_the_ends_are_errors_of_the_right_rank() -> None:
    # 19 errors and 90 %: of the 20 places of a new one, the first and the last are outside.
    found = fit_interval(np.arange(19.0), 0.9)
    assert (found.low, found.high, found.rows) == (0.0, 18.0, 19)
    found = fit_interval(np.arange(39.0)[::-1], 0.9)
    assert (found.low, found.high) == (1.0, 37.0)


@pytest.mark.parametrize(("share", "fewest"), [(0.9, 19), (0.95, 39), (0.8, 9), (0.5, 3)])
def test_too_few_rows_are_refused(share: float, fewest: int) -> None:
    fit_interval(np.arange(float(fewest)), share)
    with pytest.raises(TrainingError, match=f"needs at least {fewest} rows") as caught:
        fit_interval(np.arange(fewest - 1.0), share)
    assert "smaller share" in (caught.value.hint or "")


@given(st.lists(st.floats(-1e6, 1e6), min_size=30, max_size=200, unique=True), st.floats(0.05, 0.9))
def test_at_least_the_share_of_a_new_row_s_places_is_inside(
    errors: list[float], share: float
) -> None:
    # A new error takes each of the n + 1 places between the sorted ones equally often.
    found = fit_interval(np.array(errors), share)
    n = len(errors)
    ordered = sorted(errors)
    places = ordered.index(found.high) - ordered.index(found.low)
    assert share - 1e-9 <= places / (n + 1) <= share + 2 / (n + 1)


def make(n_rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    chance = np.random.default_rng(seed)
    x = chance.normal(size=(n_rows, 2))
    skewed = chance.gamma(1.5, size=n_rows)
    return pd.DataFrame(x, columns=["a", "b"]), 3 * x[:, 0] + skewed


SIGNATURE = Signature(
    target="y",
    task="regression",
    classes=None,
    columns={"a": "number", "b": "number"},
    categorical=(),
)


@pytest.mark.parametrize("ordered", [False, True], ids=["shuffled", "in time"])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_unseen_truths_are_inside_as_often_as_declared(share: float, ordered: bool) -> None:
    model = Model.model_validate({"candidates": [{"estimator": RIDGE}], "interval": share})
    frame, target = make(4_000, seed=1)
    given_ = (frame, target, SIGNATURE, RIDGE, {})
    learnt = learn_answering(*given_, seed=0, threads=1, model=model, folds=5, ordered=ordered)
    fitted = fit_pipeline(*given_, seed=0, threads=1, model=model)
    rows, truth = make(2_000, seed=2)
    ends = learnt.intervals(fitted.predict(rows))
    assert ends is not None
    below, above = int((truth < ends[:, 0]).sum()), int((truth > ends[:, 1]).sum())
    # The ends are random too: counts spread by sqrt(1 + 2000 / 3333) more than binomial ones.
    n, spread = 2_000, 3.5 * 1.3
    assert abs(n - below - above - n * share) < spread * binom.std(n, share)
    for missed in (below, above):
        assert abs(missed - n * (1 - share) / 2) < spread * binom.std(n, (1 - share) / 2)


def test_an_interval_survives_json_and_keeps_its_shape() -> None:
    found = Interval(share=0.9, low=-0.1, high=0.2, rows=10)
    assert Interval.model_validate_json(found.model_dump_json()) == found
    np.testing.assert_allclose(found(np.array([1.0, 2.0])), [[0.9, 1.2], [1.9, 2.2]])
