from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from holdtrue.batch import Scored, _job, describe, list_inputs, score, score_files
from holdtrue.batch._pieces import Cells, Lines, pieces_of
from holdtrue.errors import ConfigError, DataError, ServingError, StackError
from holdtrue.models import Signature, pipeline, typed, write_bundle
from holdtrue.models._served import ServedModel
from holdtrue.store import alone

N = 300
BOOSTED = "xgboost.XGBClassifier"
CLASSES = ("early", "late")
ENDINGS = [".csv", ".parquet", ".jsonl"]
Bundle = tuple[Path, str]


@pytest.fixture(scope="module")
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


def make_bundle(path: Path, rows: pd.DataFrame, estimator: str, params: dict[str, Any]) -> Bundle:
    signature = Signature(
        target="y",
        task="classification",
        classes=CLASSES,
        columns={"code": "integer", "x": "number", "flag": "boolean", "text": "string"},
        categorical=("code", "text"),
    )
    fitted = pipeline(estimator, params, signature, seed=0, threads=1)
    late = (rows["x"].fillna(0) + (rows["code"].fillna(1) == 1).astype(float) > 0.3).to_numpy()
    fitted.fit(typed(rows, signature), late.astype("int64"))
    sample = [{"code": 1, "x": 0.5, "flag": True, "text": "a"}]
    digest = write_bundle(
        path, fitted, signature, estimator=estimator, params=params, sample=sample
    )
    return path, digest


@pytest.fixture(scope="module")
def bundle(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("bundles") / "one"
    return make_bundle(path, rows, BOOSTED, {"n_estimators": 30})


@pytest.fixture(scope="module")
def uncompiled(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("bundles") / "two"
    return make_bundle(path, rows, "sklearn.neighbors.KNeighborsClassifier", {})


def write(path: Path, rows: pd.DataFrame) -> Path:
    if path.name.endswith(".parquet"):
        rows.to_parquet(path, index=False)
    elif path.name.endswith(".jsonl"):
        whole = rows.astype(object).where(rows.notna(), None).to_dict("records")
        path.write_text("".join(json.dumps(row) + "\n" for row in whole))
    else:
        rows.to_csv(path, index=False)
    return path


def read(path: Path) -> pd.DataFrame:
    if path.name.endswith(".parquet"):
        return pd.read_parquet(path)
    if path.name.endswith(".jsonl"):
        return pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])
    return csv.read_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True)).to_pandas()


def records_of(rows: pd.DataFrame) -> list[dict[str, Any]]:
    columns = {}
    for name in ("code", "x", "flag", "text"):
        column = rows[name].astype(object)
        columns[name] = column.where(column.notna(), None).tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def online(bundle: Bundle, rows: pd.DataFrame) -> np.ndarray:
    """What the endpoint answers to the rows, one a request."""
    model = ServedModel.load(*bundle)
    return np.concatenate([model.predict(model.encode([record])) for record in records_of(rows)])


def probabilities(scored: pd.DataFrame) -> np.ndarray:
    return scored[[f"probability_{name}" for name in CLASSES]].to_numpy(dtype="float64")


def do(bundle: Bundle, source: Path, output: Path, **given: Any) -> Scored:
    return score_files(*bundle, list_inputs(source), output, **given)


# a table


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
    uncompiled: Bundle, rows: pd.DataFrame, tmp_path: Path
) -> None:
    assert not ServedModel.load(*uncompiled).compiled
    wanted = online(uncompiled, rows)
    np.testing.assert_allclose(probabilities(score(*uncompiled, rows)), wanted, rtol=1e-12)
    source = write(tmp_path / "rows.csv", rows)
    do(uncompiled, source, tmp_path / "out.parquet", piece_rows=70)
    found = probabilities(read(tmp_path / "out.parquet"))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_the_index_of_the_rows_does_not_matter(bundle: Bundle, rows: pd.DataFrame) -> None:
    shifted = rows.set_index(pd.Index(range(N, 2 * N)))
    np.testing.assert_array_equal(
        probabilities(score(*bundle, shifted)), probabilities(score(*bundle, rows))
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.iloc[:0], "there are no rows to score"),
        (lambda f: f.drop(columns="x"), "the rows: feature: x is not a column"),
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
    (folder / "notes.txt").write_text("x")
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


