from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdtrue.batch import check_output, write_table
from holdtrue.data import as_table, read_file
from holdtrue.errors import ConfigError, StackError
from holdtrue.store import alone

TIMES = pa.array([0, None, 1_700_000_000_123_456], pa.timestamp("us", "UTC"))
TABLE = pa.table(
    {
        "whole": pa.array([2**60 + 1, None, 3]),
        "number": pa.array([0.1, None, 1e300]),
        "text": pa.array(["ä", None, 'a "quoted",\nline']),
        "flag": pa.array([True, None, False]),
        "at": TIMES,
    }
)


def test_a_table_comes_back(tmp_path: Path) -> None:
    for ending in (".csv", ".parquet", ".jsonl"):
        path = tmp_path / f"rows{ending}"
        write_table(TABLE, path)
        back = pq.read_table(path) if ending == ".parquet" else as_table(read_file(path), "rows")
        assert back.column_names == TABLE.column_names
        assert back.drop_columns(["at"]).equals(TABLE.drop_columns(["at"])), ending
        if ending != ".jsonl":
            assert back["at"].cast(TIMES.type).combine_chunks().equals(TIMES), ending
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        *("rows.csv", "rows.jsonl", "rows.parquet")
    ]


def test_lines_are_records(tmp_path: Path) -> None:
    write_table(TABLE, tmp_path / "rows.jsonl")
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == dict.fromkeys(TABLE.column_names)
    assert json.loads(lines[2])["at"] == "2023-11-14T22:13:20.123456+00:00"


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    write_table(TABLE.slice(0, 0), tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_text() == "whole,number,text,flag,at\n"


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may be larger than 1,000 bytes, as if the disk were full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_what_is_there_stays_where_not_all_can_be_written(
    tmp_path: Path, small_files: None, ending: str
) -> None:
    path = tmp_path / f"rows{ending}"
    path.write_text("before")
    many = pa.table({"x": pa.array(np.random.default_rng(0).normal(size=10_000))})
    with pytest.raises(ConfigError, match=f"{path} cannot be written: "):
        write_table(many, path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_another_process_writes_is_left_to_it(tmp_path: Path) -> None:
    with (
        alone(tmp_path / ".rows.csv.lock", "a prediction"),
        pytest.raises(StackError, match=r"writing .*rows\.csv runs already"),
    ):
        write_table(TABLE, tmp_path / "rows.csv")


def test_what_cannot_be_written_is_told_before(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name, said in (
        ("rows.xlsx", "the ending must be"),
        ("none/rows.csv", "cannot be written: No such file or directory"),
        ("folder.csv", "cannot be written: Is a directory"),
    ):
        with pytest.raises(ConfigError, match=said):
            check_output(tmp_path / name)
    check_output(tmp_path / "rows.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.csv"]
