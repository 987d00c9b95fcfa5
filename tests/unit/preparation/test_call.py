from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from holdtrue.preparation import Call, Outcome
from holdtrue.preparation._call import run_call

ROWS = pa.table({"x": [1, 2, None], "t": ["a", "b", "c"]})
CODE = """
from pathlib import Path
import pandas as pd
import pyarrow as pa

def double(rows, most):
    assert isinstance(rows, pd.DataFrame) and str(rows["x"].dtype) == "Int64"
    print("looked at", len(rows))
    return rows.assign(x=rows["x"] * 2, most=most)

def arrow(rows):
    assert isinstance(rows, pa.Table)
    return rows

def lines(rows):
    return pd.DataFrame({"n": [len(pd.read_parquet(rows))]})

def several(rows):
    return pd.DataFrame({"name": [path.name for path in rows]})

def nothing(rows):
    return None

def bare(rows):
    return pd.DataFrame()

def wrong(rows):
    print("before")
    return rows["y"]

def away(rows):
    raise ConnectionError("no route")

def leave(rows):
    raise SystemExit(3)

def at_length(rows):
    raise ValueError("two lines\\n  of which one is the first")

def silent(rows):
    raise ValueError
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delitem(sys.modules, "calls_of_a_test", raising=False)
    (tmp_path / "calls_of_a_test.py").write_text(CODE)
    return tmp_path


def call(project: Path, run: str | tuple[str, ...], **more: Any) -> Call:
    known: dict[str, Any] = {"writes": "parquet", "takes": {}, "constants": {}, "timeout_s": 60.0}
    if isinstance(run, str):
        run = f"calls_of_a_test.{run}"
    known["log"] = project / "s.log"
    return Call(says="the step s", run=run, project=project, **(known | more))


def run(made: Call, **given: pa.Table | tuple[str, ...]) -> Outcome:
    return run_call(made, tuple(given), *given.values())


def test_a_function_is_given_rows_and_constants_by_name(project: Path) -> None:
    done = run(call(project, "double", constants={"most": 7}), rows=ROWS)
    assert done.error == ""
    assert done.table is not None
    assert done.table.to_pydict() == {
        "x": [2, 4, None],
        "t": ["a", "b", "c"],
        "most": [7, 7, 7],
    }
    assert done.printed == "looked at 3\n"


def test_a_function_may_ask_for_tables_and_paths(project: Path) -> None:
    assert run(call(project, "arrow", takes={"rows": "table"}), rows=ROWS).table == ROWS
    counted = run(call(project, "lines", takes={"rows": "path"}), rows=ROWS)
    assert counted.table is not None
    assert counted.table["n"].to_pylist() == [3]
    named = run(call(project, "several", takes={"rows": "paths"}), rows=("/a/b.csv", "/a/c.csv"))
    assert named.table is not None
    assert named.table["name"].to_pylist() == ["b.csv", "c.csv"]


@pytest.mark.parametrize(
    ("name", "said", "away"),
    [
        ("nothing", "the step s returned NoneType, expected a pandas DataFrame", False),
        ("bare", "the step s gave rows without columns", False),
        ("wrong", r"the step s failed: KeyError: 'y' (calls_of_a_test.py:29)", False),
        ("away", "the step s failed: ConnectionError: no route (calls_of_a_test.py:32)", True),
        ("leave", "the step s failed: SystemExit: 3 (calls_of_a_test.py:35)", False),
        ("at_length", "the step s failed: ValueError: two lines (calls_of_a_test.py:38)", False),
        ("silent", "the step s failed: ValueError (calls_of_a_test.py:41)", False),
        ("none", "the function calls_of_a_test.none does not exist", False),
    ],
)
def test_what_a_function_does_wrong_is_told_with_its_line(
    project: Path, name: str, said: str, away: bool
) -> None:
    failed = run(call(project, name), rows=ROWS)
    assert failed.table is None
    assert failed.error.startswith(said)
    assert "\n" not in failed.error or name in ("nothing", "none")
    assert failed.away is away
    if name == "wrong":
        assert failed.printed.startswith("before\n\nTraceback")


PYTHON = sys.executable
COPY = "import sys, shutil; print('copying'); shutil.copy(sys.argv[-2], sys.argv[-1])"


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_command_is_given_files_and_writes_one(project: Path, ending: str) -> None:
    made = call(project, (PYTHON, "-c", COPY, "{rows}", "{out}"), writes=ending)
    done = run(made, rows=ROWS)
    assert done.error == ""
    assert done.table is not None
    assert done.table.to_pydict() == ROWS.to_pydict()
    assert done.printed == "copying\n"


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_command_is_given_values_as_they_are(project: Path, ending: str) -> None:
    exact = pa.table({"id": [None, 2**60 + 1], "x": [1.23456789012345678e-12, 0.1 + 0.2]})
    made = call(project, (PYTHON, "-c", COPY, "{rows}", "{out}"), writes=ending)
    done = run(made, rows=exact)
    assert done.table is not None
    assert done.table.to_pydict() == exact.to_pydict()
    moment = datetime(2026, 1, 1, 12, 30, 5, 123456, tzinfo=UTC)
    if ending == "jsonl":  # where times are text
        given = run(made, rows=pa.table({"at": [moment]})).table
        assert given is not None
        assert datetime.fromisoformat(given["at"].to_pylist()[0]) == moment


def test_a_command_is_given_the_files_that_there_are_and_constants(project: Path) -> None:
    code = "import sys; open(sys.argv[-1], 'w').write('words\\n' + ' '.join(sys.argv[1:-1]))"
    command = (PYTHON, "-c", code, "{rows}", "{days}", "--rate={rate}", "{out}")
    made = call(project, command, writes="csv", constants={"days": [1, 2], "rate": 0.5})
    done = run(made, rows=("/a/b.csv", "/a/c.csv"))
    assert done.table is not None
    assert done.table["words"].to_pylist() == ["/a/b.csv /a/c.csv 1 2 --rate=0.5"]
    within = run(call(project, (PYTHON, "--in={rows}", "{out}")), rows=("/a/b.csv", "/a/c.csv"))
    assert within.error.startswith("the step s: {rows} is 2 words, within --in={rows}")


def test_what_a_command_does_wrong_is_told(project: Path) -> None:
    code = "import sys; print('first'); print('no such table', file=sys.stderr); sys.exit(4)"
    failed = run(call(project, (PYTHON, "-c", code)))
    assert failed.error == "the step s ended with exit code 4: no such table"
    assert "first" in failed.printed
    silent = run(call(project, (PYTHON, "-c", "pass", "{out}")))
    assert silent.error.startswith("the step s ended well, but wrote no {out}")
    killed = run(call(project, (PYTHON, "-c", "import os; os.kill(os.getpid(), 9)")))
    assert killed.error == "the step s ended by signal SIGKILL"
    missing = run(call(project, ("no-such-command-anywhere",)))
    assert missing.error.startswith("the step s: no-such-command-anywhere cannot be run: No such")
    assert not missing.away
    (project / "bare.sh").write_text("true\n")
    (project / "bare.sh").chmod(0o755)
    bare = run(call(project, ("./bare.sh",)))
    assert bare.error == (
        "the step s: ./bare.sh cannot be run: Exec format error\n"
        "  let its first line name what runs it, such as #!/bin/sh"
    )
    garbled = run(call(project, (PYTHON, "-c", "import sys; open(sys.argv[1], 'w')", "{out}")))
    assert garbled.error.startswith("the step s ended well, but {out} cannot be read: ")


def test_a_command_that_takes_too_long_is_ended_with_what_it_has_started(project: Path) -> None:
    mark = f"sleep-of-{time.time_ns()}"
    child = f"import time; '{mark}'; time.sleep(300)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    failed = run(call(project, (PYTHON, "-c", code, "{out}"), timeout_s=1.5))
    assert failed.error.startswith("the step s took longer than 1.5 s, and was ended")
    deadline = time.monotonic() + 20
    while any(mark in " ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])):
        assert time.monotonic() < deadline
        time.sleep(0.1)
