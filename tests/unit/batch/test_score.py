from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdtrue.batch import Scored, describe, list_inputs, score
from holdtrue.batch._pieces import pieces_of
from holdtrue.errors import DataError, ServingError
from holdtrue.models._served import ServedModel
from tests.unit.batch._files import (
    ENDINGS,
    Bundle,
    N,
    do,
    online,
    probabilities,
    read,
    write,
)


def test_a_table_is_scored_with_the_bits_of_the_endpoint(
    bundle: Bundle, rows: pd.DataFrame
) -> None:
    scored = score(*bundle, rows)
    np.testing.assert_array_equal(probabilities(scored), online(bundle, rows))
    pd.testing.assert_frame_equal(scored[[*rows]], rows)
    late = scored["prediction"] == "late"
    assert ((scored["probability_late"] > 0.5) == late).all()
    assert 0 < late.sum() < N


def test_a_model_that_is_not_compiled_scores_too(
    uncompiled: Bundle, answered: np.ndarray, rows: pd.DataFrame, tmp_path: Path
) -> None:
    assert not ServedModel.load(*uncompiled).compiled
    np.testing.assert_allclose(probabilities(score(*uncompiled, rows)), answered, rtol=1e-12)
    source = write(tmp_path / "rows.csv", rows)
    do(uncompiled, source, tmp_path / "out.parquet", piece_rows=70)
    found = probabilities(read(tmp_path / "out.parquet"))
    np.testing.assert_allclose(found, answered, rtol=1e-12)


def test_the_index_of_the_rows_is_kept(bundle: Bundle, rows: pd.DataFrame) -> None:
    shuffled = rows.sample(frac=1, random_state=3)
    scored = score(*bundle, shuffled)
    pd.testing.assert_frame_equal(scored[[*rows]], shuffled)
    pd.testing.assert_frame_equal(scored.sort_index(), score(*bundle, rows))
    twice = shuffled.set_index(pd.Index([7] * N))
    np.testing.assert_array_equal(probabilities(score(*bundle, twice)), probabilities(scored))


def test_what_is_no_table_is_refused(bundle: Bundle, rows: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="the rows are list, expected a pandas DataFrame"):
        score(*bundle, rows.to_dict("records"))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="there are no rows to score"):
        score(*bundle, rows.head(0))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.iloc[:0], "there are no rows to score"),
        (lambda f: f.drop(columns="x"), "the feature x is not a column of the rows"),
        (lambda f: f.assign(x="word"), "column x holds string values, expected number"),
        (lambda f: f.assign(code=1.5), "row 0, column code: expected a whole number or null"),
        (lambda f: f.assign(x=np.inf), "row 0, column x: expected a finite number or null"),
    ],
)
def test_a_table_that_does_not_fit(bundle: Bundle, rows: pd.DataFrame, change, said) -> None:
    with pytest.raises(DataError, match=said):
        score(*bundle, change(rows))


# files


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("written", ENDINGS)
def test_a_file_is_scored_with_the_bits_of_the_endpoint(
    bundle: Bundle, rows: pd.DataFrame, tmp_path: Path, ending: str, written: str
) -> None:
    source = write(tmp_path / f"rows{ending}", rows)
    output = tmp_path / f"scored{written}"
    found = do(bundle, source, output, piece_rows=64)
    assert found == Scored(N, 0, None, {}, 0)
    scored = read(output)
    np.testing.assert_array_equal(probabilities(scored), online(bundle, rows))
    assert [*scored] == [*rows, "prediction", "probability_early", "probability_late"]
    assert scored["id"].tolist() == rows["id"].tolist()
    assert scored["x"].isna().tolist() == rows["x"].isna().tolist()
    np.testing.assert_array_equal(
        scored["x"].dropna().to_numpy(dtype="float64"), rows["x"].dropna().to_numpy()
    )
    assert {path.name for path in tmp_path.iterdir()} == {source.name, output.name}


@pytest.mark.parametrize("ending", ENDINGS)
def test_how_a_file_is_cut_does_not_change_it(
    bundle: Bundle, rows: pd.DataFrame, tmp_path: Path, ending: str
) -> None:
    source = write(tmp_path / f"rows{ending}", rows)
    contents = []
    for piece_rows in (1, 7, N - 1, N, 10 * N):
        output = tmp_path / "scored.jsonl"
        do(bundle, source, output, piece_rows=piece_rows)
        contents.append(output.read_bytes())
    assert {*contents} == {contents[0]}


def test_a_gap_in_a_file_does_not_change_the_other_rows(
    bundle: Bundle, rows: pd.DataFrame, tmp_path: Path
) -> None:
    whole = rows.dropna().assign(code=lambda f: f["code"].astype("int64"))
    do(bundle, write(tmp_path / "a.parquet", whole), tmp_path / "out.parquet")
    wanted = probabilities(read(tmp_path / "out.parquet"))
    gapped = whole.astype({"code": "float64"})  # as pandas reads 1.0, 2.0 and a gap
    gapped.iloc[0, gapped.columns.get_loc("code")] = np.nan
    do(bundle, write(tmp_path / "b.csv", gapped), tmp_path / "out.parquet")
    np.testing.assert_array_equal(probabilities(read(tmp_path / "out.parquet"))[1:], wanted[1:])


