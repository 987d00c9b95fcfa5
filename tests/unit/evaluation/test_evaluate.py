from __future__ import annotations

import numpy as np
import pytest

from holdtrue.declaration._models import Gate
from holdtrue.evaluation import Rows, among, evaluate, judge, measure
from holdtrue.references import Evaluation

DIGEST = "0" * 32
BINARY = ("no", "yes")


def run(target, scores, classes, metrics, **given) -> Evaluation:
    settings = {
        "model_digest": DIGEST,
        "slices": {},
        "confidence": 0.95,
        "seed": 1,
        "train_target": target,
        **given,
    }
    return evaluate(target=target, scores=scores, classes=classes, metrics=metrics, **settings)


@pytest.fixture
def binary(generator):
    signal = generator.normal(size=3_000)
    target = (generator.random(3_000) < 1 / (1 + np.exp(1 - signal))).astype(int)
    positive = 1 / (1 + np.exp(1 - signal))
    return target, np.column_stack([1 - positive, positive])


def test_binary_evaluation_is_whole_and_survives_json(binary):
    target, scores = binary
    found = run(
        target, scores, BINARY, ["roc_auc", "log_loss", "brier"], importance={"a": 0.1, "b": 0.2}
    )
    assert found.rows == 3_000
    assert found.metrics["roc_auc"].value == measure("roc_auc", target, scores, BINARY)
    assert found.baseline["roc_auc"] == 0.5
    assert found.baseline["log_loss"] > found.metrics["log_loss"].value
    over = found.over_baseline["log_loss"]
    assert over.champion == found.baseline["log_loss"]
    assert over.gain == pytest.approx(over.champion - found.metrics["log_loss"].value)
    assert over.probability > 0.999
    assert found.over_baseline["roc_auc"].champion == 0.5
    assert found.champion is None
    assert found.differences == {}
    assert list(found.importance) == ["b", "a"]
    assert Evaluation.model_validate_json(found.model_dump_json()) == found


def test_curves_of_a_binary_task(binary):
    target, scores = binary
    found = run(target, scores, BINARY, ["roc_auc"]).curves
    assert found.roc[0] == (0, 0)
    assert found.roc[-1] == (1, 1)
    assert len(found.roc) <= 201
    x, y = np.array(found.roc).T
    assert np.trapezoid(y, x) == pytest.approx(measure("roc_auc", target, scores, BINARY), abs=0.01)
    assert sum(rows for *_, rows in found.calibration) == 3_000
    assert np.array(found.confusion).sum() == 3_000
    assert np.array(found.confusion).sum(axis=1).tolist() == np.bincount(target).tolist()
    assert found.residuals == ()


def test_regression_shows_at_most_1000_rows_and_the_same_ones_each_time(generator):
    target = generator.normal(size=5_000)
    scores = target + generator.normal(size=5_000)
    found = run(target, scores, None, ["rmse", "r2"])
    assert len(found.curves.residuals) == 1_000
    assert found == run(target, scores, None, ["rmse", "r2"])
    assert found.baseline["r2"] == pytest.approx(0)
    assert found.curves.confusion == ()


def test_multiclass(generator):
    scores = generator.dirichlet(np.ones(3), 600)
    target = scores.argmax(axis=1)
    found = run(target, scores, ("a", "b", "c"), ["roc_auc", "f1", "log_loss"])
    assert found.metrics["f1"].value == 1
    assert found.curves.roc == ()
    assert len(found.curves.confusion) == 3


def test_small_and_rare_slices_are_left_out(binary):
    target, scores = binary
    many = np.repeat([f"v{i}" for i in range(60)], 50)
    few = np.where(np.arange(3_000) < 49, "small", "large")
    single = np.where(target == 1, "late", "on time")
    found = run(
        target, scores, BINARY, ["roc_auc", "brier"], slices={"a": many, "b": few, "c": single}
    ).slices
    assert len(found["a"]) == 50
    assert list(found["b"]) == ["large"]
    assert found["b"]["large"].rows == 2_951
    assert set(found["c"]["late"].metrics) == {"brier"}


def test_an_undefined_metric_is_left_out(binary):
    _, scores = binary
    found = run(np.zeros(3_000, int), scores, BINARY, ["roc_auc", "log_loss"])
    assert set(found.metrics) == {"log_loss"}
    assert found.curves.roc == ()


def test_champion_on_the_same_rows(binary):
    target, scores = binary
    worse = np.full_like(scores, 0.5)
    found = run(
        target,
        scores,
        BINARY,
        ["roc_auc", "log_loss"],
        champion=(7, Rows.of(target, worse, BINARY)),
    )
    assert found.champion == 7
    assert found.differences["log_loss"].champion == pytest.approx(np.log(2))
    assert found.differences["log_loss"].gain > 0
    assert found.differences["roc_auc"].probability > 0.999


def test_a_champion_with_other_rows_is_refused(binary):
    target, scores = binary
    with pytest.raises(ValueError, match="shape"):
        run(
            target, scores, BINARY, ["log_loss"], champion=(7, Rows.of(target, scores[:10], BINARY))
        )


OLD, NEW = ("price", "service"), ("litigation", "price", "service")


