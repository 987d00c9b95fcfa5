from __future__ import annotations

import numpy as np
import pytest

from holdtrue.evaluation import evaluate, measure
from holdtrue.models import Answering
from holdtrue.models._calibration import Isotonic, fit_calibration
from holdtrue.models._conformal import Interval
from holdtrue.references import Evaluation

BINARY = ("no", "yes")
THREE = ("a", "b", "c")


def run(target, scores, classes, answering, raw=None) -> Evaluation:
    return evaluate(
        model_digest="0" * 32,
        target=target,
        scores=scores,
        classes=classes,
        metrics=["rmse"] if classes is None else ["log_loss"],
        slices={},
        confidence=0.95,
        seed=1,
        train_target=target,
        answering=answering,
        raw=raw,
        intervals=None if answering is None or classes else answering.intervals(scores),
    )


def drawn(generator, n_classes, n_rows=4_000):
    probabilities = generator.dirichlet(np.ones(n_classes), n_rows)
    target = (generator.random((n_rows, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    return target, probabilities


def test_without_declaration_nothing_is_said(generator):
    found = run(*drawn(generator, 2), BINARY, Answering())
    assert (found.calibrated, found.decisions, found.coverage) == (None, None, None)
    assert run(*drawn(generator, 2), BINARY, None).decisions is None


@pytest.mark.parametrize(
    ("classes", "costs"),
    [
        (BINARY, ((0, 1), (5, 0))),
        (THREE, ((0, 1, 2), (8, 0, 1), (3, 2, 0))),
    ],
    ids=["two", "three"],
)
def test_decisions_by_cost_are_cheaper(generator, classes, costs):
    target, scores = drawn(generator, len(classes))
    answering = Answering(costs=costs)
    found = run(target, scores, classes, answering).decisions
    table = np.array(costs)
    decided = answering.decide(scores)
    assert found.cost.value == pytest.approx(table[target, decided].mean())
    assert found.most_probable.value == pytest.approx(table[target, scores.argmax(axis=1)].mean())
    assert found.gain.value == pytest.approx(found.most_probable.value - found.cost.value)
    assert found.gain.low > 0
    assert found.cost.low < found.cost.value < found.cost.high < found.most_probable.low
    assert np.array(found.confusion).sum() == len(target)
    assert np.array(found.confusion).sum(axis=0).tolist() == [
        int((decided == label).sum()) for label in range(len(classes))
    ]
    expected = pytest.approx(1 / 6) if len(classes) == 2 else None
    assert found.threshold == expected


def test_costs_that_are_gains_have_an_interval(generator):
    target, scores = drawn(generator, 2)
    found = run(target, scores, BINARY, Answering(costs=((0, 1), (0, -3)))).decisions
    assert found.cost.low < found.cost.value < 0
    assert found.cost.value < found.cost.high


@pytest.mark.parametrize("n_classes", [2, 3], ids=["two", "three"])
def test_calibration_is_shown_before_and_after(generator, n_classes):
    classes = ("a", "b", "c")[:n_classes]
    target, right = drawn(generator, n_classes)
    sure = right**3 / (right**3).sum(axis=1, keepdims=True)
    learn_on, judge_on = slice(0, 2_000), slice(2_000, None)
    calibration = fit_calibration("isotonic", sure[learn_on], target[learn_on])
    target, raw = target[judge_on], sure[judge_on]
    scores = calibration(raw)
    evaluation = run(target, scores, classes, Answering(calibration=calibration), raw)
    found = evaluation.calibrated
    assert (found.method, found.rows) == ("isotonic", 2_000)
    for name in ("log_loss", "brier"):
        assert found.before[name] == measure(name, target, raw, classes)
        assert found.after[name] == measure(name, target, scores, classes)
    assert found.after["log_loss"] == evaluation.metrics["log_loss"].value
    assert found.after["calibration_error"] < 0.04 < 0.07 < found.before["calibration_error"]
    assert found.curve != evaluation.curves.calibration
    n_points = 2_000 * (1 if n_classes == 2 else n_classes)
    assert sum(rows for *_, rows in found.curve) == n_points
    assert sum(rows for *_, rows in evaluation.curves.calibration) == n_points


def test_coverage_is_counted_on_the_rows(generator):
    values = generator.normal(size=1_000)
    target = values + generator.normal(size=1_000)
    answering = Answering(interval=Interval(share=0.8, low=-1.0, high=2.0, rows=500))
    found = run(target, values, None, answering).coverage
    errors = target - values
    assert found.share == 0.8
    assert found.width == pytest.approx(3)
    assert found.below == pytest.approx((errors < -1).mean())
    assert found.above == pytest.approx((errors > 2).mean())
    assert found.covered.value == pytest.approx(1 - found.below - found.above)
    # Wilson's interval at 1,000 rows.
    p, n, z = found.covered.value, 1_000, 1.959964
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert found.covered.low == pytest.approx(middle - reach, abs=1e-4)
    assert found.covered.high == pytest.approx(middle + reach, abs=1e-4)


def test_what_is_said_of_answers_survives_json(generator):
    target, scores = drawn(generator, 2)
    answering = Answering(
        calibration=fit_calibration("isotonic", scores, target), costs=((0, 1), (5, 0))
    )
    assert isinstance(answering.calibration.curves[0], Isotonic)
    found = run(target, answering.calibrated(scores), BINARY, answering, scores)
    assert Evaluation.model_validate_json(found.model_dump_json()) == found
    assert Answering.model_validate_json(answering.model_dump_json()) == answering
