from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.isotonic import IsotonicRegression

from holdtrue.declaration import Model
from holdtrue.evaluation import measure
from holdtrue.models import Answering, Signature, learn_answering, pipeline
from holdtrue.models._calibration import Calibration, fit_calibration
from holdtrue.models._fit import fit_pipeline
from holdtrue.tuning._folds import cut

NAIVE = "sklearn.naive_bayes.GaussianNB"
LINEAR = "sklearn.linear_model.LogisticRegression"
BOOSTED = "xgboost.XGBClassifier"
N = 3_000


def signature_of(classes: tuple[str, ...]) -> Signature:
    columns = dict.fromkeys("abcdef", "number")
    return Signature(
        target="y",
        task="classification",
        classes=classes,
        columns=columns,  # type: ignore[arg-type]
        categorical=(),
    )


def make(classes: tuple[str, ...], n_rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Columns that say nearly the same: naive Bayes counts them several times."""
    chance = np.random.default_rng(seed)
    cause = chance.normal(size=n_rows)
    frame = pd.DataFrame({name: cause + 0.3 * chance.normal(size=n_rows) for name in "abcdef"})
    noisy = cause + 1.5 * chance.normal(size=n_rows)
    edges = np.linspace(-1, 1, len(classes) - 1) if len(classes) > 2 else [0.5]
    return frame, np.digitize(noisy, edges)


def declared(**given: Any) -> Model:
    return Model.model_validate({"candidates": [{"estimator": LINEAR}], **given})


def learn(
    estimator: str, params: dict[str, Any], classes: tuple[str, ...], model: Model
) -> tuple[Any, Answering]:
    frame, target = make(classes, N, seed=1)
    signature = signature_of(classes)
    given = (frame, target, signature, estimator, params)
    fitted = fit_pipeline(*given, seed=0, threads=1, model=model)
    learnt = learn_answering(*given, seed=0, threads=1, model=model, folds=4, ordered=False)
    return fitted, learnt


def by_sklearn(
    estimator: str, params: dict[str, Any], classes: tuple[str, ...], method: str
) -> CalibratedClassifierCV:
    frame, target = make(classes, N, seed=1)
    parts = list(cut(target, 4, ordered=False, classification=True, seed=0))
    unfitted = pipeline(estimator, params, signature_of(classes), seed=0, threads=1)
    return CalibratedClassifierCV(unfitted, method=method, cv=parts, ensemble=False).fit(
        frame, target
    )


def test_sigmoid_equals_that_of_scikit_learn() -> None:
    # On log-odds, as scikit-learn's where an estimator has a decision function.
    classes = ("no", "yes")
    fitted, learnt = learn(LINEAR, {}, classes, declared(calibrate="sigmoid"))
    frame, _ = make(classes, 500, seed=2)
    ours = learnt.calibrated(fitted.predict_proba(frame))
    theirs = by_sklearn(LINEAR, {}, classes, "sigmoid").predict_proba(frame)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["isotonic", "sigmoid"])
def test_of_more_classes_each_is_held_against_the_rest(method: Any) -> None:
    chance = np.random.default_rng(0)
    probabilities = chance.dirichlet((1, 1, 1), 500)
    target = np.array([chance.choice(3, p=row**2 / (row**2).sum()) for row in probabilities])
    found = fit_calibration(method, probabilities, target)
    for label, curve in enumerate(found.curves):
        p = probabilities[:, label]
        alone = fit_calibration(method, np.column_stack([1 - p, p]), (target == label).astype(int))
        assert alone.curves == (curve,)
    each = np.column_stack([c(probabilities[:, i]) for i, c in enumerate(found.curves)])
    np.testing.assert_allclose(
        found(probabilities), each / each.sum(axis=1, keepdims=True), atol=1e-12
    )


@pytest.mark.parametrize("classes", [("no", "yes"), ("a", "b", "c")], ids=["two", "three"])
def test_isotonic_equals_that_of_scikit_learn_inside(classes: tuple[str, ...]) -> None:
    fitted, learnt = learn(NAIVE, {}, classes, declared(calibrate="isotonic"))
    frame, _ = make(classes, 500, seed=2)
    raw = fitted.predict_proba(frame)
    assert learnt.calibration is not None
    # At its ends scikit-learn's curve is 0 and 1; ours is not, and changes up to the next knot.
    inside = np.ones(len(raw), dtype=bool)
    for i, curve in enumerate(learnt.calibration.curves):
        column = raw[:, 1 if len(classes) == 2 else i]
        _, rises = np.unique(curve.y, return_index=True)
        inside &= (column >= curve.x[rises[1]]) & (column <= curve.x[rises[-1] - 1])
    theirs = by_sklearn(NAIVE, {}, classes, "isotonic").predict_proba(frame)
    assert inside.sum() > 100
    np.testing.assert_allclose(learnt.calibrated(raw)[inside], theirs[inside], rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", ["isotonic", "sigmoid"])
@pytest.mark.parametrize("classes", [("no", "yes"), ("a", "b", "c")], ids=["two", "three"])
@pytest.mark.parametrize(
    ("estimator", "params"),
    [(NAIVE, {}), (BOOSTED, {"n_estimators": 150, "learning_rate": 0.3})],
    ids=["naive", "boosted"],
)
def test_too_sure_a_model_gets_better_on_unseen_rows(
    method: str, classes: tuple[str, ...], estimator: str, params: dict[str, Any]
) -> None:
    fitted, learnt = learn(estimator, params, classes, declared(calibrate=method))
    frame, target = make(classes, 4_000, seed=3)
    before = fitted.predict_proba(frame).astype(np.float64)
    after = learnt.calibrated(before)
    np.testing.assert_allclose(after.sum(axis=1), 1)
    assert measure("log_loss", target, after, classes) < 0.9 * measure(
        "log_loss", target, before, classes
    )
    assert measure("brier", target, after, classes) < 0.97 * measure(
        "brier", target, before, classes
    )


@pytest.mark.parametrize("method", ["isotonic", "sigmoid"])
def test_two_classes_keep_their_order(method: str) -> None:
    classes = ("no", "yes")
    fitted, learnt = learn(NAIVE, {}, classes, declared(calibrate=method))
    frame, target = make(classes, 4_000, seed=3)
    before = fitted.predict_proba(frame)
    after = learnt.calibrated(before)
    order = np.argsort(before[:, 1])
    assert (np.diff(after[order, 1]) >= 0).all()
    # Isotonic regression makes ties, which count one half.
    assert measure("roc_auc", target, after, classes) == pytest.approx(
        measure("roc_auc", target, before, classes), abs=0.003 if method == "isotonic" else 1e-6
    )


def test_calibration_brings_weighted_probabilities_back() -> None:
    classes = ("no", "yes")
    weights = {"no": 1.0, "yes": 20.0}
    model = declared(calibrate="sigmoid", class_weight=weights)
    fitted, learnt = learn(LINEAR, {}, classes, model)
    frame, target = make(classes, 4_000, seed=3)
    before = fitted.predict_proba(frame)
    assert before[:, 1].mean() > target.mean() + 0.3
    assert learnt.calibrated(before)[:, 1].mean() == pytest.approx(target.mean(), abs=0.03)


def test_probabilities_that_are_right_stay_as_they_are() -> None:
    chance = np.random.default_rng(0)
    p = chance.uniform(0.02, 0.98, 20_000)
    target = (chance.random(20_000) < p).astype(np.int64)
    probabilities = np.column_stack([1 - p, p])
    sigmoid = fit_calibration("sigmoid", probabilities, target)
    np.testing.assert_allclose(sigmoid(probabilities), probabilities, atol=0.01)
    isotonic = fit_calibration("isotonic", probabilities, target)
    np.testing.assert_allclose(isotonic(probabilities), probabilities, atol=0.08)


def test_no_row_is_called_certain() -> None:
    # Scores that tell the classes apart without fault: nine rows of each.
    p = np.linspace(0.1, 0.9, 18)
    target = (p > 0.5).astype(np.int64)
    probabilities = np.column_stack([1 - p, p])
    found = fit_calibration("isotonic", probabilities, target)(probabilities)[:, 1]
    np.testing.assert_allclose(found, np.where(target == 1, 10 / 11, 1 / 11))
    platt = fit_calibration("sigmoid", probabilities, target)(probabilities)[:, 1]
    assert 0 < platt.min() < platt.max() < 1


scored_rows = st.lists(
    st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=2, max_size=60
).filter(lambda rows: len({hit for _, hit in rows}) == 2)


@given(scored_rows)
def test_isotonic_rises_and_never_reaches_the_ends(rows: list[tuple[float, bool]]) -> None:
    p, hits = (np.array(column) for column in zip(*rows, strict=True))
    p = p.astype(np.float64)
    found = fit_calibration("isotonic", np.column_stack([1 - p, p]), hits.astype(np.int64))
    (curve,) = found.curves
    y = curve(np.sort(p))
    assert (np.diff(y) >= 0).all()
    assert 0 < y.min() <= y.max() < 1
    theirs = IsotonicRegression(out_of_bounds="clip").fit(p, hits.astype(float)).predict(np.sort(p))
    inner = (theirs > 0) & (theirs < 1) & np.isin(np.sort(p), curve.x)
    np.testing.assert_allclose(y[inner], theirs[inner], atol=1e-12)


@given(scored_rows)
def test_sigmoid_is_finite_whatever_the_scores(rows: list[tuple[float, bool]]) -> None:
    p, hits = (np.array(column) for column in zip(*rows, strict=True))
    probabilities = np.column_stack([1 - p, p]).astype(np.float64)
    found = fit_calibration("sigmoid", probabilities, hits.astype(np.int64))(probabilities)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_a_calibration_survives_json() -> None:
    for method in ("isotonic", "sigmoid"):
        _, learnt = learn(NAIVE, {}, ("a", "b", "c"), declared(calibrate=method))
        assert learnt.calibration is not None
        again = Calibration.model_validate_json(learnt.calibration.model_dump_json())
        assert again == learnt.calibration