@pytest.fixture
def late(generator):
    """Truth of 900 rows by the classes of NEW, and what a model of each set of classes says."""
    target = generator.choice(3, 900, p=[0.05, 0.5, 0.45])
    few = generator.dirichlet([2, 2], 900)
    many = generator.dirichlet([1, 3, 3], 900) * 0.5 + 0.5 * np.eye(3)[target]
    return target, few, many


def test_rows_of_a_class_that_was_not_taught_are_left_out(late):
    target, few, _ = late
    lacking = int((target == 0).sum())
    found = run(
        target - 1,
        few,
        OLD,
        ["log_loss", "roc_auc"],
        slices={"all": np.full(900, "x")},
        train_target=np.array([0, 1]),
        untaught={"litigation": (0, lacking)},
    )
    known = target > 0
    assert found.rows == found.slices["all"]["x"].rows == 900 - lacking
    assert found.metrics["log_loss"].value == measure(
        "log_loss", target[known] - 1, few[known], OLD
    )
    assert np.array(found.curves.confusion).sum() == 900 - lacking
    assert found.left_out == (
        f"{lacking} test rows are of class litigation, of which no training row is: this model "
        "cannot be right about such rows, which are left out of the metrics"
    )
    assert found.left_out in judge(found, ()).reason
    few_rows = found.model_copy(update={"untaught": {"litigation": (2, 1), "gone": (1, 0)}})
    assert few_rows.left_out.startswith(
        "1 test row is of class litigation, of which only 2 training rows are: this model"
    )


@pytest.mark.parametrize("metric", ["log_loss", "brier", "accuracy", "f1", "roc_auc"])
def test_a_champion_of_fewer_classes_gives_the_others_no_chance(late, metric):
    target, few, many = late
    champion = (4, Rows.of(target - 1, few, OLD))
    found = run(target, many, NEW, [metric], champion=champion)
    spread = np.column_stack([np.zeros(900), few])
    assert found.differences[metric].champion == measure(metric, target, spread, NEW)
    assert found.differences[metric].candidate == measure(metric, target, many, NEW)
    assert (found.champion_lacks, found.champion_only) == (("litigation",), ())
    assert found.compared_rows == found.rows == 900
    gate = Gate(metric=metric, better_than="champion", confidence=0.9)
    verdict = judge(found, (gate,))
    assert verdict.passed
    said = "of version 4, which does not know class litigation, on the same 900 rows"
    assert said in verdict.reason


@pytest.mark.parametrize("metric", ["log_loss", "brier", "accuracy", "f1", "roc_auc"])
def test_a_champion_of_more_classes_is_judged_on_rows_of_them_too(late, metric):
    target, few, many = late
    lacking = int((target == 0).sum())
    found = run(
        target - 1,
        few,
        OLD,
        [metric],
        train_target=np.array([0, 1]),
        untaught={"litigation": (0, lacking)},
        champion=(4, Rows.of(target, many, NEW)),
    )
    spread = np.column_stack([np.zeros(900), few])
    assert found.differences[metric].champion == measure(metric, target, many, NEW)
    assert found.differences[metric].candidate == measure(metric, target, spread, NEW)
    assert (found.rows, found.compared_rows) == (900 - lacking, 900)
    verdict = judge(found, (Gate(metric=metric, better_than="champion", confidence=0.9),))
    assert not verdict.passed
    said = "of version 4, which knows class litigation and this model does not, on the same 900"
    assert said in verdict.reason


def test_a_class_that_died_out_keeps_no_ranking_from_being_compared(late):
    target, few, many = late
    known = target > 0
    champion = (4, Rows.of(target[known], many[known], NEW))
    found = run(target[known] - 1, few[known], OLD, ["roc_auc"], champion=champion)
    whole = measure("roc_auc", target[known], many[known], NEW, every=False)
    assert found.differences["roc_auc"].champion == whole


def test_a_champion_of_renamed_classes_is_not_compared(late):
    target, few, many = late
    champion = (4, Rows.of(target - 1, few, ("cost", "service")))
    found = run(target, many, NEW, ["log_loss"], champion=champion)
    assert (found.champion, found.differences) == (4, {})
    gate = Gate(metric="log_loss", better_than="champion", confidence=0.9)
    assert "has other classes or columns" in judge(found, (gate,)).reason


def test_rows_of_some_classes_are_measured_as_if_there_were_no_others() -> None:
    scores = np.array([[0.2, 0.6, 0.2], [0.1, 0.1, 0.8], [0.0, 1.0, 0.0], [0.3, 0.3, 0.4]])
    rows = Rows.of([0, 2, 0, 1], scores, ("a", "late", "z"))
    found, kept = among(rows, ("a", "z"))
    assert kept.tolist() == [True, True, True, False]
    assert found.target.tolist() == [0, 1, 0]
    assert found.classes == ("a", "z")
    assert found.scores == pytest.approx(np.array([[0.5, 0.5], [1 / 9, 8 / 9], [0.5, 0.5]]))
    assert among(rows, rows.classes)[0] is rows
    numbers = Rows.of([1.0, 2.0], [1.5, 2.5], None)
    assert among(numbers, None)[0] is numbers