def test_cells_are_written_as_they_came(bundle: Bundle, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("zip,code,x,flag,text,\n007,1,1.50,true,a,pq\n008,2,+2,0,b,\n")
    do(bundle, source, tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    head = "zip,code,x,flag,text,,prediction,probability_early,probability_late"
    assert lines[0] == head
    assert lines[1].startswith("007,1,1.50,true,a,pq,")
    assert lines[2].startswith("008,2,+2,0,b,,")
    do(bundle, source, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["zip"].to_pylist() == ["007", "008"]
    assert table["x"].to_pylist() == [1.5, 2.0]


def test_a_compressed_file_and_a_folder(bundle: Bundle, rows: pd.DataFrame, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "day").mkdir(parents=True)
    write(folder / "a.parquet", rows[:100])
    text = rows[100:200].to_csv(index=False)
    (folder / "b.csv.gz").write_bytes(gzip.compress(text.encode()))
    write(folder / "day" / "c.jsonl", rows[200:])
    (folder / "_SUCCESS").touch()
    (folder / ".a.parquet.crc").touch()
    (folder / "_notes.txt").write_text("x")
    names = [path.relative_to(folder).as_posix() for path in list_inputs(folder)]
    assert names == ["a.parquet", "b.csv.gz", "day/c.jsonl"]
    found = do(bundle, folder, tmp_path / "out.parquet", piece_rows=30)
    assert found.rows == N
    scored = read(tmp_path / "out.parquet")
    assert scored["id"].tolist() == rows["id"].tolist()
    np.testing.assert_array_equal(probabilities(scored), online(bundle, rows))


def test_a_column_of_several_types_becomes_text(bundle: Bundle, tmp_path: Path) -> None:
    record = {"code": 1, "x": 0.5, "flag": True, "text": "a"}
    lines = [{"n": 1, **record}, {"n": "one", **record}, {"n": [1], **record}, record]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for piece_rows in (1, 4):
        do(bundle, source, tmp_path / "out.parquet", piece_rows=piece_rows)
        assert read(tmp_path / "out.parquet")["n"].tolist()[:3] == ["1", "one", "[1]"]
        do(bundle, source, tmp_path / "out.jsonl", piece_rows=piece_rows)
        back = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [row.get("n") for row in back] == [1, "one", [1], None]
        assert [*back[0]] == [*lines[0], "prediction", "probability_early", "probability_late"]


def test_answers_of_an_earlier_time_are_replaced(
    bundle: Bundle, rows: pd.DataFrame, tmp_path: Path
) -> None:
    do(bundle, write(tmp_path / "rows.parquet", rows), tmp_path / "a.parquet")
    do(bundle, tmp_path / "a.parquet", tmp_path / "b.parquet", piece_rows=64)
    pd.testing.assert_frame_equal(read(tmp_path / "a.parquet"), read(tmp_path / "b.parquet"))


def test_unknown_categories_are_scored_and_counted(
    bundle: Bundle, rows: pd.DataFrame, tmp_path: Path
) -> None:
    odd = rows.copy()
    odd.loc[[5, 250], "text"] = "new"
    odd.loc[6, "code"] = 99
    source = write(tmp_path / "rows.csv", odd)
    found = do(bundle, source, tmp_path / "out.csv", piece_rows=64)
    assert (found.rows, found.unknown) == (N, {"text": 2, "code": 1})
    assert "column text: 2 values are no categories that the model knows" in describe(
        found, tmp_path / "out.csv"
    )


def test_explanations_sum_to_the_score(bundle: Bundle, rows: pd.DataFrame, tmp_path: Path) -> None:
    source = write(tmp_path / "rows.parquet", rows)
    do(bundle, source, tmp_path / "out.parquet", explain=True, piece_rows=64)
    scored = read(tmp_path / "out.parquet")
    shares = scored[[f"why_{name}" for name in ("code", "x", "flag", "text")]]
    odds = np.log(scored["probability_late"] / scored["probability_early"])
    total = shares.sum(axis=1) + scored["explained_base"]
    np.testing.assert_allclose(total, scored["explained_score"], atol=1e-6)
    np.testing.assert_allclose(total, odds, atol=1e-5)
    pd.testing.assert_frame_equal(score(*bundle, rows, explain=True)[[*shares]], shares)


def test_a_model_that_is_not_explained_says_so(
    uncompiled: Bundle, rows: pd.DataFrame, tmp_path: Path
) -> None:
    source = write(tmp_path / "rows.parquet", rows)
    with pytest.raises(ServingError, match="not compiled"):
        do(uncompiled, source, tmp_path / "out.parquet", explain=True)
    assert not (tmp_path / "out.parquet").exists()


def test_no_more_of_a_row_group_is_read_than_the_piece_needs(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_rows = 300_000
    columns = {"code": [1], "x": [0.5], "flag": [True], "text": ["a"]}
    pq.write_table(pa.table({k: v * n_rows for k, v in columns.items()}), tmp_path / "rows.parquet")
    real, read_rows = pq.ParquetFile.iter_batches, list[int]()

    def counted(*given: Any, **named: Any) -> Any:
        for batch in real(*given, **named):
            read_rows.append(len(batch))
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    signature = ServedModel.load(*bundle).signature
    first = next(pieces_of(tmp_path / "rows.parquet", rows=1_000))
    assert first.read(signature, as_text=False).n_rows == 1_000
    assert sum(read_rows) < n_rows / 2
