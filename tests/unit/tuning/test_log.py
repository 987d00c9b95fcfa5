from __future__ import annotations

import json
import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from holdtrue.errors import StackError, TrainingError
from holdtrue.tuning._log import Asked, StudyLog
from holdtrue.tuning._types import Outcome, Report

DISTRIBUTIONS = {
    "candidate": CategoricalDistribution(("a", "b")),
    "a:depth": IntDistribution(1, 10),
    "a:rate": FloatDistribution(1e-3, 1.0, log=True),
}
FACTS = {"metric": "log_loss", "seed": 3}
COMPLETE = Outcome(
    "complete",
    0.25,
    1.5,
    1.25,
    fold_values=(0.2, 0.3),
    costs={"model_kb": 150.0, "predict_ms": 1.0},
    constraints={"model_kb": 0.5, "predict_ms": -0.75},
)
PRUNED = Outcome(
    "pruned",
    0.75,
    0.5,
    0.25,
    reports=(Report("rounds", 5, 0.8, (0.7, 0.9)), Report("rounds", 15, 0.75, (0.7, 0.8))),
    share=0.125,
)
FAILED = Outcome("failed", None, 0.1, 0.1, reason="ValueError: no such luck")


def asked(number: int, **other: Any) -> Asked:
    params = {"candidate": "a", "a:depth": 1 + number % 10, "a:rate": 0.1}
    return Asked(number, params, DISTRIBUTIONS, **other)


def opened(path: Path, facts: dict[str, Any] = FACTS, name: str = "s") -> StudyLog:
    return StudyLog(path, name, "lower", facts)


def as_optuna(path: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(study_name="s", storage=storage)


@pytest.fixture
def path() -> Iterator[Path]:
    # In memory where that is possible, for thousands of fsyncs take long on a disk.
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own in it
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder) / "studies" / "study.log"


def test_what_was_written_is_read_back(path: Path) -> None:
    group = [asked(0, origin="champion"), asked(1, system_attrs={"generation": 2}), asked(2)]
    with opened(path) as log:
        assert (log.trials, log.attrs, log.seconds) == ((), {}, 0.0)
        log.ask([*group, asked(3)])
        log.tell([(2, FAILED), (0, COMPLETE)], seconds=2.0)
        log.tell([(1, PRUNED)], seconds=2.5)
        log.note(stopped="interrupted", seconds=3.25)
    with opened(path) as log:
        assert log.attrs.items() >= {**FACTS, "stopped": "interrupted"}.items()
        assert log.seconds == 3.25
        assert [known.asked for known in log.trials] == [*group, asked(3)]
        assert [known.outcome for known in log.trials] == [COMPLETE, PRUNED, FAILED, None]
        assert all(known.finished is not None for known in log.trials[:3])


def test_optuna_opens_it_while_it_is_written(path: Path) -> None:
    with opened(path) as log:
        log.ask([asked(0, origin="earlier"), asked(1), asked(2), asked(3)])
        log.tell([(0, COMPLETE), (1, PRUNED), (2, FAILED)], seconds=2.0)
        study = as_optuna(path)
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING]
    assert [trial.state for trial in study.trials] == states
    assert [trial.value for trial in study.trials] == [0.25, 0.75, None, None]
    assert study.trials[1].intermediate_values == {5: 0.8, 15: 0.75}
    assert study.trials[0].params == {"candidate": "a", "a:depth": 1, "a:rate": 0.1}
    assert study.trials[0].constraints == {"model_kb": 0.5, "predict_ms": -0.75}
    assert study.trials[0].user_attrs["costs"] == {"model_kb": 150.0, "predict_ms": 1.0}
    assert study.trials[0].distributions == DISTRIBUTIONS
    assert study.trials[0].user_attrs["origin"] == "earlier"
    assert study.trials[1].user_attrs["share"] == 0.125
    assert study.trials[2].user_attrs["reason"] == "ValueError: no such luck"
    assert study.user_attrs["metric"] == "log_loss"
    storage = JournalStorage(JournalFileBackend(str(path)))
    copied = optuna.storages.InMemoryStorage()
    optuna.copy_study(from_study_name="s", from_storage=storage, to_storage=copied)
    assert [trial.value for trial in copied.get_all_trials(0)] == [0.25, 0.75, None, None]


def test_a_log_cut_off_anywhere_is_whole_asks_and_tells(path: Path) -> None:
    with opened(path) as log:
        log.ask([asked(0), asked(1)])
        log.tell([(0, COMPLETE)], seconds=1.0)
        before = path.stat().st_size
        log.ask([asked(2), asked(3)])
        log.tell([(1, PRUNED), (2, FAILED)], seconds=9.0)
    data = path.read_bytes()
    seen = set()
    for end in range(before, len(data) + 1):
        path.write_bytes(data[:end])
        with opened(path) as log:
            outcomes = tuple(known.outcome for known in log.trials)
            n_asked = len(outcomes)
            if end % 16 and (n_asked, outcomes[1:]) in seen:
                continue
            seen.add((n_asked, outcomes[1:]))
            log.ask([asked(n_asked)])
            log.tell([(1, FAILED)] if outcomes[1] is None else [], seconds=10.0)
        trials = as_optuna(path).trials
        assert [trial.number for trial in trials] == list(range(n_asked + 1))
        assert trials[0].value == 0.25
        if outcomes[1] is None:
            assert trials[1].state == TrialState.FAIL
            assert trials[1].intermediate_values == {}
            assert "share" not in trials[1].user_attrs
    assert seen == {
        (2, (None,)),
        (3, (None, None)),
        (4, (None, None, None)),
        (4, (PRUNED, None, None)),
        (4, (PRUNED, FAILED, None)),
    }


