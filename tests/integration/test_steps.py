"""Steps of a project's own on a real Ray: once for what they are given, side by side, and kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from holdtrue.errors import DataError, SourceError
from holdtrue.lineage import _made
from holdtrue.plan import Journal, read_rows
from holdtrue.stack import ray_session
from holdtrue.store import HOME_VARIABLE
from holdtrue.system import System

pytestmark = pytest.mark.integration

CODE = """
import os
import time
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent


def clean(file: Path, most: float) -> pd.DataFrame:
    with (HERE / "runs.txt").open("a") as note:
        note.write(f"{file.stem}\\n")
    bad = HERE / "bad.txt"
    if bad.exists() and file.stem in bad.read_text():
        raise ValueError(f"{file.stem} is bad")
    rows = pd.read_csv(file)
    rows["shop"] = file.stem
    if file.stem == "a":
        rows["shop"] = None
    return rows[rows["size"] <= most]


def join(rows: pd.DataFrame, fruit: pd.DataFrame) -> pd.DataFrame:
    return rows.merge(fruit, on="kind")


def wait(rows: pd.DataFrame, how: str) -> pd.DataFrame:
    tries = HERE / f"{how}.txt"
    with tries.open("a") as note:
        note.write("x")
    if how == "slow":
        print("asleep")
        time.sleep(600)
    if how == "gone":
        os._exit(1)
    if how == "away":
        raise ConnectionError("no route")
    if how == "twice" and len(tries.read_text()) < 2:
        raise ValueError("not yet")
    return rows
"""
DECLARED = {
    "name": "fruit",
    "task": "classification",
    "steps": {
        "cleaned": {
            "run": "MODULE.clean",
            "foreach": {"file": "raw/*.csv"},
            "params": {"most": 8.0},
        },
        "joined": {
            "run": "MODULE.join",
            "needs": {"rows": {"step": "cleaned"}, "fruit": {"files": "fruit.csv"}},
        },
    },
    "data": {"source": {"step": "joined"}, "target": "ripe", "as_of": "2026-01-01"},
    "model": "auto",
    "tune": {"metric": "log_loss"},
}
ROWS = "".join(f"{i % 10},{'pear' if i % 2 else 'plum'},{i % 3 % 2}\n" for i in range(60))


@pytest.fixture
def project(tmp_path, monkeypatch, stack, store):
    """Three files, a function for each and one that joins them; connected to the stack's Ray."""
    monkeypatch.setenv(HOME_VARIABLE, str(store.root))
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "raw").mkdir()
    for name in "abc":
        (tmp_path / "raw" / f"{name}.csv").write_text(f"size,kind,ripe\n{ROWS}")
    (tmp_path / "fruit.csv").write_text("kind,colour\npear,green\nplum,blue\n")
    # The workers of a connection keep what they have imported.
    (tmp_path / f"{module(tmp_path)}.py").write_text(CODE)
    text = yaml.safe_dump(DECLARED | {"name": module(tmp_path)[:40].rstrip("_").replace("_", "-")})
    (tmp_path / "fruit.yaml").write_text(text.replace("MODULE", module(tmp_path)))
    with ray_session(stack, None):
        yield tmp_path


def module(project: Path) -> str:
    return project.name


def write(project: Path, declared) -> None:
    (project / "fruit.yaml").write_text(yaml.safe_dump(declared))


def change(project: Path, **steps) -> None:
    """Change keys of steps, or add steps."""
    declared = yaml.safe_load((project / "fruit.yaml").read_text())
    for name, keys in steps.items():
        declared["steps"][name] = declared["steps"].get(name, {}) | keys
    if "waited" in steps:
        declared["data"]["source"] = {"step": "waited"}
    write(project, declared)


def apply(project: Path, until: str = "extract", **more) -> list[str]:
    """Names of the steps that ran."""
    return list(System(project / "fruit.yaml").apply(until=until, **more).ran)


def runs(project: Path) -> list[str]:
    """Which files were cleaned since this was asked last."""
    note = project / "runs.txt"
    said = sorted(note.read_text().split()) if note.exists() else []
    note.unlink(missing_ok=True)
    return said


def test_each_run_is_done_once_for_what_it_is_given(project):
    assert apply(project) == ["cleaned", "joined", "extract"]
    assert runs(project) == ["a", "b", "c"]
    system = System(project / "fruit.yaml")
    journal = Journal(system.store, system.declaration.name)
    extracted = journal.last("extract")
    assert extracted.output["rows"] == 3 * 54
    # A column without a value in one of them is of the kind that it has in the others.
    assert extracted.output["columns"]["shop"] == "string"
    assert extracted.components["inputs"] == {"joined": journal.last("joined").result}
    assert _made(journal.last("cleaned")).said == "162 rows of 3 runs"
    assert apply(project) == []

    # A file that comes in is the only one that is worked on.
    (project / "raw" / "d.csv").write_text(f"size,kind,ripe\n{ROWS}")
    planned = {step.step: step for step in System(project / "fruit.yaml").plan(until="extract")}
    assert planned["cleaned"].reason == "foreach.file: changed"
    assert planned["joined"].reason == "cleaned runs again"
    assert apply(project) == ["cleaned", "joined", "extract"]
    assert runs(project) == ["d"]
    assert journal.last("extract").output["rows"] == 4 * 54

    # Code of which the same comes out leads to no new version of the rows.
    (project / f"{module(project)}.py").write_text(CODE + "\n# better explained\n")
    assert apply(project, "check") == ["cleaned", "joined", "extract", "check"]
    assert sorted(runs(project)) == ["a", "b", "c", "d"]
    before = journal.last("check").digest
    (project / f"{module(project)}.py").write_text(CODE)
    assert apply(project, "check") == []
    assert journal.last("check").digest == before

    # What is not of the last two results is not kept.
    folder = system.store.path("data", system.declaration.name, "steps", "cleaned")
    change(project, cleaned={"params": {"most": 7.0}})
    apply(project)
    change(project, cleaned={"params": {"most": 6.0}})
    apply(project)
    assert len([*folder.glob("*.parquet")]) == 2 * 4


