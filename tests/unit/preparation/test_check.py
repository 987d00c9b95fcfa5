from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from holdtrue.declaration import Declaration, parse
from holdtrue.errors import ConfigError, NoSourceError
from holdtrue.preparation import arguments_of, check_sources, source_state, state_of
from holdtrue.preparation._state import is_seen

CODE = """
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
from checked_helpers import half

if TYPE_CHECKING:
    from nowhere import Thing

def typed(a: pd.DataFrame, b: pa.Table, c: Path, d: list[Path], e, rate: float = 1.0) -> Thing:
    ...

def anything(**given):
    ...

def lacking(a, b):
    ...

number = 3
"""
DECLARED = """
name: shop
task: classification
steps:
  s:
    run: %s
    needs: {%s}
data: {source: {step: s}, target: y}
model: auto
tune: {metric: log_loss}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delitem(sys.modules, "checked_of_a_test", raising=False)
    monkeypatch.delitem(sys.modules, "checked_helpers", raising=False)
    (tmp_path / "checked_of_a_test.py").write_text(CODE)
    (tmp_path / "checked_helpers.py").write_text("def half(x): return x / 2\n")
    for name in ("a", "b", "c", "d", "e"):
        (tmp_path / f"{name}.csv").write_text("y\n1\n")
    return tmp_path


def declare(run: str, *needs: str) -> Declaration:
    given = ", ".join(one if ":" in one else f"{one}: {{files: {one}.csv}}" for one in needs)
    return parse(DECLARED % (run, given), "shop.yaml")


def test_rows_are_given_as_the_arguments_are_annotated(project: Path) -> None:
    """Also where the annotations are text, and one of them names what is not there."""
    declared = declare("checked_of_a_test.typed", "a", "b", "c", "d", "e")
    assert arguments_of(declared.steps["s"], "s", project) == {
        "a": "frame",
        "b": "table",
        "c": "path",
        "d": "paths",
        "e": "frame",
    }
    assert arguments_of(declare("checked_of_a_test.anything", "z").steps["s"], "s", project) == {
        "z": "frame"
    }


@pytest.mark.parametrize(
    ("run", "needs", "said"),
    [
        (
            "checked_of_a_test.lackin",
            ["a"],
            "steps.s.run: the function checked_of_a_test.lackin does not exist",
        ),
        ("checked_of_a_test.number", ["a"], "checked_of_a_test.number is a int, expected a func"),
        ("checked_of_a_test.lacking", ["a"], "needs an argument b, which it is not given"),
        ("checked_of_a_test.lacking", ["a", "bb: {files: b.csv}"], "takes no argument bb"),
        (
            "checked_of_a_test.typed",
            ["a", "b", "c: {files: 's3://x/c.csv'}", "d", "e"],
            "takes c as a path, and the files s3://x/c.csv are elsewhere",
        ),
    ],
)
def test_functions_that_do_not_fit_are_refused(
    project: Path, run: str, needs: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=r"steps\.s") as caught:
        arguments_of(declare(run, *needs).steps["s"], "s", project)
    assert said in str(caught.value)


def test_what_is_not_there_is_refused_before_anything_runs(project: Path) -> None:
    with pytest.raises(NoSourceError, match=r"^steps\.s\.needs\.a\.files: no file matches a\*"):
        check_sources(declare("checked_of_a_test.anything", "a: {files: 'a*.parquet'}"), project)
    declared = declare('[no-such-thing, "{a}", "{out}"]', "a")
    with pytest.raises(ConfigError, match=r"^steps\.s\.run: there is no command no-such-thing"):
        check_sources(declared, project)
    (project / "clean.sh").write_text("#!/bin/sh\n")
    for named in ("./clean.sh", "clean.sh"):
        declared = declare(f'[{named}, "{{a}}", "{{out}}"]', "a")
        with pytest.raises(ConfigError, match=f"{named} is a file of .* may not be run") as caught:
            check_sources(declared, project)
        assert caught.value.hint == "chmod +x ./clean.sh, and name it as ./clean.sh"
    each = (
        DECLARED.replace("needs: {%s}", "foreach: {day: 'day*.csv'}") % "checked_of_a_test.anything"
    )
    with pytest.raises(NoSourceError, match=r"^steps\.s\.foreach\.day: no file matches day"):
        check_sources(parse(each, "shop.yaml"), project)


def test_a_change_of_code_or_files_is_seen(project: Path) -> None:
    """Also one of a module of the project that the function's own has imported."""
    declared = declare("checked_of_a_test.anything", "a", "b")
    first = source_state(declared, project)
    assert {*first} == {"s.checked_of_a_test.anything", "s.a.files", "s.b.files"}
    assert check_sources(declared, project) == source_state(declared, project) == first

    def differ(before: dict[str, str]) -> set[str]:
        now = source_state(declared, project)
        return {name for name in now if now[name] != before[name]}

    (project / "checked_helpers.py").write_text("def half(x): return x / 3\n")
    assert differ(first) == {"s.checked_of_a_test.anything"}
    second = source_state(declared, project)
    (project / "b.csv").write_text("y\n1\n2\n")
    assert differ(second) == {"s.b.files"}


def test_the_script_of_a_command_is_part_of_its_code(project: Path) -> None:
    (project / "join.sh").write_text("cp $1 $2")
    step = declare('[sh, join.sh, "{a}", "{out}"]', "a").steps["s"]
    before = state_of(step, "s", project)
    (project / "join.sh").write_text("cat $1 > $2")
    after = state_of(step, "s", project)
    assert before["sh"] != after["sh"]
    assert before["a.files"] == after["a.files"]
    os.utime(project / "a.csv", (1, 1))
    assert state_of(step, "s", project)["a.files"] != after["a.files"]


@pytest.mark.parametrize(
    ("needs", "seen"),
    [
        (["a"], True),
        (["a: {delta: {table: t}}"], True),
        (["a: {database: {url: 'sqlite:///a.db', query: SELECT 1}}"], False),
        (["a", "b: {python: os.getcwd}"], False),
        ([], False),
    ],
)
def test_only_of_files_and_tables_is_known_whether_they_changed(
    needs: list[str], seen: bool
) -> None:
    assert is_seen(declare("checked_of_a_test.anything", *needs).steps["s"]) is seen
