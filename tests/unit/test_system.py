from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

import holdtrue
from holdtrue.errors import ConfigError, DataError, RegistryError, StackError
from holdtrue.plan import Applied, Done, Journal
from holdtrue.plan._journal import Record
from holdtrue.plan._model_steps import next_study
from holdtrue.references import Study
from holdtrue.studies import wanted_trials
from holdtrue.system import System
from holdtrue.tuning._log import Asked, StudyLog
from holdtrue.tuning._types import Outcome

JANUARY = dt.datetime(2024, 1, 31, tzinfo=dt.UTC)


@pytest.fixture
def path(small: Path) -> Path:
    write(small, as_of="2024-01-31")
    return small


def write(path: Path, *, as_of: str | None, **sections: object) -> System:
    data = {"source": {"files": "rows.csv"}, "target": "y", "time": "at"}
    if as_of is not None:
        data["as_of"] = as_of
    estimator = "sklearn.linear_model.LogisticRegression"
    document = {
        "name": "small",
        "task": "classification",
        "data": data,
        "model": {"candidates": [{"estimator": estimator}]},
        "tune": {"metric": "log_loss"},
        **sections,
    }
    path.write_text(yaml.safe_dump(document))
    return System(path)


def test_loading_gives_the_verbs(path: Path) -> None:
    system = holdtrue.load(path)
    for verb in ("check", "plan", "apply", "serve", "status", "monitor", "predict", "rollback"):
        assert callable(getattr(system, verb))
    assert repr(system) == f"System('small', {str(path)!r})"
    assert system.store.root == path.parent / ".holdtrue"
    assert system.declaration.endpoint == "http://127.0.0.1:8700/small/predict"


def test_the_declared_moment_is_taken_for_now(path: Path) -> None:
    assert System(path).context().as_of == JANUARY


def test_without_a_declared_moment_it_is_now(path: Path) -> None:
    system = write(path, as_of=None)
    before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    assert before <= system.context().as_of <= dt.datetime.now(dt.UTC)


def test_an_explicit_moment_goes_first(path: Path) -> None:
    naive = dt.datetime(2024, 1, 20)  # noqa: DTZ001 - taken for UTC
    assert System(path).context(as_of=naive).as_of == naive.replace(tzinfo=dt.UTC)
    zone = dt.timezone(dt.timedelta(hours=2))
    moment = System(path).context(as_of=dt.datetime(2024, 1, 20, 2, tzinfo=zone)).as_of
    assert moment == dt.datetime(2024, 1, 20, tzinfo=dt.UTC)
    assert moment.utcoffset() == dt.timedelta(0)


def test_the_moment_of_the_last_run_is_kept_until_asked_otherwise(path: Path) -> None:
    moment = dt.datetime(2024, 1, 20, tzinfo=dt.UTC)
    System(path).apply(as_of=moment, until="extract")
    assert System(path).context().as_of == moment
    assert System(path).context(refresh=True).as_of == JANUARY
    assert System(path).plan(until="extract")[0].runs is False
    assert System(path).plan(until="extract", refresh=True)[0].runs is True


def test_a_changed_declared_moment_voids_the_kept_one(path: Path) -> None:
    System(path).apply(until="extract")
    changed = write(path, as_of="2024-01-15")
    assert changed.context().as_of == dt.datetime(2024, 1, 15, tzinfo=dt.UTC)
    gone = write(path, as_of=None)
    assert gone.context().as_of.year >= 2026


def test_a_second_run_without_a_declared_moment_has_nothing_to_do(path: Path) -> None:
    system = write(path, as_of=None)
    assert system.apply(until="extract").ran == ("extract",)
    assert System(path).apply(until="extract").ran == ()


def test_a_system_that_was_never_run(path: Path) -> None:
    status = System(path).status()
    assert (status.name, status.serving, status.endpoint) == ("small", False, None)
    assert (status.champion, status.versions, status.last_decision) == (None, 0, None)
    assert not System(path).store.root.exists()


def test_what_needs_a_champion_says_so(path: Path) -> None:
    system = System(path)
    with pytest.raises(ConfigError, match="no version of small has passed the gates yet"):
        system.predict(pd.DataFrame({"x": [1]}))
    with pytest.raises(RegistryError, match="small has no version 3"):
        system.predict(pd.DataFrame({"x": [1]}), version=3)
    with pytest.raises(ConfigError, match="small has no earlier champion to go back to"):
        system.rollback()
    with pytest.raises(ConfigError, match="no version of small has passed the gates yet"):
        system.serve()
    assert not system.store.root.exists()


def test_a_ray_that_does_not_answer_is_found_before_any_work(path: Path) -> None:
    system = write(path, as_of="2024-01-31", ray={"address": "127.0.0.1:1"})
    with pytest.raises(StackError, match=r"no Ray answers at 127\.0\.0\.1:1"):
        system.apply(until="extract")


