from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.declaration import Candidate
from holdtrue.errors import ConfigError, ServingError, ValueProblem
from holdtrue.models import Answering, check_candidate, scores, typed, write_bundle
from holdtrue.models._calibration import fit_calibration
from holdtrue.models._served import EncodedColumns, ServedModel, joined
from holdtrue.models.compiled import _engines
from holdtrue.models.compiled._engines import XGBoost

TWO, THREE = ("no", "yes"), ("a", "b", "c")
COMPILED: list[tuple[str, dict[str, Any], tuple[str, ...] | None]] = [
    ("xgboost.XGBClassifier", {"n_estimators": 9}, TWO),
    ("xgboost.XGBClassifier", {"n_estimators": 5}, THREE),
    ("xgboost.XGBRegressor", {"n_estimators": 5}, None),
    ("sklearn.linear_model.LogisticRegression", {}, THREE),
    ("sklearn.linear_model.Ridge", {}, None),
    ("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 5}, TWO),
]
# Two that have no compiled form.
PIPELINES: list[tuple[str, dict[str, Any], tuple[str, ...] | None]] = [
    ("sklearn.neighbors.KNeighborsClassifier", {}, TWO),
    ("sklearn.neighbors.KNeighborsRegressor", {}, None),
]
ALL = COMPILED + PIPELINES
IDS = [f"{path.rsplit('.', 1)[1]}-{len(classes or ())}" for path, _, classes in ALL]


@pytest.fixture(scope="module")
def load(fit: Any, records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Fit, write and load a model, once each."""
    made: dict[str, tuple[Any, ServedModel]] = {}

    def make(
        estimator: str, params: dict[str, Any], classes: tuple[str, ...] | None
    ) -> tuple[Any, ServedModel]:
        key = f"{estimator}{params}{classes}"
        if key not in made:
            fitted, signature = fit(estimator, params, classes)
            path = tmp_path_factory.mktemp("bundles") / "one"
            digest = write_bundle(
                path, fitted, signature, estimator=estimator, params=params, sample=records[:20]
            )
            made[key] = fitted, ServedModel.load(path, digest)
        return made[key]

    return make


@pytest.fixture(params=ALL, ids=IDS)
def model(request: pytest.FixtureRequest, load: Any) -> ServedModel:
    return load(*request.param)[1]


def as_columns(model: ServedModel, records: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [record[name] for record in records] for name in model.signature.columns}


@pytest.mark.parametrize("made", ALL, ids=IDS)
def test_it_answers_as_the_pipeline_does(
    made: Any, load: Any, rows: pd.DataFrame, records: list[dict[str, Any]]
) -> None:
    fitted, model = load(*made)
    wanted = scores(fitted, model.signature, typed(rows, model.signature))
    answered = model.predict(model.encode(records))
    assert answered.dtype == "float64"
    assert answered.shape == wanted.shape
    np.testing.assert_allclose(answered, wanted, rtol=1e-6, atol=1e-6)
    assert model.compiled == (made in COMPILED)
    assert (model.reason is None) == model.compiled
    assert model.estimator == made[0]
    model.verify()


def test_rows_and_columns_alone_and_together_are_answered_alike(
    model: ServedModel, records: list[dict[str, Any]]
) -> None:
    together = model.predict(model.encode(records))
    by_column = model.predict(model.encode_columns(as_columns(model, records), len(records)))
    alone = np.concatenate([model.predict(model.encode([record])) for record in records[:40]])
    if model.compiled:  # to the last bit
        np.testing.assert_array_equal(by_column, together)
        np.testing.assert_array_equal(alone, together[:40])
    np.testing.assert_allclose(by_column, together, rtol=1e-12)
    np.testing.assert_allclose(alone, together[:40], rtol=1e-12)


def test_arrays_are_taken_as_lists_are(model: ServedModel, records: list[dict[str, Any]]) -> None:
    lists = as_columns(model, records)
    arrays: dict[str, Any] = dict(lists)
    for name in ("whole", "number", "code", "level"):
        null = np.array([value is None for value in lists[name]])
        filled = np.array([0 if value is None else value for value in lists[name]])
        arrays[name] = np.ma.array(filled, mask=null)
    wanted = model.encode_columns(lists, len(records))
    found = model.encode_columns(arrays, len(records))
    np.testing.assert_array_equal(model.predict(found), model.predict(wanted))
    assert found.unknown == wanted.unknown


def test_unknown_categories_are_answered_and_counted(
    model: ServedModel, records: list[dict[str, Any]]
) -> None:
    odd = [records[0] | {"text": "new"}, records[1] | {"text": "new", "code": 99}, records[2]]
    encoded = model.encode(odd)
    assert encoded.unknown == {"text": 2, "code": 1}
    assert model.encode_columns(as_columns(model, odd), 3).unknown == encoded.unknown
    assert np.isfinite(model.predict(encoded)).all()
    assert model.encode([records[1]]).unknown == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"number": "1"}, "row 1, column number: expected a finite number or null, got str"),
        ({"number": float("nan")}, "row 1, column number: expected a finite number or null"),
        ({"whole": 1.5}, "row 1, column whole: expected a whole number or null, got a fraction"),
        ({"flag": 1}, "row 1, column flag: expected true, false or null, got int"),
        ({"text": 3}, "row 1, column text: expected text or null, got int"),
        ({"code": True}, "row 1, column code: expected a whole number or null, got true or false"),
    ],
)
def test_what_is_not_acceptable_is_refused_with_its_place(
    model: ServedModel, records: list[dict[str, Any]], change: dict[str, Any], said: str
) -> None:
    wrong = [records[0], records[1] | change]
    with pytest.raises(ValueProblem, match=said):
        model.encode(wrong)
    with pytest.raises(ValueProblem, match=said):
        model.encode_columns(as_columns(model, wrong), 2)
    (problem,) = model.problems(as_columns(model, wrong), 2)
    assert (problem.row, problem.column) == (1, next(iter(change)))


def test_all_problems_are_found(model: ServedModel, records: list[dict[str, Any]]) -> None:
    columns = as_columns(model, records[:4])
    columns["number"][3] = "x"
    columns["text"][1] = 2
    columns["text"][3] = 2
    found = [(problem.row, problem.column) for problem in model.problems(columns, 4)]
    assert sorted(found) == [(1, "text"), (3, "number"), (3, "text")]
    assert [row for row, _ in found] == [1, 3, 3]


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(1, 239), max_size=5))
def test_rows_of_several_requests_are_scored_together(
    load: Any, records: list[dict[str, Any]], cuts: list[int]
) -> None:
    ends = [0, *sorted({*cuts}), len(records)]
    for made in (COMPILED[0], PIPELINES[0]):
        model = load(*made)[1]
        odd = [records[0] | {"text": "new"}, *records[1:]]
        parts = [model.encode(odd[start:stop]) for start, stop in pairwise(ends)]
        together = joined(parts)
        assert len(together) == len(records)
        assert together.unknown == {"text": 1}
        np.testing.assert_array_equal(model.predict(together), model.predict(model.encode(odd)))


def test_threads_do_not_disturb_each_other(
    model: ServedModel, records: list[dict[str, Any]]
) -> None:
    wanted = model.predict(model.encode(records))

    def ask(start: int) -> bool:
        part = records[start : start + 30]
        found = model.predict(model.encode(part))
        return np.allclose(found, wanted[start : start + 30], rtol=1e-12)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, [start % 200 for start in range(0, 4000, 100)]))


def test_calibrated_scores_are_answered(
    fit: Any, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    fitted, signature = fit("xgboost.XGBClassifier", {"n_estimators": 5}, TWO)
    chance = np.random.default_rng(2)
    raw = chance.random(500)
    calibration = fit_calibration(
        "isotonic", np.column_stack([1 - raw, raw]), (chance.random(500) < raw**2).astype("int64")
    )
    digest = write_bundle(
        tmp_path / "one",
        fitted,
        signature,
        estimator="xgboost.XGBClassifier",
        params={"n_estimators": 5},
        sample=records[:20],
        answering=Answering(calibration=calibration),
    )
    model = ServedModel.load(tmp_path / "one", digest)
    assert model.compiled
    encoded = model.encode(records)
    np.testing.assert_array_equal(model.predict(encoded), calibration(model.raw(encoded)))
    assert np.abs(model.predict(encoded) - model.raw(encoded)).max() > 0.01
    model.verify()


@pytest.mark.parametrize("made", [COMPILED[0], PIPELINES[1]], ids=["compiled", "pipeline"])
def test_a_model_that_answers_its_sample_otherwise_is_not_served(made: Any, load: Any) -> None:
    model = load(*made)[1]
    off = replace(model, expected=model.expected + 1e-4)
    with pytest.raises(ServingError, match="answers its sample otherwise than when it was written"):
        off.verify()
    broken = replace(model, expected=np.full_like(model.expected, np.nan))
    with pytest.raises(ServingError, match="otherwise"):
        broken.verify()
    with pytest.raises(ServingError, match="in the shape"):
        replace(model, expected=model.expected[:3]).verify()
    with pytest.raises(ServingError, match="does not take its own sample"):
        replace(model, sample=[{**model.sample[0], "number": "x"}]).verify()


def test_no_request_waits_for_a_library_to_be_loaded(load: Any) -> None:
    made = load(*COMPILED[0])[1]
    model = ServedModel.load(made.path, made.digest)
    model.verify()
    assert model.scorer is not None
    assert model.scorer._xgboost is not None
    assert model.scorer._xgboost is model.scorer.booster_engine()


def test_each_way_to_sum_the_leaves_is_proven(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(*COMPILED[0])[1]
    right = XGBoost.raw
    monkeypatch.setattr(XGBoost, "raw", lambda *given: right(*given) + 0.01)
    with pytest.raises(ServingError, match="answers its sample otherwise than when it was written"):
        model.verify()


@pytest.mark.parametrize("content", [None, b"no library"])
def test_a_library_that_cannot_be_loaded_is_found_before_a_request(
    load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    made = load(*COMPILED[0])[1]
    model = ServedModel.load(made.path, made.digest)
    if content is not None:
        (tmp_path / "lib").mkdir()
        (tmp_path / "lib" / "libxgboost.so").write_bytes(content)
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(_engines, "find_spec", lambda name: spec)
    monkeypatch.setattr(_engines, "library", _engines.library.__wrapped__)
    said = "library is not installed" if content is None else r"libxgboost\.so cannot be loaded: "
    with pytest.raises(ServingError, match=rf"does not take its own sample: .*{said}"):
        model.verify()


def test_a_model_that_answers_nan_is_not_served(load: Any) -> None:
    class Silent:
        def predict(self, frame: Any) -> np.ndarray:
            return np.full(len(frame), np.nan)

    model = load(*PIPELINES[1])[1]
    with pytest.raises(ServingError, match="otherwise"):
        replace(model, pipeline=Silent()).verify()


def test_rows_of_another_model_are_not_scored(load: Any, records: list[dict[str, Any]]) -> None:
    compiled, pipeline = load(*COMPILED[0])[1], load(*PIPELINES[0])[1]
    assert isinstance(pipeline.encode(records[:1]), EncodedColumns)
    with pytest.raises(TypeError, match="given to a compiled model"):
        compiled.predict(pipeline.encode(records[:1]))
    with pytest.raises(TypeError, match="given to a pipeline"):
        pipeline.predict(compiled.encode(records[:1]))


OWN = """
import numpy as np
from sklearn.base import BaseEstimator


class Mean(BaseEstimator):
    def fit(self, x, y):
        self.mean_ = float(np.mean(y))
        return self

    def predict(self, x):
        return np.full(len(x), self.mean_)
"""


def test_a_class_that_only_predicts_serves_a_regression(
    fit: Any, records: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_mean.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    check_candidate(Candidate(estimator="own_mean.Mean"), "regression")
    fitted, signature = fit("own_mean.Mean", {}, None)
    path = tmp_path / "one"
    digest = write_bundle(
        path, fitted, signature, estimator="own_mean.Mean", params={}, sample=records[:20]
    )
    model = ServedModel.load(path, digest)
    model.verify()
    assert model.reason == "own_mean.Mean has no compiled form"
    answered = model.predict(model.encode(records[:3]))
    assert answered.tolist() == [fitted["model"].mean_] * 3
    with pytest.raises(ConfigError, match="does not fit classification: it has no predict_proba"):
        check_candidate(Candidate(estimator="own_mean.Mean"), "classification")


CODE = """
import json, sys
from pathlib import Path
from holdtrue.models._served import ServedModel
model = ServedModel.load(Path(sys.argv[1]), sys.argv[2])
model.verify()
heavy = {"pandas", "sklearn", "scipy", "xgboost", "skops", "prefect", "mlflow", "ray", "pyarrow"}
print(json.dumps([model.compiled, sorted(heavy & set(sys.modules))]))
"""


@pytest.mark.parametrize("made", COMPILED, ids=IDS[: len(COMPILED)])
def test_a_process_that_answers_with_a_compiled_model_is_light(made: Any, load: Any) -> None:
    model = load(*made)[1]
    command = [sys.executable, "-c", CODE, str(model.path), model.digest]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own code
    assert json.loads(done.stdout) == [True, []]
