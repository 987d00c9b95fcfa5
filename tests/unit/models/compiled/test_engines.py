from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from holdtrue.errors import ServingError
from holdtrue.models.compiled._engines import XGBoost


def test_what_is_no_model_is_refused_with_what_the_library_says() -> None:
    with pytest.raises(ServingError, match=r"XGBoost refuses XGBoosterLoadModelFromBuffer: .+"):
        XGBoost(b'{"learner": 1}')


def test_a_matrix_of_another_width_is_refused(case: Any) -> None:
    made = case("xgboost.XGBClassifier", "two", n_estimators=5)
    with pytest.raises(ServingError, match="XGBoost refuses XGBoosterPredictFromDense"):
        made.compiled.booster_engine().raw(np.zeros((2, 99), np.float32))


def test_a_model_that_is_not_of_xgboost_has_no_engine_of_it(case: Any) -> None:
    made = case("sklearn.linear_model.LogisticRegression", "two")
    with pytest.raises(ServingError, match="not one of XGBoost"):
        made.compiled.booster_engine()


@pytest.mark.parametrize("engine", ["onnx", "xgboost"])
def test_any_number_of_threads_get_the_same_answers(case: Any, engine: str) -> None:
    made = case("xgboost.XGBClassifier", "three", n_estimators=20)
    matrix = made.compiled.encode(made.records).matrix
    parts = [matrix[i : i + 1 + i % 37] for i in range(0, 400, 3)] * 3
    wanted = [made.compiled.scores(part, engine) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda part: made.compiled.scores(part, engine), parts))
    assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))
