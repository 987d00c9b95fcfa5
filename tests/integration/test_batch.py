"""Files are scored by Ray workers as they are in one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from holdtrue.batch import _job, list_inputs, score_files
from holdtrue.errors import DataError
from holdtrue.models import Signature, pipeline, typed, write_bundle
from holdtrue.stack import Stack, ray_session
from holdtrue.store import Store

pytestmark = pytest.mark.integration

BOOSTED = "xgboost.XGBRegressor"


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    chance = np.random.default_rng(3)
    return pd.DataFrame({"x": chance.normal(size=900), "text": chance.choice(["a", "b"], 900)})


@pytest.fixture(scope="module")
def bundle(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    signature = Signature(
        target="y",
        task="regression",
        classes=None,
        columns={"x": "number", "text": "string"},
        categorical=("text",),
    )
    fitted = pipeline(BOOSTED, {"n_estimators": 20}, signature, seed=0, threads=1)
    fitted.fit(typed(rows, signature), rows["x"].to_numpy() ** 2)
    path = tmp_path_factory.mktemp("bundles") / "one"
    sample = [{"x": 0.5, "text": "a"}]
    return path, write_bundle(
        path, fitted, signature, estimator=BOOSTED, params={"n_estimators": 20}, sample=sample
    )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(Store(tmp_path_factory.mktemp("store")))
    with ray_session(stack, None):
        yield stack


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_workers_score_as_one_process_does(
    bundle: tuple[Path, str],
    rows: pd.DataFrame,
    stack: Stack,
    tmp_path: Path,
    ending: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Small files count as large ones, and what is scored in this process is not counted.
    monkeypatch.setattr(_job, "PIECE_BYTES", 1_000)
    left: list[int] = []
    real = _job._run_on_ray

    def on_ray(*given):
        rest = list(real(*given))
        left.append(len(rest))
        return iter(rest)

    monkeypatch.setattr(_job, "_run_on_ray", on_ray)
    spoilt = rows.assign(x=rows["x"].where(rows.index % 100 != 7, np.inf))
    source = tmp_path / f"rows.{ending}"
    if ending == "csv":
        spoilt.to_csv(source, index=False)
    elif ending == "jsonl":
        lines = spoilt.to_json(orient="records", lines=True).splitlines(keepends=True)
        source.write_text("".join("{\n" if i % 100 == 7 else t for i, t in enumerate(lines)))
    else:
        spoilt.to_parquet(source, index=False)
    told: list[str] = []
    monkeypatch.chdir(tmp_path)  # the workers are in another folder
    found = score_files(
        *bundle,
        list_inputs(Path(source.name)),
        tmp_path / "ray.parquet",
        stack=stack,
        piece_rows=100,
        progress=lambda done, total, words: told.append(words),
    )
    here = score_files(
        *bundle, list_inputs(Path(source.name)), tmp_path / "here.parquet", piece_rows=100
    )
    assert (found.rows, found.rejected) == (here.rows, here.rejected) == (891, 9)
    for name in ("", ".rejected.parquet"):
        pd.testing.assert_frame_equal(
            pd.read_parquet(tmp_path / f"ray.parquet{name}"),
            pd.read_parquet(tmp_path / f"here.parquet{name}"),
        )
    assert left == [0]
    assert "891 rows scored, 9 rejected" in told


def test_what_a_worker_refuses_is_said_as_it_is_here(
    bundle: tuple[Path, str], rows: pd.DataFrame, stack: Stack, tmp_path: Path
) -> None:
    rows.assign(x="word").to_parquet(tmp_path / "rows.parquet", index=False)
    with pytest.raises(DataError, match="column x holds string values, expected number"):
        score_files(
            *bundle,
            list_inputs(tmp_path / "rows.parquet"),
            tmp_path / "out.csv",
            stack=stack,
            piece_rows=100,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]
