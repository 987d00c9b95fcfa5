from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import TimeSeriesSplit
from threadpoolctl import threadpool_limits

from holdtrue.batch import score
from holdtrue.declaration import Model
from holdtrue.errors import ServingError, TrainingError
from holdtrue.models import Bundle, Signature, digest_of, fit_bundle, pipeline, target_of, typed
from holdtrue.models._calibration import fit_calibration
from holdtrue.models._served import ServedModel

LINEAR = "sklearn.linear_model.LogisticRegression"
BOOSTED = "xgboost.XGBRegressor"
CLASSES = ("early", "late", "on time")


def signature_of(classes: tuple[str, ...] | None) -> Signature:
    return Signature(
        target="y",
        task="regression" if classes is None else "classification",
        classes=classes,
        columns={"a": "number", "b": "string"},
        categorical=("b",),
    )


def make(classes: tuple[str, ...] | None, n_rows: int = 600) -> pd.DataFrame:
    chance = np.random.default_rng(4)
    frame = pd.DataFrame({"a": chance.normal(size=n_rows), "b": chance.choice(["x", "y"], n_rows)})
    value = frame["a"] + (frame["b"] == "x") + chance.normal(size=n_rows)
    if classes is None:
        return frame.assign(y=value)
    cuts = pd.cut(value, [-np.inf, *np.linspace(0, 1, len(classes) - 1), np.inf], labels=classes)
    return frame.assign(y=cuts.astype(str))


def fit(
    rows: pd.DataFrame | Path, folder: Path, classes: tuple[str, ...] | None, **given: Any
) -> str:
    estimator = BOOSTED if classes is None else LINEAR
    settings: dict[str, Any] = {"folds": 3, "ordered": False}
    settings |= {name: given.pop(name) for name in ("folds", "ordered") if name in given}
    return fit_bundle(
        rows,
        folder,
        signature_of(classes),
        estimator,
        {"n_estimators": 20} if classes is None else {},
        seed=0,
        threads=1,
        model=Model.model_validate({"candidates": [{"estimator": estimator}], **given}),
        **settings,
    )


def test_a_plain_model_answers_its_own_scores(tmp_path: Path) -> None:
    rows = make(CLASSES)
    bundle = Bundle.load(tmp_path / "one", fit(rows, tmp_path / "one", CLASSES))
    frame = typed(rows, bundle.signature)
    np.testing.assert_array_equal(bundle.predict(frame), bundle.raw(frame))
    assert bundle.answering.model_dump() == {"calibration": None, "costs": None, "interval": None}
    accuracy = (bundle.predict(frame).argmax(axis=1) == target_of(rows, bundle.signature)).mean()
    assert accuracy > 0.5


@pytest.mark.parametrize(
    "estimator",
    [BOOSTED, "sklearn.ensemble.HistGradientBoostingRegressor", "sklearn.linear_model.ElasticNet"],
)
def test_nothing_is_learnt_from_columns_without_a_value(tmp_path: Path, estimator: str) -> None:
    columns: dict[str, Any] = {"a": "number", "c": "number", "at": "time"}
    signature = Signature(
        target="y", task="regression", classes=None, columns=columns, categorical=()
    )
    rows = make(None).assign(c=np.nan, at=pd.Series(pd.NaT, range(600), "datetime64[us, UTC]"))
    model = Model.model_validate({"candidates": [{"estimator": estimator}]})
    how: dict[str, Any] = {"seed": 0, "threads": 1, "model": model, "folds": 3, "ordered": False}
    digest = fit_bundle(rows, tmp_path / "one", signature, estimator, {}, **how)
    served = ServedModel.load(tmp_path / "one", digest)
    assert served.compiled
    records = [{"a": 0.5, "c": c, "at": at} for c in (None, 7.0) for at in (None, "2024-05-01")]
    scores = [float(served.predict(served.encode([record]))[0]) for record in records]
    assert len({*scores}) == 1