def test_a_log_cut_off_while_it_was_made_begins_anew(path: Path) -> None:
    opened(path).close()
    data = path.read_bytes()
    for end in range(len(data)):
        path.write_bytes(data[:end])
        with opened(path) as log:
            assert log.trials == ()
        assert as_optuna(path).user_attrs.items() >= FACTS.items()


def test_only_one_has_it_at_a_time(path: Path) -> None:
    with opened(path):
        said = rf"the study .*study\.log is held by process {os.getpid()}\n  wait until"
        with pytest.raises(StackError, match=said):
            opened(path)
    opened(path).close()


def test_a_refused_log_is_let_go(path: Path) -> None:
    opened(path).close()
    with pytest.raises(TrainingError):
        opened(path, name="other")
    opened(path).close()


@pytest.mark.parametrize(
    ("name", "facts", "said"),
    [
        ("other", FACTS, "is of another study: s, not other"),
        ("s", FACTS | {"seed": 4}, "is of another search: seed is 3 there, not 4"),
        ("s", FACTS | {"metric": "x" * 80}, "is of another search: its metric differs"),
    ],
)
def test_the_log_of_another_search_is_refused(
    path: Path, name: str, facts: dict[str, Any], said: str
) -> None:
    opened(path).close()
    before = path.read_bytes()
    with pytest.raises(TrainingError, match=said):
        opened(path, facts, name)
    assert path.read_bytes() == before


def test_the_other_direction_is_refused(path: Path) -> None:
    opened(path).close()
    with pytest.raises(TrainingError, match="higher values are not better"):
        StudyLog(path, "s", "higher", FACTS)


@pytest.mark.parametrize("text", ["name: flights\n", "{}\n{}\n", '{"op_code": 4}\n'])
def test_a_file_that_is_no_log_is_left_as_it_is(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(TrainingError, match="is not the log of a study"):
        opened(path)
    assert path.read_text() == text


def test_a_line_broken_in_the_middle_is_told(path: Path) -> None:
    with opened(path) as log:
        log.ask([asked(0)])
        log.ask([asked(1)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:-2], b"\0" * 39 + b"\n", lines[-1]]))
    with pytest.raises(TrainingError, match=r"cannot be read: "):
        opened(path)


def test_a_trial_that_another_program_queued_is_refused(path: Path) -> None:
    opened(path).close()
    as_optuna(path).enqueue_trial({"a:depth": 3})
    with pytest.raises(TrainingError, match=r"trial 0 in the log .* was queued by another program"):
        opened(path)


def test_a_trial_that_another_program_told_is_kept(path: Path) -> None:
    opened(path).close()
    study = as_optuna(path)
    trial = study.ask({"a:depth": DISTRIBUTIONS["a:depth"]})
    study.tell(trial, 0.5)
    with opened(path) as log:
        (known,) = log.trials
    assert known.outcome == Outcome("complete", 0.5, 0.0, 0.0)
    assert known.asked.params == trial.params


def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="cannot be opened: Is a directory"):
        opened(tmp_path)


def test_a_full_disk_is_told_and_leaves_the_log_whole(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(path) as log:
        log.ask([asked(0)])
        size = path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, hard))
        try:
            with pytest.raises(StackError, match="cannot be written"):
                log.tell([(0, COMPLETE)], seconds=1.0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.stat().st_size == size
    with opened(path) as log:
        assert [known.outcome for known in log.trials] == [None]


def test_each_group_is_one_write_that_is_on_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = []
    forced = []
    write = os.write

    def counted(file: int, data: bytes) -> int:
        writes.append(data)
        return write(file, data)

    with opened(path) as log:
        monkeypatch.setattr(os, "write", counted)
        monkeypatch.setattr(os, "fsync", lambda _: forced.append(len(writes)))
        log.ask([asked(0), asked(1)])
        log.tell([(0, COMPLETE), (1, PRUNED)], seconds=9.0)
    assert len(writes) == 2
    assert forced == [1, 2]
    assert json.loads(writes[1].splitlines()[-1])["op_code"] == 6


numbers = st.floats(allow_nan=False, width=64)
outcomes = st.builds(
    Outcome,
    state=st.just("complete"),
    value=numbers.filter(math.isfinite),
    seconds=st.just(1.0),
    cpu_seconds=st.just(1.0),
    fold_values=st.lists(numbers).map(tuple),
    reports=st.dictionaries(st.integers(1, 10**6), st.tuples(numbers, st.lists(numbers))).map(
        lambda steps: tuple(
            Report("folds", step, value, tuple(folds))
            for step, (value, folds) in sorted(steps.items())
        )
    ),
    share=st.floats(0, 1),
    reason=st.none() | st.text(),
)


@given(outcome=outcomes)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_number_and_text_is_read_back(path: Path, outcome: Outcome) -> None:
    path.unlink(missing_ok=True)
    with opened(path) as log:
        log.ask([asked(0)])
        log.tell([(0, outcome)], seconds=1.0)
    with opened(path) as log:
        assert log.trials[0].outcome == outcome
