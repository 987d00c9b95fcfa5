from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from holdtrue.models import Signature, pipeline, typed

N = 240


@pytest.fixture(scope="session")
def rows() -> pd.DataFrame:
    """Rows in the dtypes that snapshots are read in, with gaps in every column."""
    chance = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "whole": pd.array(chance.integers(0, 50, N), dtype="Int64"),
            "number": chance.normal(size=N),
            "flag": pd.array(chance.random(N) > 0.5, dtype="boolean"),
            "text": chance.choice(["a", "b", "é"], N),
            "code": pd.array(chance.integers(1, 4, N), dtype="Int64"),
            "level": chance.choice([1.0, 2.0, 2.5], N),
        }
    )
    for i, name in enumerate(frame):
        frame.loc[i :: len(frame.columns) * 3, name] = pd.NA if name != "number" else np.nan
    return frame.astype({"text": "str", "level": "float64"})


@pytest.fixture(scope="session")
def make_signature() -> Any:
    def make(classes: tuple[str, ...] | None) -> Signature:
        return Signature(
            target="y",
            task="regression" if classes is None else "classification",
            classes=classes,
            columns={
                "whole": "integer",
                "number": "number",
                "flag": "boolean",
                "text": "string",
                "code": "integer",
                "level": "number",
            },
            categorical=("text", "code", "level"),
        )

    return make


@pytest.fixture(scope="session")
def target(rows: pd.DataFrame) -> Any:
    """Make a target that depends on the rows: class index, or a value."""

    def make(classes: tuple[str, ...] | None) -> np.ndarray:
        noise = np.random.default_rng(1).normal(size=len(rows))
        value = rows["number"].fillna(0) + (rows["text"] == "a") + noise
        if classes is None:
            return value.to_numpy()
        return pd.qcut(value, len(classes), labels=False).to_numpy().astype("int64")

    return make


@pytest.fixture(scope="session")
def fit(rows: pd.DataFrame, make_signature: Any, target: Any) -> Any:
    def make(path: str, params: dict[str, Any], classes: tuple[str, ...] | None) -> Any:
        signature = make_signature(classes)
        fitted = pipeline(path, params, signature, seed=0, threads=1)
        return fitted.fit(typed(rows, signature), target(classes)), signature

    return make


@pytest.fixture(scope="session")
def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as a client would send them."""
    sent: list[dict[str, Any]] = json.loads(rows.to_json(orient="records"))
    return sent