@pytest.mark.parametrize(
    "path",
    [
        "sklearn.svm.LinearSVC",
        "sklearn.linear_model.RidgeClassifier",
        "sklearn.linear_model.SGDClassifier",
    ],
)
def test_a_classifier_without_probabilities_learns_them(tmp_path: Path, path: str) -> None:
    rows = make(CLASSES)
    model = Model.model_validate({"candidates": [{"estimator": path}], "class_weight": "balanced"})
    how: dict[str, Any] = {"seed": 0, "threads": 1, "model": model, "folds": 3, "ordered": False}
    params = {"C": 0.5} if path.endswith("SVC") else {"alpha": 0.05}
    digest = fit_bundle(rows, tmp_path / "one", signature_of(CLASSES), path, params, **how)
    bundle = Bundle.load(tmp_path / "one", digest)
    frame = typed(rows, bundle.signature)
    np.testing.assert_allclose(bundle.predict(frame).sum(axis=1), 1)
    accuracy = (bundle.predict(frame).argmax(axis=1) == target_of(rows, bundle.signature)).mean()
    assert accuracy > 0.5
    served = ServedModel.load(tmp_path / "one", digest)
    record = {"a": 0.25, "b": "x"}
    np.testing.assert_allclose(
        served.predict(served.encode([record]))[0],
        bundle.predict(typed(pd.DataFrame([record]), bundle.signature))[0],
    )


@pytest.mark.parametrize("method", ["isotonic", "sigmoid"])
def test_calibration_and_costs_come_back_from_disk(tmp_path: Path, method: str) -> None:
    rows = make(CLASSES)
    rows.to_parquet(tmp_path / "rows.parquet")
    costs = {"late": {"on time": 9, "early": 9}, "on time": {"late": 1}, "early": {"late": 1}}
    given: dict[str, Any] = {"calibrate": method, "costs": costs}
    digest = fit(tmp_path / "rows.parquet", tmp_path / "one", CLASSES, **given)
    bundle = Bundle.load(tmp_path / "one", digest)
    frame = typed(rows, bundle.signature)
    raw, calibrated = bundle.raw(frame), bundle.predict(frame)
    assert np.abs(raw - calibrated).max() > 0.01
    np.testing.assert_allclose(calibrated.sum(axis=1), 1)
    np.testing.assert_allclose(bundle.expected, calibrated[:20])
    assert bundle.answering.costs == ((0, 1, 0), (9, 0, 9), (0, 1, 0))
    decided = bundle.answering.decide(calibrated)
    # A missed late one is dear: it is answered far more often than it is the most probable.
    assert (decided == 1).sum() > 2 * (calibrated.argmax(axis=1) == 1).sum()
    scored = score(tmp_path / "one", digest, rows.drop(columns="y"))
    assert scored["prediction"].tolist() == [CLASSES[index] for index in decided]
    assert fit(rows, tmp_path / "again", CLASSES, **given) == digest


def test_an_interval_comes_back_from_disk_and_into_files(tmp_path: Path) -> None:
    rows = make(None)
    digest = fit(rows, tmp_path / "one", None, interval="80%")
    bundle = Bundle.load(tmp_path / "one", digest)
    scored = score(tmp_path / "one", digest, rows.drop(columns="y"))
    ends = bundle.answering.intervals(scored["prediction"].to_numpy())
    assert ends is not None
    np.testing.assert_array_equal(scored[["interval_low", "interval_high"]], ends)
    assert (scored["interval_low"] < scored["prediction"]).all()
    assert (scored["prediction"] < scored["interval_high"]).all()


def test_weights_reach_the_estimator(tmp_path: Path) -> None:
    rows = make(CLASSES)
    shares = []
    for number, given in enumerate([{}, {"class_weight": {"late": 30}}]):
        folder = tmp_path / str(number)
        bundle = Bundle.load(folder, fit(rows, folder, CLASSES, **given))
        shares.append(bundle.predict(typed(rows, bundle.signature))[:, 1].mean())
    assert shares[1] > 2 * shares[0]


def test_in_order_of_time_only_later_rows_are_judged(tmp_path: Path) -> None:
    bundle = Bundle.load(
        tmp_path / "one",
        fit(make(None), tmp_path / "one", None, interval=0.8, ordered=True, folds=3),
    )
    assert bundle.answering.interval is not None
    assert bundle.answering.interval.rows == 450  # not the first of four quarters


def late_last(classes: tuple[str, ...], n_late: int = 40) -> pd.DataFrame:
    """Rows in order of time, in which a class comes at the end."""
    rows = make(classes, 1_200)
    late = rows[rows["y"] == "late"]
    return pd.concat([rows[rows["y"] != "late"], late[:n_late]], ignore_index=True)


