"""A small real model, written as a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import pytest

from holdtrue.models import Signature, pipeline, typed, write_bundle

if TYPE_CHECKING:
    from pathlib import Path


class Written(NamedTuple):
    path: Path
    digest: str
    rows: list[dict[str, object]]


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Written:
    signature = Signature(
        target="late",
        task="classification",
        classes=("no", "yes"),
        columns={"distance": "integer", "carrier": "string"},
        categorical=("carrier",),
    )
    rows = [{"distance": 100 * n, "carrier": "AB"[n % 2]} for n in range(40)]
    frame = typed(pd.DataFrame(rows), signature)
    model = pipeline("sklearn.linear_model.LogisticRegression", {}, signature, seed=0, threads=1)
    model.fit(frame, [n // 20 for n in range(40)])
    path = tmp_path_factory.mktemp("bundle") / "model"
    digest = write_bundle(
        path,
        model,
        signature,
        estimator="sklearn.linear_model.LogisticRegression",
        params={},
        sample=rows[:10],
    )
    return Written(path, digest, rows)
