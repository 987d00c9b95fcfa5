"""Bad input ends in one sentence and an exit code, and the store stays as it was."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from holdtrue.registry import Registry
from holdtrue.stack import free_ports
from holdtrue.store import HOME_VARIABLE, Store

Run = Callable[..., tuple[int, str]]
N = 200
PORT = free_ports(1)[0]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    at = pd.date_range("2024-01-01", periods=N, freq="3h")
    x = np.random.default_rng(0).normal(size=N)
    frame = pd.DataFrame({"at": at, "x": x, "color": ["red", "green"] * (N // 2)})
    frame["y"] = np.random.default_rng(1).integers(0, 2, N)
    frame["same"], frame["word"] = 1, "soon"
    frame.to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path


@pytest.fixture
def declare(project: Path) -> Callable[..., Path]:
    """Write a declaration; ``data`` is merged, other sections are replaced."""

    def write(*, data: dict[str, Any] | None = None, **sections: Any) -> Path:
        document = {
            "name": "small",
            "task": "classification",
            "data": {
                "source": {"files": "rows.csv"},
                "target": "y",
                "time": "at",
                "as_of": "2024-02-01",
            }
            | (data or {}),
            "features": {"numeric": ["x"]},
            "model": {"candidates": [{"estimator": "sklearn.linear_model.LogisticRegression"}]},
            "tune": {"metric": "log_loss", "trials": 1},
            "serve": {"port": PORT},
            **sections,
        }
        path = project / "small.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


def listing(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in {".gitignore", ".records.lock"}  # which is empty
    }


def assert_refused(
    run: Run, store: Path, said: str, code: int, *arguments: object, most_lines: int = 2
) -> None:
    """It ends in one sentence that holds `said`, and what was stored before is still there."""
    before = listing(store)
    found, printed = run(*arguments)
    assert (said in printed, found) == (True, code), printed
    assert "Traceback" not in printed
    _, _, sentence = printed.rpartition("error: ")  # a line of progress may stand before it
    assert 1 <= len(sentence.splitlines()) <= most_lines
    assert listing(store) == before


@pytest.fixture
def used(declare: Callable[..., Path], run: Run, project: Path) -> Path:
    """A store with something in it."""
    assert run("apply", declare(), "--until", "split", "--in-process")[0] == 0
    return project / ".holdtrue"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "mapping"),
        ("just words", "mapping"),
        ("", "empty"),
        ("name: [", "small.yaml:1"),
        ("name: small\nname: other\n", "small.yaml:2"),
    ],
)
def test_a_file_that_is_no_declaration(
    run: Run, project: Path, used: Path, text: str, said: str
) -> None:
    path = project / "small.yaml"
    path.write_text(text)
    for command in ("check", "plan", "apply", "status", "monitor", "rollback"):
        assert_refused(run, used, said, 2, command, path, most_lines=12)


def test_a_declaration_that_is_not_there(run: Run, project: Path) -> None:
    assert_refused(run, project, "none.yaml", 2, "apply", project / "none.yaml")


@pytest.mark.parametrize(
    ("sections", "said", "code"),
    [
        ({"tunne": {}}, "unknown key", 2),
        ({"serve": {"prot": 1}}, "did you mean `port`", 2),
        (
            {"data": {"target": "yy"}},
            "data.target: yy is not a column of the data (did you mean y?)",
            1,
        ),
        ({"data": {"target": "same"}}, "data.target: same is 1 in every row", 1),
        ({"data": {"time": "word"}}, "the time column word does not parse as times", 1),
        ({"data": {"time": "when"}}, "data.time: when is not a column", 1),
        ({"data": {"as_of": "2023-01-01"}}, "the source has no rows in the window", 1),
        ({"data": {"source": {"files": "none/*.csv"}}}, "no file matches none/*.csv", 2),
        ({"data": {"source": {"python": "nowhere.load"}}}, "nowhere.load cannot be imported", 2),
        (
            {"model": {"candidates": [{"estimator": "sklearn.linear_model.Logistic"}]}},
            "sklearn.linear_model has no Logistic",
            2,
        ),
        (
            {"model": {"candidates": [{"estimator": "no_such_package.Model"}]}},
            "estimator no_such_package.Model cannot be imported",
            2,
        ),
        ({"ray": {"address": "127.0.0.1:1"}}, "no Ray answers at 127.0.0.1:1", 1),
        ({"features": {"numeric": ["word"]}}, "features.numeric[0]: word holds string values", 1),
    ],
)
def test_a_declaration_that_cannot_be_made_so(
    declare: Callable[..., Path],
    run: Run,
    used: Path,
    sections: dict[str, Any],
    said: str,
    code: int,
) -> None:
    path = declare(**sections)
    assert_refused(run, used, said, code, "apply", path, "--until", "split", "--in-process")


@pytest.mark.parametrize("change", [{"target": "yy"}, {"target": "same"}, {"as_of": "2023-01-01"}])
def test_a_new_store_holds_nothing_of_a_refused_run(
    declare: Callable[..., Path], run: Run, project: Path, change: dict[str, Any]
) -> None:
    path = declare(data=change)
    assert_refused(run, project / ".holdtrue", "", 1, "apply", path, "--until", "split")


def test_a_port_in_use(declare: Callable[..., Path], run: Run, used: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        path = declare(serve={"port": port})
        said = f"port {port} is in use by another program"
        assert_refused(run, used, said, 1, "apply", path, "--in-process")


@pytest.mark.parametrize("home", ["file", "file/below", "/proc/holdtrue"])
def test_a_store_that_cannot_be_written(
    declare: Callable[..., Path],
    run: Run,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    home: str,
) -> None:
    (project / "file").write_text("in the way")
    monkeypatch.setenv(HOME_VARIABLE, str(project / home))
    path = declare()
    before = listing(project)
    for command in (["apply", path, "--in-process"], ["check", path]):
        code, printed = run(*command)
        assert code == 2, printed
        assert printed.startswith(f"error: the store folder {project / home} cannot be written")
        assert HOME_VARIABLE in printed
    assert listing(project) == before


def test_an_unknown_step(declare: Callable[..., Path], run: Run, used: Path) -> None:
    path = declare()
    for command in ("apply", "plan"):
        assert_refused(run, used, "there is no step spilt", 2, command, path, "--until", "spilt")


@pytest.mark.parametrize(
    "arguments", [["aply"], ["apply"], ["apply", "x.yaml", "--as-of", "soon"], ["--nonsense"]]
)
def test_a_mistyped_command(run: Run, project: Path, arguments: list[str]) -> None:
    code, printed = run(*arguments)
    assert code == 2
    assert "Traceback" not in printed


def test_nothing_to_go_back_to(declare: Callable[..., Path], run: Run, used: Path) -> None:
    path = declare()
    assert_refused(run, used, "small has no earlier champion to go back to", 2, "rollback", path)
    assert_refused(run, used, "small has no", 2, "rollback", path, "--to", "7")


def test_nothing_to_predict_with(declare: Callable[..., Path], run: Run, used: Path) -> None:
    ask = ("predict", declare(), "rows.csv", "--output", "scored.csv")
    assert_refused(run, used, "no version of small has passed the gates yet", 2, *ask)
    assert_refused(run, used, "small has no version 7", 2, *ask, "--version", "7")
    assert_refused(run, used, "none.csv: no such file", 1, *ask[:2], "none.csv", *ask[3:])
    assert not Path("scored.csv").exists()


def test_nothing_to_monitor(declare: Callable[..., Path], run: Run, used: Path) -> None:
    assert_refused(run, used, "", 1, "monitor", declare())


@pytest.fixture
def champion(declare: Callable[..., Path], project: Path) -> Path:
    """A champion that was fitted and registered by hand; gives the declaration."""
    from holdtrue.models import Signature, pipeline, typed, write_bundle

    rows = pd.read_csv(project / "rows.csv")
    signature = Signature(
        target="y",
        task="classification",
        classes=("0", "1"),
        columns={"x": "number", "color": "string"},
        categorical=("color",),
    )
    estimator = "sklearn.linear_model.LogisticRegression"
    fitted = pipeline(estimator, {}, signature, seed=0, threads=1)
    fitted.fit(typed(rows, signature), rows["y"].to_numpy())
    store = Store(project / ".holdtrue")
    digest = write_bundle(
        store.path("bundles", "small", "one"),
        fitted,
        signature,
        estimator=estimator,
        params={},
        sample=[{"x": 0.5, "color": "red"}, {"x": None, "color": None}],
    )
    registry = Registry(store)
    registry.register(
        "small",
        digest=digest,
        bundle="bundles/small/one",
        as_of=pd.Timestamp("2024-02-01", tz="UTC").to_pydatetime(),
        passed=True,
        reason="all gates held",
        incumbent=None,
        metrics={},
        profile="profiles/one",
        lineage={},
    )
    registry.promote("small", 1, generation=0, reason="all gates held")
    registry.close()
    return declare()


def test_rows_are_scored(champion: Path, run: Run, project: Path) -> None:
    for name in ("scored.csv", "scored.parquet", "scored.jsonl"):
        code, printed = run("predict", champion, "rows.csv", "-o", name)
        assert (code, printed) == (0, f"wrote 200 scored rows to {name}\n")
        assert (project / name).exists()
    scored = pd.read_csv(project / "scored.csv")
    assert set(scored["prediction"]) <= {0, 1}
    total = scored["probability_0"] + scored["probability_1"]
    assert total.to_numpy() == pytest.approx(1)
    assert list(scored)[: len(pd.read_csv("rows.csv").columns)] == list(pd.read_csv("rows.csv"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("x\n1.5\n", "the feature color is not a column of "),
        ("x,colour\n1.5,red\n", "(did you mean colour?)"),
        ("x,color\nsoon,red\n", "no row can be scored: row 0, column x: expected a finite number"),
        ("x,color\n", "there are no rows to score"),
        ("", "cannot be read"),
    ],
)
def test_rows_that_cannot_be_scored(
    champion: Path, run: Run, project: Path, content: str, said: str
) -> None:
    (project / "new.csv").write_text(content)
    ask = ("predict", champion, "new.csv", "--output", "scored.csv")
    assert_refused(run, project / ".holdtrue", said, 1, *ask)
    assert not (project / "scored.csv").exists()


def test_a_bad_row_is_rejected_and_the_others_are_scored(
    champion: Path, run: Run, project: Path
) -> None:
    (project / "new.csv").write_text("x,color\n1.5,red\nsoon,red\n2.5,3\n")
    code, printed = run("predict", champion, "new.csv", "-o", "scored.csv")
    assert code == 3
    assert printed.splitlines() == [
        "wrote 2 scored rows to scored.csv",
        "rejected 1 row: scored.csv.rejected.parquet says which, and why",
        "column color: 1 value is no category that the model knows",
    ]
    assert len(pd.read_csv(project / "scored.csv")) == 2
    (reject,) = pd.read_parquet(project / "scored.csv.rejected.parquet").to_dict("records")
    assert (reject["file"], reject["row"], reject["column"]) == ("new.csv", 1, "x")
    code, printed = run("predict", champion, "new.csv", "-o", "scored.csv", "--json")
    assert code == 3
    assert json.loads(printed) == {
        "rows": 2,
        "rejected": 1,
        "rejects": "scored.csv.rejected.parquet",
        "unknown": {"color": 1},
        "kept": 0,
    }


def test_a_folder_is_scored_and_explained(champion: Path, run: Run, project: Path) -> None:
    (project / "new").mkdir()
    for name in ("a.csv", "b.csv"):
        (project / "new" / name).write_text("x,color\n1.5,red\n")
    code, printed = run("predict", champion, "new", "-o", "scored.csv", "--explain")
    assert (code, printed) == (0, "wrote 2 scored rows to scored.csv\n")
    scored = pd.read_csv(project / "scored.csv")
    total = scored["why_x"] + scored["why_color"] + scored["explained_base"]
    assert total.to_numpy() == pytest.approx(scored["explained_score"].to_numpy())


def test_status_says_whether_the_model_is_compiled(champion: Path, run: Run) -> None:
    code, printed = run("status", champion)
    assert code == 0
    assert "compiled, and proven equal to the pipeline on" in printed
    code, printed = run("status", champion, "--json")
    found = json.loads(printed)["champion"]["compilation"]
    assert found["compiled"]
    assert found["max_difference"] <= 1e-6


def test_scores_that_would_replace_their_rows(champion: Path, run: Run, project: Path) -> None:
    before = (project / "rows.csv").read_bytes()
    said = "rows.csv is to be scored, and would be replaced"
    ask = ("predict", champion, "rows.csv", "--output", project / "rows.csv")
    assert_refused(run, project / ".holdtrue", said, 2, *ask)
    assert (project / "rows.csv").read_bytes() == before


@pytest.mark.parametrize("output", ["scored.xlsx", "nowhere/scored.csv"])
def test_scores_that_cannot_be_written(
    champion: Path, run: Run, project: Path, output: str
) -> None:
    ask = ("predict", champion, "rows.csv", "--output", output)
    assert_refused(run, project / ".holdtrue", output, 2, *ask)


def test_a_damaged_model_is_not_asked(champion: Path, run: Run, project: Path) -> None:
    file = project / ".holdtrue" / "bundles" / "small" / "one" / "model.skops"
    file.write_bytes(file.read_bytes()[:-1])
    ask = ("predict", champion, "rows.csv", "--output", "scored.csv")
    assert_refused(run, project / ".holdtrue", "model.skops is damaged", 1, *ask)


def test_the_only_champion_has_nothing_to_go_back_to(champion: Path, run: Run) -> None:
    root = champion.parent / ".holdtrue"
    assert_refused(run, root, "no earlier champion to go back to", 2, "rollback", champion)
    said = "version 1 of small is the champion already"
    assert_refused(run, root, said, 2, "rollback", champion, "--to", "1")
    assert_refused(run, root, "small has no version 9", 2, "rollback", champion, "--to", "9")


@pytest.mark.parametrize(
    ("before", "until", "where"),
    [
        (None, "check", "data/small/snapshots"),  # Delta writes that
        ("extract", "check", ""),  # pandas
        ("check", "profile", "profiles/.*/calibration.json"),
    ],
)
def test_what_the_machine_refuses_to_write_is_told_and_goes_on_afterwards(
    declare: Callable[..., Path], run: Run, before: str | None, until: str, where: str
) -> None:
    file = declare()
    store = Store.of(file).root
    if before is not None:
        assert run("apply", file, "--until", before)[0] == 0
    # A limit on the size of files, as a quota or a disk would be one; no rights are needed for it.
    # -B: Python would take what it could write of a compiled module for the whole, from then on.
    command = f"{sys.executable} -B -m holdtrue.cli apply {file} --until {until}"
    done = subprocess.run(  # noqa: S603 - the lines above
        ["bash", "-c", f"ulimit -f 1; exec {command}"],  # noqa: S607 - whichever there is
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.search(f"error: {store / where}: File too large\n  mend that, and run", done.stderr)
    assert "Traceback" not in done.stderr
    assert run("apply", file, "--until", until)[0] == 0


def test_a_folder_in_the_place_of_a_file_is_told(declare: Callable[..., Path], run: Run) -> None:
    file = declare()
    assert run("apply", file, "--until", "check")[0] == 0
    (record,) = (Store.of(file).root / "steps" / "check").glob("*.json")
    record.unlink()
    record.mkdir()
    code, said = run("plan", file)
    assert code == 1
    assert f"{record}: Is a directory" in said
    record.rmdir()
    assert run("plan", file)[0] == 0


@pytest.mark.parametrize("command", ["plan", "apply", "monitor", "batch", "backtest"])
def test_a_moment_that_is_none(declare: Callable[..., Path], run: Run, command: str) -> None:
    flag = "--from" if command == "backtest" else "--as-of"
    code, printed = run(command, declare(), flag, "yesterday")
    words = " ".join(printed.replace("│", "").split())
    assert code == 2
    assert f"Invalid value for '{flag}': expected a moment such as 2013-07-01 or" in words
    assert "got yesterday" in words
