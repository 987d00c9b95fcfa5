"""Which search is shown: finished or not, the last one or that behind a version."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdtrue.errors import ConfigError
from holdtrue.plan import Journal
from holdtrue.plan._journal import Record
from holdtrue.plan._model_steps import _reads_search, next_study
from holdtrue.references import Study, Trial
from holdtrue.system import System
from holdtrue.tuning._log import Asked, StudyLog
from holdtrue.tuning._space import Space
from holdtrue.tuning._types import Outcome

JANUARY = dt.datetime(2024, 1, 31, tzinfo=dt.UTC)
FOREST = "sklearn.ensemble.RandomForestClassifier"
LINE = "sklearn.linear_model.LogisticRegression"
SPACES = {FOREST: {"max_depth": {"int": [2, 9]}}, LINE: {"C": {"float": [0.1, 10.0], "log": True}}}


def write(path: Path, estimator: str, **tune: Any) -> System:
    document = {
        "name": "small",
        "task": "classification",
        "data": {"source": {"files": "rows.csv"}, "target": "y", "time": "at", "as_of": JANUARY},
        "model": {"candidates": [{"estimator": estimator, "space": SPACES[estimator]}]},
        "tune": {"metric": "log_loss", "pruner": "median", **tune},
    }
    path.write_text(yaml.safe_dump(document))
    return System(path)


def finish(system: System, log: str, value: float) -> Study:
    """Have a search of this system finished, as the step leaves it in the journal."""
    (label,) = Space(system.declaration.model.candidates).labels
    name = next(iter(system.declaration.model.candidates[0].space))
    trial = Trial(
        number=0,
        candidate=label,
        params={name: 3},
        state="complete",
        value=value,
        seconds=1.0,
        cpu_seconds=1.0,
        costs={"model_kb": 12.0} if system.declaration.tune.costs else {},
    )
    study = Study(
        metric="log_loss",
        direction="lower",
        trials=(trial,),
        best=0,
        folds=3,
        sample_rows=100,
        seconds=1.0,
        workers=1,
        log=log,
        stopped="all 1 trials are done",
    )
    journal = Journal(system.store, "small")
    journal.write(
        Record(
            step="tune",
            digest=log,
            components={"declared": _reads_search(system.declaration)},
            output=study.model_dump(mode="json"),
            finished=JANUARY,
            seconds=1.0,
        )
    )
    journal.used("tune", log, JANUARY, JANUARY)
    return study


def register(system: System, log: str) -> int:
    version = system.registry.register(
        "small",
        digest=log * 2,
        bundle="bundles/small/1",
        as_of=JANUARY,
        passed=True,
        reason="all held",
        incumbent=None,
        metrics={},
        profile="profiles/1",
        lineage={"tune": log},
    )
    return version.number


def test_the_last_search_and_that_behind_a_version_are_drawn_by_what_was_declared_then(
    small: Path,
) -> None:
    first = write(small, FOREST, limits={"model_kb": 20})
    one = finish(first, "one", 0.5)
    number = register(first, "one")
    second = write(small, LINE)
    two = finish(second, "two", 0.25)
    assert second.study() == two
    assert second.study(number) == one
    # Edited after the search: the page is still that of what was searched.
    edited = write(small, FOREST)
    assert edited.study() == two
    last, behind = edited.plot_study().html, edited.plot_study(number).html
    assert ("LogisticRegression" in last, "RandomForest" in last) == (True, False)
    assert ("LogisticRegression" in behind, "RandomForest" in behind) == (False, True)
    cost = "log_loss against model_kb"
    assert (cost in last, cost in behind) == (False, True)
    assert edited.study_log(number) == edited.store.path("one")


def test_a_search_that_has_only_failed_says_why(small: Path) -> None:
    system = write(small, LINE)
    with pytest.raises(ConfigError, match="small has no search with a complete trial yet"):
        system.study()
    system.apply(until="split")
    log = next_study(system.context())
    assert log is not None
    (label,) = (space := Space(system.declaration.model.candidates)).labels
    name = space.optuna_name(label, "C")
    with StudyLog(log, "s", "lower", {"metric": "log_loss"}) as kept:
        kept.ask([Asked(n, {name: 1.0 + n}, space.distributions) for n in range(3)])
        kept.tell(
            [
                (n, Outcome("failed", None, 1.0, 1.0, reason=f"ValueError: no room for C={n}"))
                for n in range(2)
            ],
            seconds=1.0,
        )
    with pytest.raises(ConfigError) as caught:
        system.study()
    assert caught.value.message == (
        "the search that small declares now has no complete trial yet, 2 failed; "
        "the commonest reason (2): ValueError: no room for C=0"
    )


def test_a_version_whose_search_is_no_longer_known(small: Path) -> None:
    system = write(small, FOREST)
    number = register(system, "gone")
    with pytest.raises(ConfigError, match="the search behind version 1 is no longer known"):
        system.study(number)


def test_a_search_that_was_left_is_shown_until_another_is_finished(small: Path) -> None:
    system = write(small, LINE)
    system.apply(until="split")
    log = next_study(system.context())
    assert log is not None
    earlier = finish(write(small, FOREST), "earlier", 0.5)
    system = write(small, LINE)
    assert system.study() == earlier
    (label,) = (space := Space(system.declaration.model.candidates)).labels
    name = space.optuna_name(label, "C")
    with StudyLog(log, "s", "lower", {"metric": "log_loss"}) as kept:
        kept.ask([Asked(n, {name: 1.0 + n}, space.distributions) for n in range(2)])
        found = system.study()
        assert found.trials == earlier.trials
        begun = "the search that small declares now has no complete trial yet"
        assert found.notes[0] == f"{begun}; this is the search before it"
        kept.tell([(0, Outcome("complete", 0.75, 1.0, 1.0))], seconds=1.0)
        assert [trial.value for trial in system.study().trials] == [0.75]
    assert "LogisticRegression" in system.plot_study().html
    # More trials were wanted of one that was finished, and it was stopped before they were done.
    done = finish(system, system.store.relative(log), 0.75)
    assert system.study() == done
    with StudyLog(log, "s", "lower", {"metric": "log_loss"}) as kept:
        kept.tell([(1, Outcome("complete", 0.5, 1.0, 1.0))], seconds=2.0)
    assert [trial.value for trial in system.study().trials] == [0.75, 0.5]
    # Without its data none goes on.
    (small.parent / "rows.csv").unlink()
    assert system.study() == done