# rows that are not acceptable


def rejects_of(found: Scored) -> list[tuple[int, str | None, str]]:
    assert found.rejects is not None
    table = pq.read_table(found.rejects).to_pylist()
    return [(row["row"], row["column"], row["reason"]) for row in table]


def test_one_bad_row_does_not_end_the_job(
    bundle: Bundle, rows: pd.DataFrame, tmp_path: Path
) -> None:
    source = write(tmp_path / "rows.csv", rows)
    good = online(bundle, rows)
    spoilt = rows.astype({"x": object, "code": object})
    spoilt.loc[[100, 250], "x"] = "soon"
    spoilt.loc[250, "code"] = 1.5
    spoilt.loc[7, "x"] = np.inf
    write(source, spoilt)
    for piece_rows in (64, 1000):
        found = do(bundle, source, tmp_path / "out.parquet", piece_rows=piece_rows)
        assert (found.rows, found.rejected) == (N - 3, 3)
        assert found.rejects == tmp_path / "out.parquet.rejected.parquet"
        assert rejects_of(found) == [
            (7, "x", "expected a finite number or null, got inf"),
            (100, "x", "expected a finite number or null, got str"),
            (250, "code", "expected a whole number or null, got a fraction"),
            (250, "x", "expected a finite number or null, got str"),
        ]
        scored = read(tmp_path / "out.parquet")
        left = np.setdiff1d(np.arange(N), [7, 100, 250])
        assert scored["id"].tolist() == rows["id"].iloc[left].tolist()
        np.testing.assert_array_equal(probabilities(scored), good[left])
        assert (scored["x"].dtype, scored["code"].dtype) == ("float64", "float64")
        said = [*describe(found, tmp_path / "out.parquet")]
        assert said[1].startswith("rejected 3 rows: ")
    write(source, rows)
    assert do(bundle, source, tmp_path / "out.parquet").rejects is None
    assert not (tmp_path / "out.parquet.rejected.parquet").exists()


def test_lines_that_are_no_records_are_rejected(bundle: Bundle, tmp_path: Path) -> None:
    good = json.dumps({"code": 1, "x": 0.5, "flag": None, "text": "a"})
    left_out = json.dumps({"code": 1, "text": "a"})
    lines = [good, "{", "", "[1]", good, '{"code": true, "x": 1}', "  ", left_out, good]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(lines))
    for piece_rows in (1, 2, 100):
        found = do(bundle, source, tmp_path / "out.jsonl", piece_rows=piece_rows)
        assert (found.rows, found.rejected) == (4, 3)
        reasons = rejects_of(found)
        assert [(row, column) for row, column, _ in reasons][:2] == [(1, None), (2, None)]
        assert {row for row, _, _ in reasons[2:]} == {4}
        assert reasons[2][2] == "expected a whole number or null, got true or false"
        assert reasons[0][2].startswith("expected a JSON object, got text that is none")
        assert reasons[1][2] == "expected a JSON object, got list"


def test_csv_rows_of_another_length_are_rejected(bundle: Bundle, tmp_path: Path) -> None:
    lines = ["code,x,flag,text"]
    for i in range(50):
        lines.append("1,2" if i in (0, 20, 21, 49) else f"1,{i},true,a")
        if i % 10 == 0:
            lines.append("")
    source = tmp_path / "rows.csv"
    source.write_text("\n".join(lines))
    for piece_rows in (1, 5, 20, 1000):
        found = do(bundle, source, tmp_path / "out.csv", piece_rows=piece_rows)
        assert (found.rows, found.rejected) == (46, 4)
        assert rejects_of(found) == [
            (row, None, "expected 4 cells, got 2") for row in (0, 20, 21, 49)
        ]
        left = [i for i in range(50) if i not in (0, 20, 21, 49)]
        assert read(tmp_path / "out.csv")["x"].tolist() == left