def test_a_pruner_that_could_end_no_trial_is_refused(path: Path) -> None:
    tune = {"metric": "log_loss", "pruner": "median", "folds": 2}
    with pytest.raises(ConfigError, match=r"tune.pruner: pruner median can never end a trial"):
        write(path, as_of="2024-01-31", tune=tune).check()
    # One kind of model that it can end is enough; so is more than two folds.
    write(path, as_of="2024-01-31", tune=tune, model="auto").check()
    write(path, as_of="2024-01-31", tune=tune | {"folds": 3}).check()


def test_an_xgboost_of_the_projects_own_goes_in_rounds(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (path.parent / "own_boosted.py").write_text(
        "from xgboost import XGBClassifier\n\n\nclass Boosted(XGBClassifier):\n    pass\n"
    )
    model = {"candidates": [{"estimator": "own_boosted.Boosted"}]}
    tune = {"metric": "log_loss", "pruner": "median", "folds": 2}
    write(path, as_of="2024-01-31", tune=tune, model=model).check()


def finish(path: Path | None, numbers: range) -> Path:
    """Have trials finished in the log of a study."""
    assert path is not None
    with StudyLog(path, f"small-{path.stem[:12]}", "lower", {"metric": "log_loss"}) as log:
        for number in numbers:
            log.ask([Asked(number, {}, {})])
            log.tell([(number, Outcome("complete", 0.5, 1.0, 1.0))], seconds=1.0)
    return path


def wanted(system: System, text: str, as_of: dt.datetime = JANUARY) -> tuple[int, int]:
    return wanted_trials(system.context(as_of=as_of), text)


def test_more_trials_are_more_than_the_study_that_goes_on_has(path: Path) -> None:
    system = System(path)
    assert wanted(system, "+5") == (25, 0)  # not even split: one begins
    system.apply(until="split")
    log = next_study(system.context())
    assert wanted(system, "+5") == (25, 0)
    finish(log, range(7))
    assert wanted(system, "+5") == (12, 7)
    assert wanted(system, "5") == (5, 0)
    limits = {"metric": "log_loss", "trials": 9, "stop": {"no_gain_for": 3}}
    assert wanted(write(path, as_of="2024-01-31", tune=limits), "+5") == (12, 7)
    # Another metric, or other data: another study.
    other = write(path, as_of="2024-01-31", tune={"metric": "brier", "trials": 9})
    assert wanted(other, "+5") == (14, 0)
    later = write(path, as_of="2024-01-30")
    assert wanted(later, "+5", JANUARY - dt.timedelta(days=1)) == (25, 0)


def test_more_trials_of_a_study_whose_log_is_damaged_or_gone_are_refused(path: Path) -> None:
    system = System(path)
    system.apply(until="split")
    context = system.context()
    log = finish(next_study(context), range(7))
    study = {"log": context.store.relative(log)}
    record = Record(
        step="tune", digest="1" * 32, components={}, output=study, seconds=1.0, finished=JANUARY
    )
    journal = Journal(context.store, context.system)
    journal.write(record)
    journal.used("tune", record.digest, JANUARY, JANUARY)
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b"{", b"garbage", 1))
    with pytest.raises(DataError, match="cannot be read"):
        wanted(system, "+1")
    log.unlink()
    with pytest.raises(ConfigError, match="the log of the study that would go on is gone"):
        wanted(system, "+1")
    assert wanted(system, "8") == (8, 0)


@pytest.mark.parametrize("more", [0, 5])
def test_where_none_of_the_trials_asked_for_was_tried_a_note_says_why(
    path: Path, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    system = System(path)
    system.apply(until="split")
    log = finish(next_study(system.context()), range(7))
    wanted = []

    def search(self: System, **_: object) -> Applied:
        wanted.append(self.declaration.tune.trials)
        finish(log, range(7, 7 + more))
        study = Study(
            metric="log_loss",
            direction="lower",
            trials=(),
            best=0,
            folds=3,
            sample_rows=100,
            seconds=1.0,
            workers=1,
            log=self.store.relative(log),
            stopped="no gain in 3 trials",
        )
        done = Done("tune", cached=False, digest="1", output=study, seconds=1.0)
        return Applied((done,), None, None, None)

    monkeypatch.setattr(System, "apply", search)
    notes = system.tune(trials="+5").notes
    assert wanted == [12]
    assert notes == (() if more else ("--trials +5 tried no more: no gain in 3 trials",))
    assert system.tune(trials="60").notes == ()


def test_what_was_never_searched_cannot_be_drawn(path: Path) -> None:
    system = System(path)
    for look in (system.study, system.plot_study, system.study_log):
        with pytest.raises(ConfigError, match="has no search with a complete trial yet"):
            look()
        with pytest.raises(RegistryError, match="version 3"):
            look(3)
