"""What is read of the logs of earlier studies, whoever wrote them, and what cannot be read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from holdtrue.declaration import Candidate, Range, Stop
from holdtrue.errors import DataError
from holdtrue.tuning import read_trials
from holdtrue.tuning._asker import Asker
from holdtrue.tuning._earlier import n_finished, read_studies
from holdtrue.tuning._log import StudyLog
from holdtrue.tuning._space import Space
from holdtrue.tuning._types import Outcome, Search

if TYPE_CHECKING:
    from pathlib import Path

SPACE = Space(
    [
        Candidate(
            estimator="a.Tree",
            space={"depth": Range(int=(1, 9)), "near": Range(float=(0.5, 0.99), log="reverse")},
        ),
        Candidate(estimator="a.Line", space={"c": Range(float=(0, 1))}),
    ]
)
STATES = ("complete", "pruned", "failed", "complete")


def write(path: Path, metric: str = "log_loss", space: Space = SPACE, n: int = 12) -> list[Any]:
    """A log as a search leaves it; returns the settings of its complete trials."""
    rules = Search(metric=metric, direction="lower", trials=n, timeout_s=60.0, stop=Stop())
    complete = []
    with StudyLog(path, path.stem, "lower", {"metric": metric}) as log:
        asker = Asker(space, rules, log, [], n)
        asker.start()
        for number in range(n - 1):  # the last one is still running
            asker.wait(10)
            (ready,) = asker.take(1)
            state: Any = STATES[number % len(STATES)]
            outcome = Outcome(state, None if state == "failed" else 0.5 + number, 2.0, 1.0)
            log.tell([(number, outcome)], seconds=0.0)
            asker.tell([(number, outcome)])
            if state == "complete":
                complete.append((number, ready.setting.candidate, ready.setting.params))
        asker.wait(10)
        asker.close()
    return complete


def test_complete_trials_are_read_in_the_terms_of_the_declaration(tmp_path: Path) -> None:
    complete = write(tmp_path / "a.log")
    trials = read_trials(tmp_path / "a.log", "log_loss")
    assert {candidate for _, candidate, _ in complete} == {"a.Tree", "a.Line"}
    assert [(one.number, one.candidate) for one in trials] == [row[:2] for row in complete]
    for one, (number, _, params) in zip(trials, complete, strict=True):
        assert one.params == pytest.approx(params)
        assert (one.state, one.value) == ("complete", 0.5 + number)
        assert (one.seconds, one.cpu_seconds) == (2.0, 1.0)
    assert n_finished(tmp_path / "a.log") == 11


def test_another_metric_is_another_study(tmp_path: Path) -> None:
    write(tmp_path / "a.log", "brier")
    assert read_trials(tmp_path / "a.log", "log_loss") == []
    assert read_studies([tmp_path / "a.log"], "log_loss") == ([], [])


def test_a_log_that_optuna_wrote_is_read(tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "a.log")))
    study = optuna.create_study(storage=storage, study_name="mine")
    study.set_user_attr("metric", "log_loss")
    study.optimize(lambda trial: trial.suggest_float("a.Line:c", 0, 1), n_trials=3)
    trials = read_trials(tmp_path / "a.log", "log_loss")
    assert [(one.candidate, one.params) for one in trials] == [
        ("a.Line", {"c": one.params["a.Line:c"]}) for one in study.trials
    ]


@pytest.mark.parametrize(
    "line",
    [
        json.dumps({"op_code": 99, "worker_id": "x"}),
        json.dumps([]),
        json.dumps({}),
        "{",
        "\xff",
    ],
    ids=["operation", "list", "empty", "torn", "bytes"],
)
def test_a_log_that_cannot_be_read_is_left_out_and_said(tmp_path: Path, line: str) -> None:
    write(tmp_path / "good.log")
    write(tmp_path / "bad.log")
    content = (tmp_path / "bad.log").read_bytes()
    (tmp_path / "bad.log").write_bytes(line.encode("latin-1") + b"\n" + content)
    with pytest.raises(DataError, match=r"bad\.log cannot be read: "):
        read_trials(tmp_path / "bad.log", "log_loss")
    paths = [tmp_path / "bad.log", tmp_path / "good.log"]
    (study,), (note,) = read_studies(paths, "log_loss")
    assert study == read_trials(tmp_path / "good.log", "log_loss")
    assert note.startswith("earlier studies: bad.log cannot be read: ")
    assert "\n" not in note
    with pytest.raises(DataError, match=r"bad\.log cannot be read: "):
        n_finished(tmp_path / "bad.log")
    assert n_finished(tmp_path / "none.log") == 0


def test_a_log_that_may_not_be_read_is_left_out_and_said(tmp_path: Path) -> None:
    (tmp_path / "folder.log").mkdir()
    (note,) = read_studies([tmp_path / "folder.log"], "log_loss")[1]
    assert note.startswith("earlier studies: folder.log cannot be read: IsADirectoryError")


def test_a_log_that_was_just_begun_has_nothing_yet(tmp_path: Path) -> None:
    (tmp_path / "empty.log").touch()
    assert read_studies([tmp_path / "empty.log"], "log_loss") == ([], [])
    assert n_finished(tmp_path / "empty.log") == n_finished(tmp_path / "none.log") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["empty.log"]


def test_each_study_is_by_itself(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("b.log", "a.log")]
    for path in paths:
        write(path)
    studies, notes = read_studies(paths, "log_loss")
    assert [len(study) for study in studies] == [5, 5]
    assert notes == []
