"""Files with times as features get the scores of the endpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdtrue.batch import score
from holdtrue.errors import DataError, ServingError
from holdtrue.models import Signature, pipeline, typed, write_bundle
from holdtrue.models._fit import json_columns, sample_of
from holdtrue.models._served import ServedModel
from tests.unit.batch._files import BOOSTED, ENDINGS, Bundle, do, probabilities, read, write

N = 200
SIGNATURE = Signature(
    target="y",
    task="classification",
    classes=("early", "late"),
    columns={"x": "number", "due": "time"},
    categorical=(),
)
KINDS = ["datetime64[s]", "datetime64[us]", "datetime64[ns, UTC]", "datetime64[us, Europe/Berlin]"]


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    chance = np.random.default_rng(0)
    due = pd.Series(chance.integers(1_600_000_000, 1_700_000_000, N).astype("M8[s]"))
    frame = pd.DataFrame({"x": chance.normal(size=N), "due": due})
    frame.loc[::11, "due"] = None
    return frame


@pytest.fixture(scope="module", params=[BOOSTED, "sklearn.neighbors.KNeighborsClassifier"])
def bundle(request, rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    params = {"n_estimators": 30} if request.param == BOOSTED else {}
    fitted = pipeline(request.param, params, SIGNATURE, seed=0, threads=1)
    late = (rows["due"].dt.hour + 10 * rows["x"] > 12).astype("int64")
    fitted.fit(typed(rows, SIGNATURE), late)
    path = tmp_path_factory.mktemp("bundles") / "times"
    sample = sample_of(rows, SIGNATURE)
    digest = write_bundle(
        path, fitted, SIGNATURE, estimator=request.param, params=params, sample=sample
    )
    return path, digest


def in_kind(rows: pd.DataFrame, kind: str) -> pd.DataFrame:
    due = rows["due"].dt.tz_localize("UTC")
    if "," not in kind:
        due = due.dt.tz_localize(None)
    return rows.assign(due=due.astype(kind))


def online(bundle: Bundle, rows: pd.DataFrame) -> np.ndarray:
    model = ServedModel.load(*bundle)
    columns = json_columns(rows, SIGNATURE)
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return np.concatenate([model.predict(model.encode([record])) for record in records])


@pytest.fixture(scope="module")
def answered(bundle: Bundle, rows: pd.DataFrame) -> np.ndarray:
    """What the endpoint answers to the rows, one a request."""
    return online(bundle, rows)


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_scored_with_the_bits_of_the_endpoint(
    bundle: Bundle, answered: np.ndarray, rows: pd.DataFrame, kind: str, tmp_path: Path
) -> None:
    assert np.unique(answered).size > 4
    given = in_kind(rows, kind)
    np.testing.assert_allclose(probabilities(score(*bundle, given)), answered, rtol=1e-12)
    source = write(tmp_path / "rows.parquet", given)
    do(bundle, source, tmp_path / "out.parquet", piece_rows=64)
    scored = read(tmp_path / "out.parquet")
    np.testing.assert_allclose(probabilities(scored), answered, rtol=1e-12)
    assert scored["due"].isna().tolist() == rows["due"].isna().tolist()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", KINDS[1:3])
def test_files_of_text_are_scored_the_same(
    bundle: Bundle,
    answered: np.ndarray,
    rows: pd.DataFrame,
    kind: str,
    ending: str,
    tmp_path: Path,
) -> None:
    given = in_kind(rows, kind)
    if ending == ".jsonl":
        texts = [None if pd.isna(value) else value.isoformat() for value in given["due"]]
        given = given.assign(due=pd.Series(texts, dtype=object))
    source = write(tmp_path / f"rows{ending}", given)
    found = do(bundle, source, tmp_path / f"out{ending}", piece_rows=64, explain=False)
    assert (found.rows, found.rejected) == (N, 0)
    scored = probabilities(read(tmp_path / f"out{ending}"))
    np.testing.assert_allclose(scored, answered, rtol=1e-12)


def test_dates_are_scored_as_their_start(
    bundle: Bundle, rows: pd.DataFrame, tmp_path: Path
) -> None:
    days = rows.assign(due=rows["due"].dt.floor("D"))
    table = pa.table({"x": rows["x"], "due": pa.array(days["due"]).cast(pa.date32())})
    pq.write_table(table, tmp_path / "rows.parquet")
    do(bundle, tmp_path / "rows.parquet", tmp_path / "out.parquet")
    found = probabilities(read(tmp_path / "out.parquet"))
    np.testing.assert_allclose(found, online(bundle, days), rtol=1e-12)


def test_rows_with_no_time_are_set_aside(bundle: Bundle, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text(
        "x,due\n1.0,2024-05-01\n1.0,soon\n1.0,\n1.0,2300-01-01\n1.0,2024-05-01 08:30\n"
    )
    found = do(bundle, source, tmp_path / "out.csv")
    assert (found.rows, found.rejected) == (3, 2)
    rejected = pd.read_parquet(found.rejects or "")
    assert rejected["row"].tolist() == [1, 3]
    assert rejected["column"].tolist() == ["due", "due"]
    assert "expected a date or time as in ISO 8601" in rejected["reason"][0]
    late = pd.DataFrame(
        {"x": [1.0] * 3, "due": pd.Series(["2024-01-01", "9999-12-31", None], dtype="M8[us]")}
    )
    do(bundle, write(tmp_path / "rows.parquet", late), tmp_path / "out.parquet")
    assert len(read(tmp_path / "out.parquet")) == 2
    with pytest.raises(DataError, match=r"row 1, column due: expected a date or time"):
        score(*bundle, late)
    texts = pd.DataFrame({"x": [1.0] * 3, "due": ["2024-05-01", None, "2024-05-01T08:30"]})
    times = texts.assign(due=pd.to_datetime(texts["due"], format="ISO8601"))
    np.testing.assert_array_equal(
        probabilities(score(*bundle, texts)), probabilities(score(*bundle, times))
    )
    with pytest.raises(DataError, match=r"row 1, column due: expected a date or time"):
        score(*bundle, texts.assign(due=["2024-05-01", "soon", None]))
    with pytest.raises(DataError, match="column due holds number values, expected time"):
        score(*bundle, late.assign(due=1.5))


def test_an_explanation_has_one_column_for_a_time(bundle: Bundle, rows: pd.DataFrame) -> None:
    if not ServedModel.load(*bundle).compiled:
        with pytest.raises(ServingError, match="cannot be explained"):
            score(*bundle, rows, explain=True)
        return
    scored = score(*bundle, rows, explain=True)
    why = [name for name in scored if name.startswith("why_")]
    assert why == ["why_x", "why_due"]
    total = scored[why].sum(axis=1) + scored["explained_base"]
    np.testing.assert_allclose(total, scored["explained_score"], atol=1e-6)
