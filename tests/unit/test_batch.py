from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from holdtrue.batch import read_rows, score, write_rows
from holdtrue.errors import ConfigError, DataError
from holdtrue.models import Bundle, Signature, pipeline, typed, write_bundle

N = 300
RIDGE = "sklearn.linear_model.Ridge"


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    chance = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id": [f"row {i}" for i in range(N)],
            "code": pd.array(chance.integers(1, 4, N), dtype="Int64"),
            "x": chance.normal(size=N),
        }
    )


@pytest.fixture(scope="module")
def bundle(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    signature = Signature(
        target="y",
        task="regression",
        classes=None,
        columns={"code": "integer", "x": "number"},
        categorical=("code",),
    )
    fitted = pipeline(RIDGE, {}, signature, seed=0, threads=1)
    target = rows["x"].to_numpy() + 10 * rows["code"].to_numpy(dtype="float64")
    fitted.fit(typed(rows, signature), target)
    path = tmp_path_factory.mktemp("bundles") / "one"
    sample = [{"code": 1, "x": 0.5}]
    return path, write_bundle(path, fitted, signature, estimator=RIDGE, params={}, sample=sample)


def test_rows_are_scored_as_the_endpoint_would(
    bundle: tuple[Path, str], rows: pd.DataFrame
) -> None:
    scored = score(*bundle, rows)
    loaded = Bundle.load(*bundle)
    records = [
        {"code": int(c), "x": float(x)} for c, x in zip(rows["code"], rows["x"], strict=True)
    ]
    np.testing.assert_allclose(scored["prediction"], loaded.predict(loaded.frame(records)))
    pd.testing.assert_frame_equal(scored[["id", "code", "x"]], rows)
    assert np.abs(scored["prediction"] - rows["x"] - 10 * rows["code"].astype(float)).max() < 1


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_a_gap_in_a_file_does_not_change_the_other_rows(
    bundle: tuple[Path, str], rows: pd.DataFrame, tmp_path: Path, ending: str
) -> None:
    wanted = score(*bundle, rows)["prediction"].to_numpy()
    gapped = rows.copy()
    gapped.loc[0, "code"] = pd.NA  # pandas reads the column as 1.0, 2.0, ... from now on
    path = tmp_path / f"rows{ending}"
    write_rows(path, gapped)
    found = score(*bundle, read_rows(path))["prediction"].to_numpy()
    np.testing.assert_allclose(found[1:], wanted[1:])


def test_the_index_of_the_rows_does_not_matter(
    bundle: tuple[Path, str], rows: pd.DataFrame
) -> None:
    wanted = score(*bundle, rows)["prediction"].to_numpy()
    shifted = rows.set_index(pd.Index(range(N, 2 * N)))
    np.testing.assert_array_equal(score(*bundle, shifted)["prediction"], wanted)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.iloc[:0], "there are no rows to score"),
        (lambda f: f.drop(columns="x"), "the rows: feature: x is not a column"),
        (lambda f: f.assign(x="word"), "column x holds string values, expected number"),
        (lambda f: f.assign(code=1.5), "column code holds values that are no whole numbers"),
    ],
)
def test_rows_that_do_not_fit(bundle: tuple[Path, str], rows: pd.DataFrame, change, said) -> None:
    with pytest.raises(DataError, match=said):
        score(*bundle, change(rows))


@pytest.mark.parametrize("name", ["rows.xlsx", "nowhere/rows.csv"])
def test_a_file_that_cannot_be_written(rows: pd.DataFrame, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        write_rows(tmp_path / name, rows)