def test_numbers_of_rows_stay_right_beside_what_was_set_aside(
    bundle: Bundle, tmp_path: Path
) -> None:
    lines = ["code,x,flag,text", "1", "1,soon,true,a", "1,2,true,a", "1,2,3", "1,late,true,a"]
    source = tmp_path / "rows.csv"
    source.write_text("\n".join(lines) + "\n")
    for piece_rows in (1, 2, 100):
        found = do(bundle, source, tmp_path / "out.csv", piece_rows=piece_rows)
        assert [(row, column) for row, column, _ in rejects_of(found)] == [
            (0, None),
            (1, "x"),
            (3, None),
            (4, "x"),
        ]


def test_nothing_is_written_where_no_row_is_acceptable(bundle: Bundle, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("code,x,flag,text\n1,soon,true,a\n1,late,true,a\n")
    with pytest.raises(DataError, match="no row can be scored: row 0, column x: expected a finite"):
        do(bundle, source, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
    assert len(pq.read_table(tmp_path / "out.csv.rejected.parquet")) == 2
    assert not (tmp_path / "out.csv.parts").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.csv", "", "cannot be read"),
        ("rows.csv", "code,x,flag,text\n", "there are no rows to score"),
        ("rows.csv", "code,X,flag,text\n1,2,true,a\n", r"feature: x is not a column"),
        ("rows.jsonl", "", "there are no rows to score"),
        ("rows.jsonl", '{"code": 1}', "feature: x is not a column"),
        ("rows.parquet", "none", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_scored(
    bundle: Bundle, tmp_path: Path, name: str, content: str, said: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=said):
        do(bundle, tmp_path / name, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_table_of_other_kinds_is_refused_as_a_whole(bundle: Bundle, tmp_path: Path) -> None:
    table = pa.table({"code": ["1"], "x": [0.5], "flag": [True], "text": ["a"]})
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="column code holds string values, expected integer"):
        do(bundle, tmp_path / "rows.parquet", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv.parts").exists()


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.csv cannot be read"):
        list_inputs(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="is not one of"):
        list_inputs(tmp_path / "rows.xlsx")
    with pytest.raises(ConfigError, match="holds no file that ends with"):
        list_inputs(tmp_path)


@pytest.mark.parametrize("name", ["out.xlsx", "nowhere/out.csv"])
def test_an_output_that_cannot_be_written(
    bundle: Bundle, rows: pd.DataFrame, tmp_path: Path, name: str
) -> None:
    source = write(tmp_path / "rows.csv", rows)
    with pytest.raises(ConfigError, match=name):
        do(bundle, source, tmp_path / name)


# going on


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_run_that_was_stopped_goes_on(
    bundle: Bundle,
    rows: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
) -> None:
    source, output = write(tmp_path / f"rows{ending}", rows), tmp_path / "out.parquet"
    do(bundle, source, tmp_path / "whole.parquet", piece_rows=64)
    real, asked = _job.score_piece, list[int]()

    def stopped(job: Any, number: int, piece: Any) -> Any:
        asked.append(number)
        if number == 3 and len(asked) == 4:
            raise KeyboardInterrupt
        return real(job, number, piece)

    monkeypatch.setattr(_job, "score_piece", stopped)
    with pytest.raises(KeyboardInterrupt):
        do(bundle, source, output, piece_rows=64)
    assert not output.exists()
    assert (tmp_path / "out.parquet.parts").is_dir()
    found = do(bundle, source, output, piece_rows=64)
    assert asked == [0, 1, 2, 3, 3, 4]
    assert (found.rows, found.kept) == (N, 3)
    pd.testing.assert_frame_equal(read(output), read(tmp_path / "whole.parquet"))
    assert not (tmp_path / "out.parquet.parts").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from holdtrue.batch import _job, list_inputs, score_files

real = _job.score_piece

def dies(job, number, piece):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(job, number, piece)

_job.score_piece = dies
bundle, digest, source, output = sys.argv[1:]
score_files(Path(bundle), digest, list_inputs(Path(source)), Path(output), piece_rows=64)
"""


def test_a_run_that_was_killed_goes_on(bundle: Bundle, rows: pd.DataFrame, tmp_path: Path) -> None:
    source, output = write(tmp_path / "rows.csv", rows), tmp_path / "out.csv"
    command = [sys.executable, "-c", KILLED, *map(str, (*bundle, source, output))]
    done = subprocess.run(command, check=False)  # noqa: S603 - our own code
    assert done.returncode == -signal.SIGKILL
    assert not output.exists()
    found = do(bundle, source, output, piece_rows=64)
    assert (found.rows, found.kept) == (N, 3)
    np.testing.assert_array_equal(probabilities(read(output)), online(bundle, rows))


def test_parts_of_another_input_are_not_used(
    bundle: Bundle,
    uncompiled: Bundle,
    rows: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, output = write(tmp_path / "rows.csv", rows), tmp_path / "out.parquet"
    real = _job.score_piece

    def stop_after_two(job: Any, number: int, piece: Any) -> Any:
        if number == 2:
            raise KeyboardInterrupt
        return real(job, number, piece)

    def stop() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(_job, "score_piece", stop_after_two)
            with pytest.raises(KeyboardInterrupt):
                do(bundle, source, output, piece_rows=64)

    stop()
    assert do(uncompiled, source, output, piece_rows=64).kept == 0
    stop()
    write(source, rows[::-1])
    found = do(bundle, source, output, piece_rows=64)
    assert found.kept == 0
    assert read(output)["id"].tolist() == rows["id"].tolist()[::-1]


def test_a_folder_of_somebody_else_is_left_alone(
    bundle: Bundle, rows: pd.DataFrame, tmp_path: Path
) -> None:
    source = write(tmp_path / "rows.csv", rows)
    (tmp_path / "out.csv.parts").mkdir()
    (tmp_path / "out.csv.parts" / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="was not made by"):
        do(bundle, source, tmp_path / "out.csv")
    assert (tmp_path / "out.csv.parts" / "mine.txt").exists()


def test_two_runs_do_not_write_the_same_output(
    bundle: Bundle, rows: pd.DataFrame, tmp_path: Path
) -> None:
    source = write(tmp_path / "rows.csv", rows)
    with (
        alone(tmp_path / ".out.csv.lock", "a prediction"),
        pytest.raises(StackError, match="runs already"),
    ):
        do(bundle, source, tmp_path / "out.csv")


def test_progress_is_told(bundle: Bundle, rows: pd.DataFrame, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    source = write(tmp_path / "rows.parquet", rows)
    do(
        bundle,
        source,
        tmp_path / "out.csv",
        piece_rows=100,
        progress=lambda done, total, words: told.append((done, total, words)),
    )
    assert told[:3] == [(n, N, f"{n:,} rows scored") for n in (100, 200, 300)]
    assert told[-1][2] == "writing out.csv"


def test_pieces_are_no_larger_than_asked_for(rows: pd.DataFrame, tmp_path: Path) -> None:
    for ending in ENDINGS:
        path = write(tmp_path / f"rows{ending}", rows)
        pieces = list(pieces_of(path, rows=70))
        assert len(pieces) == 5
        for piece in pieces[:-1]:
            if isinstance(piece, Cells):
                assert len(piece.table) == 70
            elif isinstance(piece, Lines):
                content = path.read_bytes()[piece.start : piece.stop]
                assert content.count(b"\n") == 70
            else:
                assert piece.stop - piece.start == 70
