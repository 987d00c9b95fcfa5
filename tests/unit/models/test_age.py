"""Rows that count by their age, in everything that is fitted after a search."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from xgboost import XGBClassifier, XGBRegressor

from holdtrue.declaration import Candidate, Model, parse
from holdtrue.errors import ConfigError
from holdtrue.models import (
    Bundle,
    HalfLife,
    Signature,
    age_weights,
    ages_of,
    by_age,
    check_candidate,
    effective_rows,
    fit_bundle,
    target_of,
    typed,
)
from holdtrue.models._conformal import fit_interval
from holdtrue.tuning._folds import cut

LINEAR, RIDGE = "sklearn.linear_model.LogisticRegression", "sklearn.linear_model.Ridge"
BOOSTED, REGRESSOR = "xgboost.XGBClassifier", "xgboost.XGBRegressor"
N = 1_200
DAYS = 120
WEEK = HalfLife("at", timedelta(days=7))


def flipping(n_rows: int = N, seed: int = 0) -> pd.DataFrame:
    """What speaks for the target speaks against it in the last quarter of the time."""
    chance = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": chance.normal(size=n_rows), "b": chance.normal(size=n_rows)})
    at = pd.date_range("2024-01-01", periods=n_rows, freq=f"{DAYS * 1440 // n_rows}min", tz="UTC")
    sign = np.where(np.arange(n_rows) < 0.75 * n_rows, 1.0, -1.0)
    value = 2 * sign * frame["a"] + 0.5 * frame["b"] + chance.normal(scale=0.3, size=n_rows)
    return frame.assign(at=at, value=value, name=np.where(value > 0.5, "yes", "no"))


def signature_of(task: str) -> Signature:
    return Signature(
        target="name" if task == "classification" else "value",
        task=task,
        classes=("no", "yes") if task == "classification" else None,
        columns={"a": "number", "b": "number"},
        categorical=(),
    )


def by_hand(rows: pd.DataFrame, half_life: HalfLife = WEEK) -> np.ndarray:
    ages = (rows["at"].max() - rows["at"]) / half_life.length
    weights = (0.5**ages).to_numpy()
    return np.asarray(weights / weights.mean())


def fitted(
    folder: Path,
    estimator: str,
    params: dict[str, Any],
    half_life: HalfLife | None,
    rows: pd.DataFrame | Path | None = None,
    **declared: Any,
) -> Bundle:
    task = "classification" if estimator in (LINEAR, BOOSTED) else "regression"
    digest = fit_bundle(
        *(flipping() if rows is None else rows, folder, signature_of(task), estimator, params),
        seed=0,
        threads=1,
        model=Model.model_validate({"candidates": [{"estimator": estimator}], **declared}),
        folds=3,
        ordered=True,
        half_life=half_life,
    )
    return Bundle.load(folder, digest)


@given(
    st.lists(st.integers(0, 10**15), min_size=1, max_size=50),
    st.sampled_from([60, 86_400, 30 * 86_400]),
)
def test_a_row_counts_half_as_much_each_half_life_and_one_on_average(
    seconds: list[int], length_s: int
) -> None:
    half_life = HalfLife("at", timedelta(seconds=length_s))
    at = pd.to_datetime(np.array(seconds) % 2_000_000_000, unit="s", utc=True)
    rows = pd.DataFrame({"at": at})
    ages = ages_of(rows, half_life)
    assert ages is not None
    weights = age_weights(ages)
    assert weights.mean() == pytest.approx(1)
    np.testing.assert_allclose(weights, by_hand(rows, half_life), rtol=1e-5, atol=1e-300)
    assert 1 <= effective_rows(ages) * (1 + 1e-9) <= len(rows) * (1 + 1e-6)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_age_does_not_depend_on_how_a_time_is_written(unit: str, zone: str | None) -> None:
    at = pd.Series(pd.to_datetime(["2024-01-01", "2024-01-08", "2024-01-22"])).dt.as_unit(unit)
    rows = pd.DataFrame(
        {"at": at if zone is None else at.dt.tz_localize("UTC").dt.tz_convert(zone)}
    )
    ages = ages_of(rows, WEEK)
    assert ages is not None
    np.testing.assert_allclose(age_weights(ages), np.array([1, 2, 8]) * 3 / 11)


def test_ages_are_read_from_a_file_too(tmp_path: Path) -> None:
    rows = flipping()
    rows.to_parquet(tmp_path / "rows.parquet", index=False)
    found, wanted = ages_of(tmp_path / "rows.parquet", WEEK), ages_of(rows, WEEK)
    assert found is not None
    assert wanted is not None
    np.testing.assert_array_equal(found, wanted)
    assert ages_of(tmp_path / "nothing.parquet", None) is None


def test_from_which_moment_age_is_counted_does_not_matter() -> None:
    ages = np.random.default_rng(0).uniform(0, 5, 100)
    np.testing.assert_allclose(age_weights(ages), age_weights(ages + 10_000), rtol=1e-9)


def test_weights_by_class_and_by_age_are_multiplied() -> None:
    ages, weights = np.array([0.0, 1.0]), np.array([1.0, 3.0])
    np.testing.assert_allclose(by_age(weights, ages), [4 / 3, 2.0])
    np.testing.assert_allclose(by_age(None, ages), [4 / 3, 2 / 3])
    assert by_age(weights, None) is weights
    assert by_age(None, None) is None


def test_so_many_rows_that_count_alike_say_as_much() -> None:
    assert effective_rows(np.full(50, 3.0)) == pytest.approx(50)
    # Two that count 1 and four that count a half: (2 + 2)^2 / (2 + 1).
    assert effective_rows(np.array([0.0] * 2 + [1.0] * 4)) == pytest.approx(16 / 3)
    assert effective_rows(np.array([0.0, 500.0, 5_000.0])) == pytest.approx(1)


@pytest.mark.parametrize("weights", [None, "balanced", {"yes": 3.0}], ids=str)
def test_a_linear_classifier_equals_that_of_scikit_learn(tmp_path: Path, weights: Any) -> None:
    rows = flipping()
    bundle = fitted(tmp_path / "one", LINEAR, {"C": 0.01}, WEEK, class_weight=weights)
    expected = by_hand(rows)
    if weights is not None:
        full = weights if weights == "balanced" else {"no": 1.0} | weights
        expected = expected * compute_sample_weight(full, rows["name"])
    x = StandardScaler().fit_transform(rows[["a", "b"]])
    theirs = LogisticRegression(C=0.01, random_state=0).fit(x, rows["name"], sample_weight=expected)
    ours = bundle.predict(typed(rows, bundle.signature))
    np.testing.assert_allclose(ours, theirs.predict_proba(x), atol=1e-6)


def test_regressors_equal_those_of_scikit_learn_and_xgboost(tmp_path: Path) -> None:
    rows = flipping()
    x, y, weights = rows[["a", "b"]].to_numpy(), rows["value"], by_hand(rows)
    ridge = fitted(tmp_path / "ridge", RIDGE, {"alpha": 200.0}, WEEK)
    frame = typed(rows, ridge.signature)
    scaled = StandardScaler().fit_transform(x)
    theirs = Ridge(alpha=200.0, random_state=0).fit(scaled, y, sample_weight=weights)
    np.testing.assert_allclose(ridge.predict(frame), theirs.predict(scaled), atol=1e-6)
    params = {"n_estimators": 15, "max_depth": 3}
    boosted = fitted(tmp_path / "boosted", REGRESSOR, params, WEEK)
    trees = XGBRegressor(**params, random_state=0, n_jobs=1).fit(x, y, sample_weight=weights)
    np.testing.assert_allclose(boosted.predict(frame), trees.predict(x), atol=1e-5)


def test_boosted_trees_equal_those_of_xgboost(tmp_path: Path) -> None:
    rows = flipping()
    params = {"n_estimators": 15, "max_depth": 3, "min_child_weight": 5.0}
    bundle = fitted(tmp_path / "one", BOOSTED, params, WEEK)
    x, y = rows[["a", "b"]].to_numpy(), rows["name"] == "yes"
    trees = XGBClassifier(**params, random_state=0, n_jobs=1).fit(x, y, sample_weight=by_hand(rows))
    ours = bundle.predict(typed(rows, bundle.signature))
    np.testing.assert_allclose(ours, trees.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize("estimator", [LINEAR, BOOSTED, RIDGE, REGRESSOR])
def test_with_a_short_half_life_a_model_follows_what_holds_now(
    tmp_path: Path, estimator: str
) -> None:
    params = {"n_estimators": 30, "max_depth": 2} if estimator in (BOOSTED, REGRESSOR) else {}
    asked = pd.DataFrame({"a": [-2.0, 2.0], "b": [0.0, 0.0]})
    rises = {}
    for name, half_life in {"even": None, "week": WEEK}.items():
        bundle = fitted(tmp_path / name, estimator, params, half_life)
        answers = bundle.predict(typed(asked, bundle.signature))
        low, high = answers if answers.ndim == 1 else answers[:, 1]
        rises[name] = high > low
    assert rises == {"even": True, "week": False}


def test_the_models_behind_an_interval_count_rows_by_age_too(tmp_path: Path) -> None:
    rows = flipping()
    bundle = fitted(tmp_path / "one", RIDGE, {}, WEEK, interval=0.8)
    x, y = rows[["a", "b"]].to_numpy(), rows["value"].to_numpy()
    errors = []
    for fit, judge in cut(y, 3, ordered=True, classification=False, seed=0):
        scaler = StandardScaler().fit(x[fit])
        weights = by_hand(rows.iloc[fit])
        ridge = Ridge(random_state=0).fit(scaler.transform(x[fit]), y[fit], sample_weight=weights)
        errors.append(y[judge] - ridge.predict(scaler.transform(x[judge])))
    wanted, found = fit_interval(np.concatenate(errors), 0.8), bundle.answering.interval
    assert found is not None
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-6)


def test_the_models_behind_a_calibration_count_rows_by_age_too(tmp_path: Path) -> None:
    rows = flipping()
    bundle = fitted(tmp_path / "one", LINEAR, {}, WEEK, calibrate="isotonic")
    target = target_of(rows, bundle.signature)
    answers, truths = [], []
    for fit, judge in cut(target, 3, ordered=True, classification=True, seed=0):
        scaler = StandardScaler().fit(rows.iloc[fit][["a", "b"]])
        model = LogisticRegression(random_state=0).fit(
            scaler.transform(rows.iloc[fit][["a", "b"]]),
            target[fit],
            sample_weight=by_hand(rows.iloc[fit]),
        )
        answers.append(model.predict_proba(scaler.transform(rows.iloc[judge][["a", "b"]]))[:, 1])
        truths.append(target[judge])
    # Every row that is judged counts once.
    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    curve.fit(np.concatenate(answers), np.concatenate(truths))
    frame = typed(rows, bundle.signature)
    wanted = curve.predict(bundle.raw(frame)[:, 1])
    np.testing.assert_allclose(bundle.predict(frame)[:, 1], wanted, atol=1e-3)


@pytest.mark.parametrize("estimator", [LINEAR, BOOSTED, RIDGE, REGRESSOR])
def test_rows_too_old_to_count_at_all_are_no_obstacle(tmp_path: Path, estimator: str) -> None:
    bundle = fitted(tmp_path / "one", estimator, {}, HalfLife("at", timedelta(minutes=1)))
    answers = bundle.predict(typed(flipping(), bundle.signature))
    assert np.isfinite(answers).all()


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ({}, "leave out data.half_life, or that candidate"),
        ({"class_weight": "balanced"}, "leave out model.class_weight and data.half_life, or"),
    ],
)
def test_an_estimator_that_takes_no_weights_is_refused(model: dict[str, Any], hint: str) -> None:
    candidate = Candidate(estimator="sklearn.neighbors.KNeighborsClassifier")
    declared = Model.model_validate({"candidates": [candidate.model_dump()], **model})
    with pytest.raises(ConfigError, match="takes no weights of rows") as caught:
        check_candidate(candidate, "classification", declared, timedelta(days=1))
    assert hint in (caught.value.hint or "")
    other = Candidate(estimator=LINEAR)
    check_candidate(other, "classification", declared, timedelta(days=1))


def test_what_is_declared_is_read() -> None:
    text = "name: x\ntask: regression\nmodel: auto\ndata: {source: {files: a.csv}, target: y"
    aged = parse(f"{text}, time: at, half_life: 1d 12h}}")
    assert HalfLife.of(aged.data) == HalfLife("at", timedelta(hours=36))
    assert HalfLife.of(parse(f"{text}, time: at}}").data) is None
