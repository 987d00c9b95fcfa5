from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from holdtrue.store import HOME_VARIABLE
from holdtrue.system import System

N = 600
DECLARED: dict[str, Any] = {
    "name": "small",
    "task": "classification",
    "data": {
        "source": {"files": "rows.csv"},
        "target": "y",
        "time": "at",
        "key": ["id"],
        "labels_after": "1h",
        "window": "30d",
        "as_of": "2024-01-31",
        "contract": {"rows": {"min": 100}, "columns": {"size": {"min": 0, "max": 100}}},
    },
    "features": {"numeric": ["size", "weight"], "categorical": ["color"]},
    "model": {
        "candidates": [
            {
                "estimator": "sklearn.linear_model.LogisticRegression",
                "space": {"C": {"float": [0.1, 10.0], "log": True}},
            }
        ]
    },
    "tune": {"metric": "log_loss", "trials": 3, "folds": 2, "timeout": "5m"},
    "evaluate": {"test": "6d", "metrics": ["roc_auc", "log_loss"], "slices": ["color"]},
    "promote": [{"metric": "roc_auc", "at_least": 0.6}],
    "serve": {"port": 8_799},
    "monitor": {"window": "1d", "performance": {"metric": "log_loss", "worse_than": "10%"}},
}


def changed(place: str, value: Any) -> dict[str, Any]:
    """The declaration with one value changed: ``tune.trials``."""
    document: dict[str, Any] = yaml.safe_load(yaml.safe_dump(DECLARED))
    section = document
    *path, last = place.split(".")
    for key in path:
        section = section.setdefault(key, {})
    section[last] = value
    return document


def write_rows(folder: Path) -> None:
    chance = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "id": np.arange(N),
            "at": pd.date_range("2024-01-01", periods=N, freq="72min"),
            "size": chance.integers(0, 100, N),
            "weight": chance.normal(size=N),
            "color": chance.choice(["red", "green"], N),
        }
    )
    frame["y"] = (frame["weight"] + chance.normal(size=N) > 0).astype(int)
    frame.to_csv(folder / "rows.csv", index=False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with rows, a declaration and a store of its own."""
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    (tmp_path / "pyproject.toml").touch()
    write_rows(tmp_path)
    return tmp_path


@pytest.fixture
def system(project: Path) -> Callable[..., System]:
    """Make the system of the project: ``system()`` or ``system("tune.trials", 5)``."""

    def make(place: str | None = None, value: Any = None) -> System:
        document = DECLARED if place is None else changed(place, value)
        path = project / "small.yaml"
        path.write_text(yaml.safe_dump(document))
        return System(path)

    return make