@pytest.mark.parametrize("method", ["isotonic", "sigmoid"])
def test_a_class_that_no_part_could_learn_is_left_as_it_is(tmp_path: Path, method: str) -> None:
    rows, signature = late_last(CLASSES), signature_of(CLASSES)
    folder = tmp_path / "one"
    bundle = Bundle.load(folder, fit(rows, folder, CLASSES, calibrate=method, ordered=True))
    calibration = bundle.answering.calibration
    assert calibration is not None
    assert calibration.uncorrected == (1,)
    raw = np.linspace(0, 1, 11)
    np.testing.assert_allclose(calibration.curves[1](raw), raw)
    # The others are corrected as if there were no rows of it.
    without = rows[rows["y"] != "late"]
    judged, said = [], []
    for fit_rows, judge in TimeSeriesSplit(3).split(rows):
        seen = rows.iloc[fit_rows]
        assert (seen["y"] != "late").all()
        two = signature.model_copy(update={"classes": ("early", "on time")})
        model = pipeline(LINEAR, {}, two, seed=0, threads=1)
        model.fit(typed(seen, two), target_of(seen, two))
        known = rows.iloc[judge][lambda part: part["y"] != "late"]
        said.append(model.predict_proba(typed(known, two)))
        judged.append(target_of(known, two))
    assert calibration.rows == len(np.concatenate(judged)) < len(without)
    wanted = fit_calibration(method, np.concatenate(said), np.concatenate(judged))
    np.testing.assert_allclose(calibration.curves[2](raw), wanted.curves[0](raw))


def test_parts_that_know_one_class_only_cannot_be_calibrated(tmp_path: Path) -> None:
    rows = late_last(("late", "on time"))
    said = "part 1 of 3 has rows enough to fit on of class on time only"
    with pytest.raises(TrainingError, match=said) as caught:
        fit(rows, tmp_path / "one", ("late", "on time"), calibrate="sigmoid", ordered=True)
    assert "leave out model.calibrate" in (caught.value.hint or "")
    assert not (tmp_path / "one").exists()


def test_too_few_rows_for_the_interval_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"99\.9% of the time needs at least 1,999 rows"):
        fit(make(None), tmp_path / "one", None, interval="99.9%")


def wide(n_rows: int = 20_000) -> tuple[pd.DataFrame, Signature]:
    """So many numbers that BLAS shares them out among its threads."""
    chance = np.random.default_rng(0)
    names = [f"n{i}" for i in range(30)]
    rows = pd.DataFrame(chance.normal(size=(n_rows, len(names))), columns=names)
    value = rows.to_numpy() @ chance.normal(size=len(names)) + chance.normal(size=n_rows)
    signature = Signature(
        target="y",
        task="classification",
        classes=("no", "yes"),
        columns=dict.fromkeys(names, "number"),
        categorical=(),
    )
    return rows.assign(y=np.where(value > 0, "yes", "no")), signature


@pytest.mark.parametrize("given", [{}, {"calibrate": "sigmoid"}])
def test_the_model_depends_on_the_threads_it_is_given_not_on_those_of_the_process(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    rows, signature = wide()
    model = Model.model_validate({"candidates": [{"estimator": LINEAR}], **given})
    digests = set()
    for outer in (1, 2):
        with threadpool_limits(limits=outer):
            digests |= {
                fit_bundle(
                    *(rows, tmp_path / str(outer), signature, LINEAR, {}),
                    seed=0,
                    threads=1,
                    model=model,
                    folds=2,
                    ordered=False,
                )
            }
    assert len(digests) == 1


def test_a_forest_that_several_threads_grew_is_the_same_and_answers_with_one(
    tmp_path: Path,
) -> None:
    rows, signature = wide(600)
    estimator = "sklearn.ensemble.RandomForestClassifier"
    params = {"n_estimators": 20, "min_samples_leaf": 7}
    model = Model.model_validate(
        {"candidates": [{"estimator": estimator}], "calibrate": "isotonic"}
    )
    digests = {
        fit_bundle(
            *(rows, tmp_path / str(number), signature, estimator, params),
            seed=0,
            threads=threads,
            model=model,
            folds=2,
            ordered=False,
        )
        for number, threads in enumerate([1, 2, 2])
    }
    assert len(digests) == 1
    bundle = Bundle.load(tmp_path / "0", digests.pop())
    assert bundle.pipeline["model"].n_jobs == 1


def test_another_format_is_refused(tmp_path: Path) -> None:
    fit(make(None), tmp_path / "one", None)
    manifest = json.loads((tmp_path / "one" / "manifest.json").read_bytes())
    content = json.dumps(manifest | {"format": 1}).encode()
    (tmp_path / "one" / "manifest.json").write_bytes(content)
    with pytest.raises(ServingError, match="has format 1, expected 3"):
        Bundle.load(tmp_path / "one", digest_of(content))
