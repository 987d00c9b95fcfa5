from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from holdtrue import retention
from holdtrue.system import System

Run = Callable[..., tuple[int, str]]
FILE = "visits.yaml"


@pytest.fixture
def system(learnt: Callable[..., System]) -> System:
    """Two versions, of other rows each; the second is the champion."""
    learnt(0)
    return learnt(1)


def test_snapshots_are_listed_with_who_learnt_from_them(run: Run, system: System) -> None:
    first, second = system.snapshots()
    code, printed = run("data", "list", FILE)
    lines = printed.splitlines()
    assert (code, len(lines)) == (0, 2)
    assert lines[0].split()[0] == "0"
    assert lines[0].endswith(f"300 rows  no window  {first.digest[:8]}  version 1")
    assert lines[1].endswith(f"{second.digest[:8]}  version 2*")
    facts = json.loads(run("data", "list", FILE, "--json")[1])
    assert [one["digest"] for one in facts] == [first.digest, second.digest]
    assert [(one["versions"], one["champion"]) for one in facts] == [([1], None), ([2], 2)]


def test_a_window_is_shown(run: Run, small: Path) -> None:
    small.write_text(
        "name: small\n"
        "task: classification\n"
        "data: {source: {files: rows.csv}, target: y, time: at, as_of: 2024-01-31, window: 10d}\n"
        "model: {candidates: [{estimator: sklearn.linear_model.LogisticRegression}]}\n"
        "tune: {metric: log_loss}\n"
    )
    code, printed = run("data", "list", small)
    assert (code, printed) == (0, "no snapshot of small yet; run `holdtrue apply`\n")
    System(small).apply(until="extract")
    _, printed = run("data", "list", small)
    assert "rows  [2024-01-20 00:00, 2024-01-30 00:00)  " in printed
    assert printed.endswith("no version\n")


def test_rows_are_exported_as_they_were(run: Run, system: System) -> None:
    before = system.rows(1)
    code, printed = run("data", "export", FILE, "old.parquet", "--version", 1)
    assert (code, printed) == (
        0,
        "wrote old.parquet: 300 rows of version 1, all that was extracted\n",
    )
    back = pd.read_parquet("old.parquet")
    pd.testing.assert_frame_equal(back.astype(before.dtypes), before)
    assert (back.isna().sum() == before.isna().sum()).all()
    code, printed = run("data", "export", FILE, "aside.csv", "--part", "set-aside")
    assert (code, "3 rows of version 2, those that broke" in printed) == (0, True)
    assert Path("aside.csv").read_text().splitlines()[0].endswith(",reason")
    facts = json.loads(run("data", "export", FILE, "test.jsonl", "--part", "test", "--json")[1])
    assert (facts["version"], facts["part"], facts["dry_run"]) == (2, "test", False)
    assert len(Path("test.jsonl").read_text().splitlines()) == facts["rows"]


def test_a_dry_run_writes_nothing(run: Run, system: System) -> None:
    assert system
    there = sorted(Path().iterdir())
    code, printed = run("data", "export", FILE, "rows.csv", "--part", "train", "--dry-run")
    assert (code, printed.startswith("would write rows.csv: ")) == (0, True)
    assert printed.endswith("rows of version 2, the training rows; nothing was done\n")
    assert sorted(Path().iterdir()) == there


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("arguments", "wanted", "said"),
    [
        (("rows.csv", "--version", "9"), 2, "no version 9"),
        (("rows.csv", "--part", "tests"), 2, "there is no part tests"),
        (("rows.txt",), 2, "rows.txt: the ending must be .csv, .parquet or .jsonl"),
        (("none/rows.csv",), 2, "none/rows.csv cannot be written: No such file"),
    ],
)
def test_what_cannot_be_exported_is_told(
    run: Run,
    system: System,
    arguments: tuple[str, ...],
    wanted: int,
    said: str,
    dry_run: tuple[str, ...],
) -> None:
    assert system
    code, printed = run("data", "export", FILE, *arguments, *dry_run)
    assert (code, said in printed, "Traceback" in printed) == (wanted, True, False)
    assert not Path("rows.csv").exists()


def test_a_damaged_snapshot_is_not_exported(run: Run, system: System) -> None:
    for path in system.store.path("data/visits/snapshots").glob("*.parquet"):
        path.write_bytes(path.read_bytes()[:500])
    code, printed = run("data", "export", FILE, "rows.csv")
    assert (code, "is damaged: " in printed) == (1, True)
    assert not Path("rows.csv").exists()


def test_what_is_as_recorded_is_proven(run: Run, system: System) -> None:
    code, printed = run("verify", FILE)
    count = system.verify().files
    assert code == 0
    assert (
        f"proven: {count} files and 600 rows behind 2 versions of visits are what was recorded"
        in printed
    )
    assert json.loads(run("verify", FILE, "--json")[1])["mismatches"] == []


