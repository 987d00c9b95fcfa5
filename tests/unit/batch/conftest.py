from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.unit.batch._files import BOOSTED, Bundle, N, make_bundle, online


@pytest.fixture(scope="session")
def rows() -> pd.DataFrame:
    chance = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "id": [f"row {i}" for i in range(N)],
            "code": pd.array(chance.integers(1, 4, N), dtype="Int64"),
            "x": chance.normal(size=N),
            "flag": pd.array(chance.random(N) > 0.5, dtype="boolean"),
            "text": chance.choice(["a", "b", 'c,"\nd'], N),
        }
    )
    for i, name in enumerate(("code", "x", "flag", "text")):
        frame.loc[i::17, name] = np.nan if name == "x" else None
    return frame


@pytest.fixture(scope="session")
def bundle(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("bundles") / "one"
    return make_bundle(path, rows, BOOSTED, {"n_estimators": 30})


@pytest.fixture(scope="session")
def uncompiled(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("bundles") / "two"
    return make_bundle(path, rows, "sklearn.neighbors.KNeighborsClassifier", {})


@pytest.fixture(scope="session")
def answered(uncompiled: Bundle, rows: pd.DataFrame) -> np.ndarray:
    """What the endpoint answers to the rows where it is not compiled, which takes long."""
    return online(uncompiled, rows)
