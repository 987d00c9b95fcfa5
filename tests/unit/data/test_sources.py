from __future__ import annotations

import datetime as dt
import gzip
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from holdtrue.data import fingerprint, import_from, read_file, read_source
from holdtrue.data._files import list_files
from holdtrue.declaration import Data
from holdtrue.errors import ConfigError, DataError, NoSourceError, SourceError

START = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)
END = dt.datetime(2024, 1, 4, tzinfo=dt.UTC)
ROWS = """\
at,x,day
2024-01-03T00:00:00,3,2024-01-03
2024-01-01T00:00:00,1,2024-01-01
2024-01-04T00:00:00,4,2024-01-04
2024-01-02T00:00:00,2,2024-01-02
2024-01-03T23:59:59,5,2024-01-03
"""


def files(pattern: str, time: str | None = None) -> Data:
    return Data.model_validate({"source": {"files": pattern}, "target": "x", "time": time})


def python(path: str, time: str | None = None) -> Data:
    return Data.model_validate({"source": {"python": path}, "target": "x", "time": time})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a source of its own; imported modules are forgotten afterwards."""
    import sys

    (tmp_path / "sources_of_a_test.py").write_text(
        "import pandas as pd\n"
        "seen = []\n"
        "def rows(start, end):\n"
        "    seen.append((start, end))\n"
        "    return pd.DataFrame({'at': pd.date_range('2024-01-01', periods=5), 'x': range(5)})\n"
        "def fails(start, end):\n"
        "    raise RuntimeError('the disk is on fire')\n"
        "def away(start, end):\n"
        "    raise ConnectionResetError('reset by peer')\n"
        "def nothing(start, end):\n"
        "    return None\n"
        "def wrong_arguments():\n"
        "    return None\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "sources_of_a_test", raising=False)
    return tmp_path


def test_a_function_gives_the_rows_of_the_window(project: Path) -> None:
    table = read_source(python("sources_of_a_test.rows", "at"), project, START, END)
    assert table["x"].to_pylist() == [1, 2]
    seen = import_from(project, "sources_of_a_test.seen", "source", ())
    assert seen == [(START, END)]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fails", "the source .*fails failed: RuntimeError: the disk is on fire"),
        ("nothing", "returned NoneType, expected a pandas DataFrame"),
        ("wrong_arguments", "failed: TypeError"),
    ],
)
def test_a_function_that_fails(project: Path, name: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_source(python(f"sources_of_a_test.{name}"), project, None, None)


def test_a_function_says_by_an_error_of_the_machine_that_its_source_is_away(project: Path) -> None:
    with pytest.raises(SourceError, match="failed: ConnectionResetError: "):
        read_source(python("sources_of_a_test.away"), project, None, None)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("sources_of_a_test.row", "has no row.*did you mean sources_of_a_test.rows"),
        ("no_such_module.rows", "no_such_module.rows cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_function_that_does_not_exist(project: Path, path: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s){said}"):
        read_source(python(path), project, None, None)


def test_files_give_the_rows_of_the_window_in_order_of_time(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    table = read_source(files("rows.csv", "at"), tmp_path, START, END)
    assert table["x"].to_pylist() == [2, 3, 5]
    everything = read_source(files("rows.csv", "at"), tmp_path, None, None)
    assert everything["x"].to_pylist() == [1, 2, 3, 5, 4]
    assert read_source(files("rows.csv"), tmp_path, None, None)["x"].to_pylist() == [3, 1, 4, 2, 5]


def test_equal_times_stay_in_their_order(tmp_path: Path) -> None:
    lines = [f"2024-01-0{1 + i % 2},{i}" for i in range(8)]
    (tmp_path / "rows.csv").write_text("\n".join(["at,x", *lines]))
    table = read_source(files("rows.csv", "at"), tmp_path, None, None)
    assert table["x"].to_pylist() == [0, 2, 4, 6, 1, 3, 5, 7]


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet", ".jsonl"])
def test_every_ending_gives_the_same(tmp_path: Path, ending: str) -> None:
    frame = pd.DataFrame(
        {
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "flag": pd.array([True, None, False], dtype="boolean"),
            "text": ["a", None, "c"],
            "number": [1.5, None, 2.0],
        }
    )
    path = tmp_path / f"rows{ending}"
    if ending == ".parquet":
        frame.to_parquet(path)
    elif ending == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False)
    table = read_source(files(path.name), tmp_path, None, None)
    assert table.to_pydict() == {
        "whole": [1, None, 3],
        "flag": [True, None, False],
        "text": ["a", None, "c"],
        "number": [1.5, None, 2.0],
    }


def test_a_glob_joins_files_and_widens_types(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "b.csv").write_text("x,y\n1.5,\n")
    (tmp_path / "part" / "a.csv").write_text("x,y\n1,u\n")
    table = read_source(files("part/*.csv"), tmp_path, None, None)
    assert table.to_pydict() == {"x": [1.0, 1.5], "y": ["u", None]}
    absolute = read_source(files(str(tmp_path / "part" / "*.csv")), tmp_path, None, None)
    assert absolute.equals(table)


def test_files_with_different_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    (tmp_path / "b.csv").write_text("x\nword\n")
    with pytest.raises(DataError, match="do not have the same columns"):
        read_source(files("*.csv"), tmp_path, None, None)


def test_what_files_outside_of_the_window_hold_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,at\n1,2024-01-01T00:00:00\n")
    (tmp_path / "b.csv").write_text("x,at\nword,2024-01-05T00:00:00\n")
    day = datetime(2024, 1, 1, tzinfo=UTC)
    table = read_source(files("*.csv", "at"), tmp_path, day, day + timedelta(days=1))
    assert table["x"].to_pylist() == [1]
    with pytest.raises(DataError, match=r"a.csv and .*b.csv: .* x has incompatible types"):
        read_source(files("*.csv", "at"), tmp_path, day, None)


@pytest.mark.parametrize(
    ("pattern", "kind", "said"),
    [
        ("none/*.csv", NoSourceError, "no file matches none"),
        ("*.txt", ConfigError, "a.txt is not one of: .parquet, .csv, .csv.gz, .jsonl"),
    ],
)
def test_no_file(tmp_path: Path, pattern: str, kind: type[Exception], said: str) -> None:
    (tmp_path / "a.txt").write_text("x\n")
    with pytest.raises(kind, match=said):
        read_source(files(pattern), tmp_path, None, None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b""),
        ("a.csv", b"a,b\n1\n"),
        ("a.csv", b"a,\xff\n1,2\n"),
        ("a.csv.gz", b"x"),
        ("a.csv.gz", gzip.compress(b"a\n1\n", mtime=0)[:-9]),
        ("a.parquet", b"PAR1"),
        ("a.jsonl", b'{"a": 1}\n{"a": "x"}\n'),
        ("a.jsonl", b"[1]\n"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name} cannot be read: "):
        read_file(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        read_file(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="is not one of"):
        read_file(tmp_path / "none.xlsx")


def test_clock_times_stay_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("at,x\n12:30,1\n,2\n")
    assert read_file(tmp_path / "a.csv").to_pydict() == {"at": ["12:30", None], "x": [1, 2]}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["2024-01-01", "soon"], "at does not parse as times: 1 of 2 rows, the first is row 1"),
        ([1, 2], "the time column at does not parse.*type int64"),
        (["2024-01-01", "soon", ""], "at does not parse as times: 1 of 3 rows"),
    ],
)
def test_a_time_column_without_times(tmp_path: Path, values: list[object], said: str) -> None:
    lines = [f"{value},1" for value in values]
    (tmp_path / "a.csv").write_text("\n".join(["at,x", *lines]))
    with pytest.raises(DataError, match=said):
        read_source(files("a.csv", "at"), tmp_path, None, None)


def test_a_time_column_without_any(tmp_path: Path) -> None:
    empty = pa.table({"at": pa.array([None, None], pa.timestamp("us")), "x": [1, 2]})
    parquet.write_table(empty, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="the time column at is missing in all 2 rows"):
        read_source(files("a.parquet", "at"), tmp_path, None, None)


def test_rows_without_a_time_are_in_every_window_and_come_last(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("at,x\n,1\n2024-01-03,2\n2024-01-02,3\n2024-01-01,4\n")
    start, end = datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC)
    assert read_source(files("a.csv", "at"), tmp_path, start, end)["x"].to_pylist() == [3, 1]
    both = read_source(files("a.csv", "at"), tmp_path, None, None)["x"].to_pylist()
    assert both == [4, 3, 2, 1]


def test_text_that_is_not_utf8_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("name,x\nJosé,1\n".encode("latin-1"))
    with pytest.raises(
        DataError, match=r"column name has values that are not text in UTF-8\n.*iconv"
    ):
        read_source(files("a.csv"), tmp_path, None, None)


def test_a_missing_time_column_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("arrival,x\n2024-01-01,1\n")
    with pytest.raises(
        DataError, match=r"data.time: arival is not a column of .*rows.csv \(did you mean arriv"
    ):
        read_source(files("rows.csv", "arival"), tmp_path, None, None)


def test_text_with_zones_parses_as_times(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"at": "2024-01-01T02:00:00+02:00", "x": 1}\n{"at": "2024-01-01T01:00:00Z", "x": 2}\n'
    )
    table = read_source(files("a.jsonl", "at"), tmp_path, None, None)
    assert [at.hour for at in table["at"].to_pylist()] == [0, 1]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_text_in_a_column_that_is_declared_to_hold_times_is_read_as_such(
    tmp_path: Path, ending: str
) -> None:
    frame = pd.DataFrame({"x": [1, 2, 3], "born": ["2024-01-01", "2024-01-02T05:00:00Z", None]})
    path = tmp_path / f"a{ending}"
    if ending == ".csv":
        frame.to_csv(path, index=False)
    elif ending == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    table = read_source(files(f"*{ending}"), tmp_path, None, None, ["born", "not there"])
    first, second = (datetime(2024, 1, day, hour, tzinfo=UTC) for day, hour in ((1, 0), (2, 5)))
    assert table["born"].to_pylist() == [first, second, None]
    frame["born"] = ["2024-01-01", "soon", None]
    frame.to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="the column born does not parse as times: 1 of 3 rows"):
        read_source(files("b.parquet"), tmp_path, None, None, ["born"])


def test_the_fingerprint_of_files_changes_with_them(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x\n1\n")
    os.utime(path, ns=(0, 0))
    first = fingerprint(files("*.csv").source, tmp_path)
    assert fingerprint(files("*.csv").source, tmp_path) == first
    path.write_text("x\n2\n")
    second = fingerprint(files("*.csv").source, tmp_path)
    (tmp_path / "b.csv").write_text("x\n1\n")
    third = fingerprint(files("*.csv").source, tmp_path)
    assert len({str(f) for f in (first, second, third)}) == 3


def test_the_fingerprint_of_a_function_changes_with_its_file(project: Path) -> None:
    data = python("sources_of_a_test.rows")
    first = fingerprint(data.source, project)
    assert fingerprint(data.source, project) == first
    path = project / "sources_of_a_test.py"
    path.write_text(path.read_text() + "\n# changed\n")
    assert fingerprint(data.source, project) != first


@pytest.mark.parametrize(
    "line",
    [
        "from codes_of_a_test.limits import MOST",
        "import codes_of_a_test.limits",
        "from codes_of_a_test import limits",
        "from .limits import MOST as most",
        "from . import limits",
        "from .limits import *",
        "if True:\n    from .limits import MOST",
    ],
)
def test_the_fingerprint_of_a_function_changes_with_what_its_module_imports(
    tmp_path: Path, line: str
) -> None:
    """Also with a module of which it has constants alone, which do not say where they are from."""
    import sys

    package = tmp_path / "codes_of_a_test"
    package.mkdir()
    limits, loads = package / "limits.py", package / "loads.py"
    (package / "__init__.py").touch()
    limits.write_text("MOST = 1\n")
    loads.write_text(f"{line}\n\n\ndef rows(start, end):\n    return None\n")
    data = python("codes_of_a_test.loads.rows")
    try:
        first = fingerprint(data.source, tmp_path)
        limits.write_text("MOST = 2\n")
        assert fingerprint(data.source, tmp_path) != first
    finally:
        for name in ("", ".limits", ".loads"):
            sys.modules.pop(f"codes_of_a_test{name}", None)


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    """URL of a folder with files at several depths; Arrow reads it as it reads object storage."""
    for place, x in (("a.csv", 1), ("day=1/a.csv", 2), ("day=2/b.csv.gz", 3), ("day=2/x/c.csv", 4)):
        path = tmp_path / "bucket" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        content = f"x,at\n{x},12:30\n".encode()
        path.write_bytes(gzip.compress(content) if place.endswith(".gz") else content)
    (tmp_path / "bucket" / "notes.txt").write_text("no table")
    parquet.write_table(pa.table({"x": [5], "at": ["13:00"]}), tmp_path / "bucket" / "d.parquet")
    return f"file://{tmp_path}/bucket"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a.csv", [1]),
        ("*.csv", [1]),
        ("day=1/*", [2]),
        ("day=*/*.csv", [2]),
        ("day=*/*.csv*", [2, 3]),
        ("**/*.csv", [1, 2, 4]),
        ("day=2/**/*.csv*", [3, 4]),
        ("*.parquet", [5]),
    ],
)
def test_files_behind_a_url_are_found_as_in_a_folder(
    bucket: str, tmp_path: Path, pattern: str, found: list[int]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    table = read_source(files(f"{bucket}/{pattern}"), elsewhere, None, None)
    assert sorted(table["x"].to_pylist()) == found
    assert {type(value) for value in table["at"].to_pylist()} == {str}
    # The same files by a path, as `glob` finds them.
    by_path = read_source(files(f"{tmp_path}/bucket/{pattern}"), elsewhere, None, None)
    assert sorted(by_path["x"].to_pylist()) == found


def test_a_changed_file_behind_a_url_is_a_change_of_the_source(bucket: str, tmp_path: Path) -> None:
    data = files(f"{bucket}/**/*.csv")
    before = fingerprint(data.source, tmp_path)
    assert fingerprint(data.source, tmp_path) == before
    os.utime(tmp_path / "bucket" / "a.csv", (1, 1))
    assert fingerprint(data.source, tmp_path) != before


@pytest.mark.parametrize(
    ("pattern", "kind", "said"),
    [
        ("none.csv", NoSourceError, "no file matches file:"),
        ("nothing/*.csv", NoSourceError, "no file matches file:"),
        ("**/*", ConfigError, "notes.txt is not one of: .parquet, .csv, .csv.gz, .jsonl"),
    ],
)
def test_files_that_are_not_behind_a_url_are_told(
    bucket: str, tmp_path: Path, pattern: str, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        read_source(files(f"{bucket}/{pattern}"), tmp_path, None, None)


@pytest.mark.parametrize("url", ["nonsense://bucket/*.csv", "s3://me:s3cr3t@127.0.0.1/*.csv?x=1"])
def test_a_place_that_cannot_be_looked_at_is_told_without_its_password(
    tmp_path: Path, url: str
) -> None:
    with pytest.raises(SourceError, match=r"data.source.files: .* cannot be looked at") as caught:
        fingerprint(files(url).source, tmp_path)
    assert "s3cr3t" not in str(caught.value)
    assert "s3cr3t" not in files(url).model_dump_json()


@pytest.mark.parametrize("remote", [False, True])
def test_a_file_that_is_gone_since_it_was_listed_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: bool
) -> None:
    """As where another program writes it anew."""
    (tmp_path / "a.csv").write_text("x\n1\n")
    pattern = f"file://{tmp_path}/*.csv" if remote else "*.csv"
    listed = list_files(pattern, tmp_path)
    (tmp_path / "a.csv").unlink()
    monkeypatch.setattr("holdtrue.data._files.list_files", lambda *_: listed)
    with pytest.raises(SourceError, match=r"a\.csv cannot be read: "):
        read_source(files(pattern), tmp_path, None, None)


@pytest.mark.parametrize("kept", ["time", "text"])
def test_a_window_without_rows_is_an_empty_table(project: Path, kept: str) -> None:
    (project / "empty_source.py").write_text(
        "import pandas as pd\n"
        "def rows(start, end):\n"
        "    return pd.DataFrame({'at': [], 'x': []})\n"
        "def texts(start, end):\n"
        "    return pd.DataFrame({'at': pd.Series([], dtype='str'), 'x': []})\n"
    )
    name = "rows" if kept == "time" else "texts"
    table = read_source(python(f"empty_source.{name}", "at"), project, START, END)
    assert (len(table), str(table["at"].type)) == (0, "timestamp[us, tz=UTC]")


def test_what_a_function_prints_is_no_answer(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "loud_source.py").write_text(
        "import sys\n"
        "import pandas as pd\n"
        "def rows(start, end):\n"
        "    print('hello')\n"
        "    return pd.DataFrame({'x': [1]})\n"
        "def ends(start, end):\n"
        "    sys.exit(0)\n"
        "def large(start, end):\n"
        "    return pd.DataFrame({'x': [2**70]})\n"
    )
    assert len(read_source(python("loud_source.rows"), project, None, None)) == 1
    assert capsys.readouterr() == ("", "hello\n")
    with pytest.raises(DataError, match="failed: SystemExit: 0"):
        read_source(python("loud_source.ends"), project, None, None)
    with pytest.raises(DataError, match="large: x has numbers beyond int64"):
        read_source(python("loud_source.large"), project, None, None)
