from __future__ import annotations

import sys
from pathlib import Path

import optuna
import pytest

from holdtrue.cli import main
from holdtrue.store import HOME_VARIABLE
from holdtrue.tuning._log import StudyLog
from holdtrue.tuning._parallel import wanted_parallel

DECLARATION = """
name: visits
task: classification
data: {source: {files: visits.csv}, target: stays}
model:
  candidates:
    - estimator: sklearn.linear_model.LogisticRegression
      space: {C: {float: [0.1, 10], log: true}}
tune: {metric: log_loss, warm_start: WARM}
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("visits.csv").write_text("age,stays\n1,yes\n2,no\n")
    Path("visits.yaml").write_text(DECLARATION.replace("WARM", "true"))

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["holdtrue", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


@pytest.fixture
def database(tmp_path):
    """A study that somebody has made with Optuna alone."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = f"sqlite:///{tmp_path}/mine.db"
    storage = optuna.storages.RDBStorage(url)
    study = optuna.create_study(study_name="mine", storage=storage)
    study.optimize(lambda trial: trial.suggest_float("C", 0.01, 100, log=True), n_trials=3)
    storage.remove_session()
    storage.engine.dispose()
    yield url
    optuna.logging.set_verbosity(before)


def test_a_study_is_brought_in(run, database, tmp_path):
    code, printed = run("study", "import", "visits.yaml", database)
    path = tmp_path / ".holdtrue" / "studies" / "visits" / "imported-mine.log"
    assert (code, printed) == (0, f"imported 3 trials into {path}\n")
    assert path.exists()
    code, printed = run("study", "import", "visits.yaml", database, "--study", "yours")
    assert (code, printed) == (2, f"error: {database} has no study yours\n  it has mine\n")


def test_a_study_that_will_not_be_used_is_said_to_be(run, database):
    Path("visits.yaml").write_text(DECLARATION.replace("WARM", "false"))
    code, printed = run("study", "import", "visits.yaml", database)
    assert code == 0
    assert "the next search will not use them" in printed


@pytest.mark.parametrize(
    "arguments",
    [["export", "visits.yaml", "sqlite:///there"], ["show", "visits.yaml", "--html", "there"]],
    ids=["export", "show"],
)
def test_there_is_nothing_to_show_or_to_export(run, tmp_path, arguments):
    code, printed = run("study", *arguments)
    assert code == 2
    assert printed.startswith("error: visits has no search with a complete trial yet\n")
    assert not (tmp_path / "there").exists()


def test_a_search_that_runs_is_told_how_many_at_a_time(run, tmp_path):
    folder = tmp_path / ".holdtrue" / "studies" / "visits"
    assert run("study", "parallel", "visits.yaml", 3)[1].startswith(
        "error: no search is running whose trials at a time could be changed\n"
    )
    with StudyLog(folder / "one.log", "one", "lower", {}) as log:
        code, printed = run("study", "parallel", "visits.yaml", 3)
        assert (code, wanted_parallel(log.path)) == (0, 3)
        assert printed == (
            "visits: 3 at a time from now on, as far as the cluster has room for them\n"
        )
        assert run("study", "parallel", "visits.yaml", 0)[0] == 2
        assert wanted_parallel(log.path) == 3
    assert run("study", "parallel", "visits.yaml", 4)[0] == 2
    assert wanted_parallel(log.path) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--timeout", "soon"], "error: --timeout soon: expected a duration such as"),
        (["--trials", "many"], "error: --trials many: expected a number of trials such as 60"),
        (["--trials", "+0"], "error: --trials +0: expected a number of trials such as 60"),
    ],
    ids=["timeout", "trials", "none more"],
)
def test_limits_that_are_none(run, tmp_path, arguments, said):
    code, printed = run("tune", "visits.yaml", *arguments)
    assert code == 2
    assert printed.startswith(said)
    assert not (tmp_path / ".holdtrue").exists()


def test_a_study_is_copied_into_a_database(run, database, tmp_path, monkeypatch):
    run("study", "import", "visits.yaml", database)
    log = tmp_path / ".holdtrue" / "studies" / "visits" / "imported-mine.log"
    monkeypatch.setattr("holdtrue.system.System.study_log", lambda *_: log)
    there = f"sqlite:///{tmp_path}/there.db"
    code, printed = run("study", "export", "visits.yaml", there, "--study", "visits-july")
    assert (code, printed) == (0, "exported the study visits-july\n")
    mine, copied = (
        optuna.load_study(study_name=name, storage=url).trials
        for name, url in (("mine", database), ("visits-july", there))
    )
    assert [trial.value for trial in copied] == [trial.value for trial in mine]
