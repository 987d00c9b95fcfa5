from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdtrue.batch import Scored, _job, describe, list_inputs, score
from holdtrue.errors import ConfigError, DataError, ServingError
from holdtrue.models import Signature, pipeline, typed, write_bundle
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


def test_a_name_that_a_record_repeats_is_rejected(bundle: Bundle, tmp_path: Path) -> None:
    good = json.dumps({"code": 1, "x": 0.5, "flag": None, "text": "a: b"})
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join([good, '{"code": 1, "x": 1, "x": 2, "flag": null, "text": "a"}']))
    found = do(bundle, source, tmp_path / "out.jsonl")
    assert rejects_of(found) == [(1, None, "the name x is repeated in an object")]


def test_cells_that_are_not_utf8_are_rejected(bundle: Bundle, tmp_path: Path) -> None:
    lines = [b"code,x,flag,text", b"1,2,true,a", b"1,2", b"1,2\xff,true,caf\xe9", b"1,3,true,b"]
    lines += [b"1,2", b"1,4,true,c", b"\xff,5,true,d\xe9"]
    source = tmp_path / "rows.csv"
    source.write_bytes(b"\n".join(lines) + b"\n")
    for piece_rows in (1, 2, 100):
        found = do(bundle, source, tmp_path / "out.csv", piece_rows=piece_rows)
        assert (found.rows, found.rejected) == (3, 4)
        assert rejects_of(found) == [
            (1, None, "expected 4 cells, got 2"),
            (2, "x", "expected text in UTF-8, got the byte 0xff"),
            (2, "text", "expected text in UTF-8, got the byte 0xe9"),
            (4, None, "expected 4 cells, got 2"),
            (6, "code", "expected text in UTF-8, got the byte 0xff"),
            (6, "text", "expected text in UTF-8, got the byte 0xe9"),
        ]
        assert read(tmp_path / "out.csv")["text"].tolist() == ["a", "b", "c"]


