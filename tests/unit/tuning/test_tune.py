"""What is refused around a search: folds that lack a class before it, no success after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from holdtrue.declaration import Declaration, parse
from holdtrue.errors import DataError, TrainingError
from holdtrue.references import Trial
from holdtrue.tuning._drive import Driven
from holdtrue.tuning._folds import cut
from holdtrue.tuning._log import Asked, StudyLog, trial_of
from holdtrue.tuning._space import Space
from holdtrue.tuning._tune import _check_folds, _study, read_study
from holdtrue.tuning._types import Outcome, Report, Setting

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ("no", "yes")
DECLARED = """\
name: x
task: classification
data: {source: {files: a.csv}, target: y}
model: auto
tune: {metric: log_loss, folds: 3}
"""


def declaration() -> Declaration:
    return parse(DECLARED)


def check(
    target: list[int],
    *,
    ordered: bool,
    classes: tuple[str, ...] = CLASSES,
    metric: str = "log_loss",
) -> None:
    values = np.array(target)
    parts = list(cut(values, 3, ordered=ordered, classification=True, seed=0))
    _check_folds(parts, values, classes, metric)


def test_folds_with_every_class_are_fine() -> None:
    check([0, 1] * 20, ordered=True)
    check([0, 1] * 20, ordered=False)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ([0] * 12 + [0, 1] * 18, "fold 1 of 3 is fitted on rows of class no only"),
        ([1] * 10 + [0] * 2 + [0, 1] * 18, "fold 1 of 3 is fitted on rows of class yes only"),
        ([0, 1] * 18 + [0] * 12, "fold 3 of 3 is judged on rows of class no only"),
        ([0, 1] * 12 + [1] * 12 + [0, 1] * 6, "fold 2 of 3 is judged on rows of class yes only"),
    ],
)
def test_a_fold_with_one_class_is_refused_with_its_number_and_the_class(
    target: list[int], said: str
) -> None:
    with pytest.raises(TrainingError) as caught:
        check(target, ordered=True)
    assert caught.value.message == said
    assert "fewer tune.folds" in (caught.value.hint or "")


def test_r2_needs_different_targets_in_each_fold() -> None:
    target = np.array([1.0, 2.0, 3.0] * 8 + [4.0] * 8)
    parts = list(cut(target, 3, ordered=True, classification=False, seed=0))
    _check_folds(parts, target, None, "rmse")
    with pytest.raises(TrainingError, match="fold 3 of 3 is judged on rows with a single target"):
        _check_folds(parts, target, None, "r2")


def driven(*reasons: str | None, stopped: str = "all trials were done", **changes: Any) -> Driven:
    trials = tuple(
        Trial.model_validate(
            {
                "number": number,
                "candidate": "xgboost.XGBClassifier",
                "params": {},
                "state": "failed" if reason else "pruned",
                "value": None,
                "seconds": 1.0,
                "reason": reason,
                **changes,
            }
        )
        for number, reason in enumerate(reasons)
    )
    return Driven(trials, seconds=1.0, workers=1, stopped=stopped)


def said(search: Driven) -> str:
    with pytest.raises(TrainingError) as caught:
        _study(declaration(), search, (), "study.log", 100)
    assert "model.candidates" in (caught.value.hint or "")
    return caught.value.message


def test_where_all_trials_failed_the_commonest_reason_is_told() -> None:
    rare, common = "MemoryError: no room", "ValueError: max_depth must be positive"
    assert said(driven(rare, common, None, common)) == (
        f"none of 4 trials succeeded; the commonest reason (2 times): {common}"
    )
    assert (
        said(driven(rare)) == f"none of 1 trials succeeded; the commonest reason (1 time): {rare}"
    )


def test_where_no_trial_failed_and_none_succeeded_the_end_is_told() -> None:
    message = said(driven(None, None, stopped="the time was up"))
    assert message == "none of 2 trials succeeded; the search ended by this: the time was up"


def test_one_success_among_failures_is_the_best() -> None:
    good = driven(None, state="complete", value=0.3).trials[0].model_copy(update={"number": 2})
    bad = driven("ValueError: no", "ValueError: no")
    search = Driven((*bad.trials, good), seconds=1.0, workers=1, stopped="done")
    study = _study(declaration(), search, (), "study.log", 100)
    assert (study.best, len(study.trials)) == (2, 3)


def test_a_search_that_is_not_finished_is_read(tmp_path: Path) -> None:
    declared = parse(
        DECLARED.replace(
            "model: auto",
            "model: {candidates: [{estimator: sklearn.linear_model.LogisticRegression,"
            " space: {C: {float: [0.1, 10]}}}]}",
        )
    )
    space, path = Space(declared.model.candidates), tmp_path / "search.log"
    (label,) = space.labels
    name = space.optuna_name(label, "C")
    reports = (Report("folds", 1, 0.5), Report("folds", 2, 0.75))
    failed = Outcome("failed", None, 1.0, 0.5, reason="ValueError: no")
    pruned = Outcome("pruned", 0.75, 2.0, 1.0, reports=reports, share=0.5)
    complete = Outcome("complete", 0.25, 3.0, 2.5, fold_values=(0.2, 0.25, 0.3))
    with StudyLog(path, "s", "lower", {"metric": "log_loss"}) as log:
        log.note(workers=2, rows=90, stopped=None)
        log.ask([Asked(n, {name: 1.0 + n}, space.distributions) for n in range(4)])
        log.tell([(0, failed), (3, pruned)], seconds=2.0)
        assert read_study(declared, path, "search.log") is None
        log.tell([(2, complete)], seconds=4.0)
        study = read_study(declared, path, "search.log")
        log.note(stopped="interrupted by Ctrl-C", seconds=5.0)
    assert study is not None
    assert [trial.number for trial in study.trials] == [0, 2, 3]
    assert study.best_trial == trial_of(2, Setting(label, {"C": 3.0}), "sampler", complete)
    assert study.trials[2] == trial_of(3, Setting(label, {"C": 4.0}), "sampler", pruned)
    assert (study.workers, study.sample_rows, study.seconds) == (2, 90, 4.0)
    assert study.stopped.startswith("not at all yet: it is running")
    left = read_study(declared, path, "search.log")
    assert left == study.model_copy(update={"stopped": "interrupted by Ctrl-C", "seconds": 5.0})
    path.write_text("nothing\n" + path.read_text())
    with pytest.raises(DataError, match=r"search\.log cannot be read"):
        read_study(declared, path, "search.log")