def test_a_run_that_fails_keeps_the_others(project):
    (project / "bad.txt").write_text("b")
    change(project, cleaned={"at_once": 1})
    with pytest.raises(DataError) as caught:
        apply(project)
    said = str(caught.value)
    assert "the step cleaned (file raw/b.csv) failed: ValueError: b is bad (" in said
    assert "1 of 3 runs are done, and found the next time" in said
    log = Path(said.rpartition(": ")[2])
    assert "Traceback" in log.read_text()
    assert runs(project) == ["a", "b"]
    (project / "bad.txt").unlink()
    assert apply(project) == ["cleaned", "joined", "extract"]
    assert runs(project) == ["b", "c"]


def test_files_of_one_name_in_several_folders_are_runs_of_their_own(project):
    for month in ("2026-01", "2026-02"):
        (project / "raw" / month).mkdir()
        (project / "raw" / month / "a.csv").write_text(f"size,kind,ripe\n{ROWS}")
    change(project, cleaned={"foreach": {"file": "raw/*/a.csv"}})
    apply(project)
    system = System(project / "fruit.yaml")
    journal = Journal(system.store, system.declaration.name)
    assert journal.last("cleaned").output["runs"] == [
        "file raw/2026-01/a.csv",
        "file raw/2026-02/a.csv",
    ]
    assert journal.last("extract").output["rows"] == 2 * 54


@pytest.mark.parametrize(
    ("how", "kind", "tries", "said"),
    [
        ("twice", None, 2, ""),
        ("away", SourceError, 2, "ConnectionError: no route ("),
        ("gone", SourceError, 2, "the step waited: its process ended, as where memory runs out"),
        ("slow", DataError, 2, "the step waited took longer than 1 s, and was ended (tried 2 t"),
    ],
    ids=["goes well", "does not answer", "ends", "takes too long"],
)
def test_a_run_is_tried_again_as_often_as_declared(project, how, kind, tries, said):
    change(
        project,
        waited={
            "run": f"{module(project)}.wait",
            "needs": {"rows": {"step": "cleaned"}},
            "params": {"how": how},
            "retries": 1,
            "timeout": "1s" if how == "slow" else "5m",
        },
        cleaned={},
    )
    declared = yaml.safe_load((project / "fruit.yaml").read_text())
    del declared["steps"]["joined"]
    write(project, declared)
    if kind is None:
        assert apply(project, "waited") == ["cleaned", "waited"]
    else:
        with pytest.raises(kind) as caught:
            apply(project, "waited")
        assert said in str(caught.value)
        log = str(caught.value).rpartition(": ")[2]
        assert how != "slow" or Path(log).read_text() == "asleep\n"
    assert len((project / f"{how}.txt").read_text()) == tries


def test_rows_that_are_read_beside_the_plan_are_up_to_date(project):
    """As the monitor reads labels, and a batch its rows; the plan is not moved by it."""
    apply(project)
    system = System(project / "fruit.yaml")
    state = Journal(system.store, system.declaration.name).state()
    (project / "raw" / "d.csv").write_text(f"size,kind,ripe\n{ROWS}")
    later = replace(system.context(), as_of=datetime(2026, 3, 1, tzinfo=UTC))
    runs(project)
    assert len(read_rows(later, None, None)) == 4 * 54
    assert len(read_rows(later, None, None)) == 4 * 54
    assert runs(project) == ["d"]
    assert Journal(system.store, system.declaration.name).state() == state
    assert apply(project) == ["extract"]
    assert runs(project) == []


def test_what_reads_elsewhere_is_run_again_when_it_is_too_old(project):
    source = "import pandas as pd\nfrom pathlib import Path\n"
    source += "def load():\n    note = Path(__file__).with_name('loads.txt')\n"
    source += "    with note.open('a') as file:\n        file.write('x')\n"
    source += "    return pd.DataFrame({'size': [1.0, 2.0], 'ripe': [0, 1]})\n"
    (project / f"loads_of_{module(project)}.py").write_text(source)
    declared = yaml.safe_load((project / "fruit.yaml").read_text())
    declared["steps"] = {"loaded": {"run": f"loads_of_{module(project)}.load", "every": "1d"}}
    declared["data"] = {"source": {"step": "loaded"}, "target": "ripe"}
    write(project, declared)
    start = datetime(2026, 1, 1, 6, tzinfo=UTC)
    done = [
        apply(project, "loaded", as_of=start + timedelta(hours=hours)) for hours in (0, 12, 17, 18)
    ]
    assert done == [["loaded"], [], [], ["loaded"]]
    assert (project / "loads.txt").read_text() == "xx"


def test_a_damaged_result_is_refused_and_made_anew_where_it_is_removed(project):
    apply(project)
    system = System(project / "fruit.yaml")
    (path,) = system.store.path("data", system.declaration.name, "steps", "joined").glob(
        "*.parquet"
    )
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="is not what the step joined wrote"):
        read_rows(system.context(), None, None)
    path.unlink()
    assert apply(project) == ["joined"]