def test_a_file_that_ends_in_what_is_not_utf8(bundle: Bundle, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_bytes(b'code,x,flag,text\n1,2,true,a\n1,2,true,"b\n\xe9"')
    found = do(bundle, source, tmp_path / "out.csv")
    assert (found.rows, found.rejected) == (1, 1)
    source.write_bytes(b'code,x,flag,text\n1,2,true,a\n1,2,true,"b\n\xe9')
    with pytest.raises(DataError, match="a quote that row 1 opens is never closed"):
        do(bundle, source, tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("cells", "column"),
    [
        ("1, 2,true,a", "x"),
        ("0x1f,2,true,a", "code"),
        ("1_0,2,true,a", "code"),
        ("1,2,yes,a", "flag"),
        ("1,2,2,a", "flag"),
    ],
)
def test_a_cell_is_what_the_endpoint_takes_it_for(
    bundle: Bundle, tmp_path: Path, cells: str, column: str
) -> None:
    source = tmp_path / "rows.csv"
    source.write_text(f"code,x,flag,text\n1,2,TRUE,a\n{cells}\n")
    found = do(bundle, source, tmp_path / "out.csv")
    assert (found.rows, found.rejected) == (1, 1)
    assert [(row, name) for row, name, _ in rejects_of(found)] == [(1, column)]


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
        ("rows.csv", "code,X,flag,text\n1,2,true,a\n", r"the feature x is not a column of .*rows"),
        ("rows.jsonl", "", "there are no rows to score"),
        ("rows.jsonl", '{"code": 1}', "the feature x is not a column of .*rows"),
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
    with pytest.raises(DataError, match=r"rows.parquet: column code holds string"):
        do(bundle, tmp_path / "rows.parquet", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv.parts").exists()


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: no such file$"):
        list_inputs(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="holds no file that ends with"):
        list_inputs(tmp_path)
    (tmp_path / "rows.xlsx").touch()
    with pytest.raises(ConfigError, match="is not one of"):
        list_inputs(tmp_path / "rows.xlsx")


@pytest.mark.parametrize("name", ["b.CSV", "b.arrow", "b.jsonl.gz", "README.md"])
def test_no_file_of_a_folder_is_left_out_in_silence(tmp_path: Path, name: str) -> None:
    for other in ("a.csv", "_SUCCESS", ".b.csv.crc"):
        (tmp_path / other).touch()
    assert list_inputs(tmp_path) == [tmp_path / "a.csv"]
    (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=f"{name} is not one of: .parquet") as said:
        list_inputs(tmp_path)
    assert "begin with _" in (said.value.hint or "")


@pytest.mark.parametrize("name", ["out.xlsx", "nowhere/out.csv"])
def test_an_output_that_cannot_be_written(
    bundle: Bundle, rows: pd.DataFrame, tmp_path: Path, name: str
) -> None:
    source = write(tmp_path / "rows.csv", rows)
    with pytest.raises(ConfigError, match=name):
        do(bundle, source, tmp_path / name)


# rows that the model fails on


class Moody:
    """A pipeline that answers some rows with no number, and raises where others are."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self.most_rows: list[int] = []

    def predict_proba(self, frame: pd.DataFrame) -> np.ndarray:
        self.most_rows.append(len(frame))
        if (frame["x"] > 1e6).any():
            message = "x is too much\nfor me"
            raise ArithmeticError(message)
        found: np.ndarray = self._pipeline.predict_proba(frame)
        found[frame["x"] < -1e6, 1] = np.nan
        return found


@pytest.fixture
def moody(uncompiled: Bundle, monkeypatch: pytest.MonkeyPatch) -> Moody:
    model = ServedModel.load(*uncompiled)
    mood = Moody(model.pipeline)
    changed = replace(model, pipeline=mood)
    monkeypatch.setattr(ServedModel, "load", lambda *_: changed)
    monkeypatch.setattr(_job, "_model", lambda *_: changed)
    return mood


RAISES = "the model fails on it: ArithmeticError: x is too much for me"
SILENT = "the model answers it with no finite number"


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_row_that_the_model_fails_on_does_not_end_the_job(
    uncompiled: Bundle,
    answered: np.ndarray,
    moody: Moody,
    rows: pd.DataFrame,
    tmp_path: Path,
    ending: str,
) -> None:
    spoilt = rows.copy()
    spoilt.loc[[7, 100, 101], "x"] = 1e9
    spoilt.loc[[8, 250], "x"] = -1e9
    spoilt.loc[[8, 9], "text"] = "new"
    source = write(tmp_path / f"rows{ending}", spoilt)
    for piece_rows in (64, 1000):
        found = do(uncompiled, source, tmp_path / "out.parquet", piece_rows=piece_rows)
        assert (found.rows, found.rejected) == (N - 5, 5)
        assert found.unknown == {"text": 1}  # of rows that were scored
        assert rejects_of(found) == [
            (7, None, RAISES),
            (8, None, SILENT),
            (100, None, RAISES),
            (101, None, RAISES),
            (250, None, SILENT),
        ]
        scored = read(tmp_path / "out.parquet")
        left = np.setdiff1d(np.arange(N), [7, 8, 9, 100, 101, 250])
        assert scored["id"].tolist() == rows["id"].drop([7, 8, 100, 101, 250]).tolist()
        found_now = probabilities(scored[scored["text"] != "new"])
        np.testing.assert_allclose(found_now, answered[left], rtol=1e-12)
    # By halves, not row by row.
    assert len(moody.most_rows) < N


def test_a_row_may_be_wrong_in_every_way(uncompiled: Bundle, moody: Moody, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    lines = ["code,x,flag,text", "1,soon,true,a", "1,1e9,true,a", "1,2", "1,-1e9,true,a", "1,0,1,a"]
    source.write_text("\n".join(lines))
    found = do(uncompiled, source, tmp_path / "out.csv")
    assert found.rows == 1
    assert [(row, column) for row, column, _ in rejects_of(found)] == [
        (0, "x"),
        (1, None),
        (2, None),
        (3, None),
    ]


def test_a_table_with_a_row_that_the_model_fails_on(
    uncompiled: Bundle, moody: Moody, rows: pd.DataFrame
) -> None:
    for value, said in ((1e9, RAISES), (-1e9, SILENT)):
        with pytest.raises(DataError, match=f"^row 3: {said}\n"):
            score(*uncompiled, rows.assign(x=rows["x"].where(rows.index != 3, value)))


def test_a_model_that_fails_on_every_row_says_so(
    uncompiled: Bundle, moody: Moody, rows: pd.DataFrame, tmp_path: Path
) -> None:
    source = write(tmp_path / "rows.csv", rows.assign(x=-1e9))
    with pytest.raises(DataError, match=f"no row can be scored: row 0: {SILENT}"):
        do(uncompiled, source, tmp_path / "out.csv")


def test_a_model_that_is_broken_ends_the_job_at_once(
    uncompiled: Bundle,
    moody: Moody,
    rows: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(self: Moody, frame: pd.DataFrame) -> np.ndarray:
        self.most_rows.append(len(frame))
        message = "no module named there"
        raise ImportError(message)

    monkeypatch.setattr(Moody, "predict_proba", broken)
    source = write(tmp_path / "rows.csv", rows)
    with pytest.raises(ServingError, match="the model fails: ImportError: no module named there"):
        do(uncompiled, source, tmp_path / "out.csv")
    assert len(moody.most_rows) == 2  # the piece, and its own sample
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_column_that_is_there_twice_is_refused(
    bundle: Bundle, rows: pd.DataFrame, tmp_path: Path, ending: str
) -> None:
    doubled = rows.assign(more=1, again=2).rename(columns={"again": "more"})
    source = tmp_path / f"rows{ending}"
    if ending == ".csv":
        doubled.to_csv(source, index=False)
    else:
        names = [*doubled.columns]
        values = [pa.array(doubled.iloc[:, i]) for i in range(len(names))]
        pq.write_table(pa.Table.from_arrays(values, names), source)
    with pytest.raises(DataError, match=f"rows{ending} has the column more twice"):
        do(bundle, source, tmp_path / "out.csv")


def test_a_quote_that_is_never_closed_loses_no_rows_in_silence(
    bundle: Bundle, rows: pd.DataFrame, tmp_path: Path
) -> None:
    source = tmp_path / "rows.csv"
    for place in ("first", "last"):
        named = {"first": ["note", *rows], "last": [*rows, "note"]}[place]
        write(source, rows.assign(text="a", note="ok")[named])
        whole = source.read_text()
        lines = whole.splitlines()
        lines[5] = lines[5].replace("ok", '"ok')
        source.write_text("\n".join(lines) + "\n")
        for piece_rows in (2, 1000):
            with pytest.raises(DataError, match="a quote that row 4 opens is never closed"):
                do(bundle, source, tmp_path / "out.csv", piece_rows=piece_rows)
        assert not (tmp_path / "out.csv").exists()
    source.write_text(whole.removesuffix("ok\n") + '"two\nlines"' + "\n" * 9)
    assert do(bundle, source, tmp_path / "out.csv").rows == N


def test_an_answer_that_would_replace_a_feature_is_refused(
    rows: pd.DataFrame, tmp_path: Path
) -> None:
    signature = Signature(
        target="y",
        task="regression",
        classes=None,
        columns={"prediction": "number"},
        categorical=(),
    )
    known = rows[["x"]].fillna(0).set_axis(["prediction"], axis=1)
    fitted = pipeline("sklearn.linear_model.Ridge", {}, signature, seed=0, threads=1)
    fitted.fit(typed(known, signature), known["prediction"].to_numpy())
    digest = write_bundle(
        tmp_path / "b",
        fitted,
        signature,
        estimator="sklearn.linear_model.Ridge",
        params={},
        sample=[{"prediction": 1.0}],
    )
    source = write(tmp_path / "rows.parquet", known)
    with pytest.raises(DataError, match="the answers have a column prediction, too"):
        do((tmp_path / "b", digest), source, tmp_path / "out.parquet")


def test_a_misspelt_file_is_told_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").touch()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"rows\.cvs: no such file \(did you mean .*rows\.csv\?\)$"):
        list_inputs(tmp_path / "rows.cvs")
    with pytest.raises(ConfigError, match="is not one of") as caught:
        list_inputs(tmp_path / "notes.txt")
    assert caught.value.hint == "convert it to one of them"  # there is no folder to leave it out of