def test_what_differs_is_told_with_its_path(run: Run, system: System) -> None:
    path = next(system.store.path("data/visits/splits").rglob("train.parquet"))
    content = path.read_bytes()
    path.write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:])
    code, printed = run("verify", FILE)
    assert code == 1
    said = "restore it from a backup (`holdtrue restore --only`), or remove"
    assert f"{path} is not what step split wrote; {said}" in printed
    assert "error: 1 thing is not as recorded for the versions of visits" in printed
    code, printed = run("verify", FILE, "--json")
    assert (code, json.loads(printed)["mismatches"][0]["path"]) == (1, str(path))


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from holdtrue.cli import app\n"
        "assert CliRunner().invoke(app, ['data', 'export', '--help']).exit_code == 0\n"
        "print(*{'numpy', 'pandas', 'pyarrow', 'sqlalchemy'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - our own code
    assert done.stdout.strip() == ""


def test_the_lineage_leads_from_a_version_to_its_source(run: Run, system: System) -> None:
    found = json.loads(run("lineage", FILE, "--json")[1])
    assert (found["version"], found["champion"], found["missing"]) == (2, True, [])
    assert found["digest"] == system.registry.version("visits", 2).digest
    # No input dangles: each is the result of a step before.
    known: dict[str, str] = {}
    for made in found["steps"]:
        assert made["inputs"].items() <= known.items(), made["step"]
        known[made["step"]] = made["digest"]
    assert [*known] == ["extract", "check", "profile", "split", "tune", "fit", "evaluate", "gate"]
    assert found["steps"][0]["declared"]["data"]["source"]["files"] == "rows.parquet"

    code, printed = run("lineage", FILE)
    lines = printed.splitlines()
    assert (code, lines[0]) == (0, "version 2 of visits, the champion")
    assert "from files rows.parquet: 300 rows" in lines[-1]
    assert f"fit       {known['fit'][:8]}" in printed

    diagram = run("lineage", FILE, "--version", 1, "--mermaid")[1].splitlines()
    assert diagram[0] == "flowchart LR"
    code, said = run("lineage", FILE, "--mermaid", "--json")
    assert (code, said.startswith("error: --mermaid and --json are two forms of")) == (2, True)
    assert {"  tune --> fit", "  split --> fit", '  gate --> version(["version 1"])'} <= {*diagram}


def test_a_step_that_is_not_known_any_more_is_named(run: Run, system: System) -> None:
    (path,) = (
        system.store.path("steps", "split", f"{key}.json")
        for key in [system.registry.version("visits", 2).lineage["split"]]
    )
    path.unlink()
    assert run("lineage", FILE)[1].splitlines()[-1] == "split     its record is gone or damaged"
    assert json.loads(run("lineage", FILE, "--json")[1])["missing"] == ["split"]
    code, said = run("lineage", FILE, "--version", 9)
    assert (code, "visits has no version 9" in said) == (2, True)


def test_what_was_pruned_is_told_by_each_command(
    run: Run, learnt: Callable[..., System], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_CHAMPIONS", 1)
    system = [learnt(seed) for seed in range(3)][-1]
    code, said = run("prune", FILE, "--keep", 1, "--dry-run")
    assert code == 0
    assert said.startswith("would remove the rows of version 1: ")
    assert said.endswith(" MB; nothing was done\n")
    facts = json.loads(run("prune", FILE, "--keep", 1, "--json")[1])
    assert (facts["dry_run"], facts["versions"]) == (False, [1])
    assert facts["kept"] == {"2": "an earlier champion", "3": "the champion"}
    assert run("prune", FILE, "--keep", 1) == (0, "nothing to remove\n")
    assert ", removed 20" in run("data", "list", FILE)[1].splitlines()[0]
    assert "its rows were removed by retention on 20" in run("versions", FILE)[1].splitlines()[2]
    assert run("lineage", FILE, "--version", 1)[1].count("; removed by retention on 20") == 3
    code, said = run("data", "export", FILE, "rows.csv", "--version", 1)
    assert (code, "were removed by retention on 20" in said) == (1, True)
    code, said = run("verify", FILE)
    assert (code, said.splitlines()[0][:52]) == (
        0,
        "the rows of version 1 were removed by retention, the last on"[:52],
    )
    assert "behind 3 versions of visits are what was recorded" in said
    code, said = run("rollback", FILE, "--to", 1)
    assert code == 0
    assert said.startswith("version 1 of visits is the champion again; the rows that version 1 ")
    assert "its model, records and reports are kept" in said
    assert system.version().number == 1


def test_keep_is_a_number_of_versions(run: Run, system: System) -> None:
    assert run("prune", FILE, "--keep", 0)[0] == 2
    text = system.path.read_text()
    system.path.write_text(f"{text}keep: {{versions: none}}\n")
    code, said = run("prune", FILE)
    assert (code, "keep.versions" in said) == (2, True)


def test_an_edit_of_the_registry_is_told_with_what_was_edited(run: Run, system: System) -> None:
    head = system.verify().audit.head
    code, printed = run("verify", FILE, "--head", head)
    assert code == 0
    assert f"the audit of the registry is whole: 6 entries, the last is {head}" in printed
    file = system.store.path("registry.db")
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE holdtrue_versions SET reason = 'bribed' WHERE number = 1")
    code, printed = run("verify", FILE)
    assert (code, f"{file}: version 1 was changed by other hands; look who" in printed) == (1, True)
    facts = json.loads(run("verify", FILE, "--json")[1])
    assert facts["audit"]["faults"] == ["version 1 was changed by other hands"]
    code, printed = run("verify", FILE, "--head", "7")
    assert (code, "--head 7: expected NUMBER:HASH" in printed) == (2, True)
