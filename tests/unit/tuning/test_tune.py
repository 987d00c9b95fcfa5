"""What is refused around a search: folds that lack a class before it, no success after it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from holdtrue.declaration import Declaration, parse
from holdtrue.errors import TrainingError
from holdtrue.references import Trial
from holdtrue.tuning._drive import Driven
from holdtrue.tuning._folds import cut
from holdtrue.tuning._tune import _check_folds, _study

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


def check(target: list[int], *, ordered: bool, classes: tuple[str, ...] = CLASSES) -> None:
    values = np.array(target)
    parts = list(cut(values, 3, ordered=ordered, classification=True, seed=0))
    _check_folds(parts, values, classes)


def test_folds_with_every_class_are_fine() -> None:
    check([0, 1] * 20, ordered=True)
    check([0, 1] * 20, ordered=False)
    # Rows to judge on may lack one of several classes, as long as there are two.
    check([0, 1, 2] * 8 + [0, 1] * 4, ordered=True, classes=("a", "b", "c"))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ([0] * 12 + [0, 1] * 18, "fold 1 of 3 has no rows of class yes to fit on"),
        ([1] * 12 + [0, 1] * 18, "fold 1 of 3 has no rows of class no to fit on"),
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
