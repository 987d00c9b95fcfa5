from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdtrue.declaration import Declaration
from holdtrue.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def declare() -> Callable[..., Declaration]:
    """Make a declaration of sections; those that are left out are as small as they can be."""

    def make(**sections: Any) -> Declaration:
        data = {"source": {"files": "rows.csv"}, "target": "y"} | sections.pop("data", {})
        task = sections.setdefault("task", "classification")
        metric = "log_loss" if task == "classification" else "rmse"
        model = {"candidates": [{"estimator": "sklearn.linear_model.LogisticRegression"}]}
        return Declaration.model_validate(
            {"name": "small", "model": model, "tune": {"metric": metric}, "data": data} | sections
        )

    return make
