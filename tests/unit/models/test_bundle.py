from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.pipeline import Pipeline

from holdtrue.errors import ServingError, TrainingError
from holdtrue.models import Bundle, digest_of, read_signature, scores, typed, write_bundle
from holdtrue.models import _bundle as bundle_module

TWO, THREE = ("no", "yes"), ("a", "b", "c")
ESTIMATORS: list[tuple[str, dict[str, Any], tuple[str, ...] | None]] = [
    ("xgboost.XGBClassifier", {"n_estimators": 5}, TWO),
    ("xgboost.XGBClassifier", {"n_estimators": 5}, THREE),
    ("xgboost.XGBRegressor", {"n_estimators": 5}, None),
    ("sklearn.linear_model.LogisticRegression", {"C": 0.5}, TWO),
    ("sklearn.linear_model.LogisticRegression", {}, THREE),
    ("sklearn.linear_model.Ridge", {"alpha": 2.0}, None),
    ("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 5}, TWO),
    ("sklearn.ensemble.HistGradientBoostingRegressor", {"max_iter": 5}, None),
]


def write(
    path: Path, made: Any, estimator: str, params: dict[str, Any], records: list[dict[str, Any]]
) -> str:
    fitted, signature = made
    return write_bundle(
        path, fitted, signature, estimator=estimator, params=params, sample=records[:20]
    )


@pytest.fixture(scope="module", params=["xgboost.XGBClassifier", "sklearn.linear_model.Ridge"])
def written(
    request: pytest.FixtureRequest,
    fit: Any,
    records: list[dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, str]:
    estimator, params, classes = next(e for e in ESTIMATORS if e[0] == request.param)
    path = tmp_path_factory.mktemp("bundles") / "one"
    return path, write(path, fit(estimator, params, classes), estimator, params, records)


@pytest.fixture
def finds() -> Iterator[list[str]]:
    """Every class that pickle looks up while the test runs."""
    seen: list[str] = []
    listening = [True]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if listening and event == "pickle.find_class":
            seen.append(".".join(map(str, arguments)))

    sys.addaudithook(hook)
    yield seen
    listening.clear()  # an audit hook cannot be taken away


@pytest.mark.parametrize(("estimator", "params", "classes"), ESTIMATORS)
def test_a_model_comes_back_equal_and_without_pickle(
    estimator: str,
    params: dict[str, Any],
    classes: tuple[str, ...] | None,
    fit: Any,
    rows: pd.DataFrame,
    records: list[dict[str, Any]],
    tmp_path: Path,
    finds: list[str],
) -> None:
    fitted, signature = fit(estimator, params, classes)
    digest = write(tmp_path / "one", (fitted, signature), estimator, params, records)
    back = Bundle.load(tmp_path / "one", digest)
    assert finds == []
    assert back.signature == signature == read_signature(tmp_path / "one", digest)
    wanted = scores(fitted, signature, typed(rows, signature))
    np.testing.assert_allclose(back.predict(back.frame(records)), wanted, rtol=0, atol=1e-9)
    np.testing.assert_allclose(back.expected, wanted[:20], rtol=0, atol=1e-9)
    assert wanted.dtype == "float64"
    assert wanted.shape == ((len(rows),) if classes is None else (len(rows), len(classes)))
    assert type(back.pipeline["model"]) is type(fitted["model"])


@pytest.mark.parametrize("estimator", ["xgboost.XGBClassifier", "sklearn.linear_model.Ridge"])
def test_the_same_model_has_the_same_digest(
    estimator: str, fit: Any, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    _, params, classes = next(e for e in ESTIMATORS if e[0] == estimator)
    first = write(tmp_path / "1", fit(estimator, params, classes), estimator, params, records)
    again = write(tmp_path / "2", fit(estimator, params, classes), estimator, params, records)
    assert first == again
    name = next(iter(params))
    changed = params | {name: params[name] + 1}
    other = write(tmp_path / "3", fit(estimator, changed, classes), estimator, changed, records)
    assert other != first


def test_a_bundle_appears_whole_and_stays(written: tuple[Path, str]) -> None:
    path, digest = written
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing temporary is left
    assert digest_of((path / "manifest.json").read_bytes()) == digest


def test_a_flipped_byte_is_refused_before_a_parser_sees_it(
    written: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, digest = written
    monkeypatch.setattr(
        bundle_module, "_load_pipeline", lambda *_: pytest.fail("a parser was given the files")
    )
    names = [p.name for p in path.iterdir()]
    assert len(names) == 3
    for name in names:
        copy = tmp_path / name
        shutil.copytree(path, copy)
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        with pytest.raises(ServingError, match=r"damaged|not the one that was registered"):
            Bundle.load(copy, digest)
        (copy / name).unlink()
        with pytest.raises(ServingError, match=rf"{name} cannot be read: No such file"):
            Bundle.load(copy, digest)


def test_another_digest_is_refused(written: tuple[Path, str]) -> None:
    with pytest.raises(ServingError, match="is not the one that was registered"):
        Bundle.load(written[0], "0" * 32)
    with pytest.raises(ServingError, match="is not the one that was registered"):
        read_signature(written[0], "0" * 32)


def test_a_file_that_leads_out_of_the_bundle_is_not_in_a_manifest(
    written: tuple[Path, str],
) -> None:
    files = json.loads((written[0] / "manifest.json").read_bytes())["files"]
    assert all("/" not in name for name in files)


class Own(RegressorMixin, BaseEstimator):
    """An estimator that is not one of the libraries' own."""

    def fit(self, x: Any, y: Any) -> Own:
        self.mean_ = float(np.mean(y))
        return self

    def predict(self, x: Any) -> np.ndarray:
        return np.full(len(x), self.mean_)


class Moody(Own):
    """Answers differently after it was written."""

    def __getstate__(self) -> dict[str, Any]:
        return {"mean_": self.mean_ + 1}


def with_model(made: Any, model: Any, rows: pd.DataFrame, y: np.ndarray) -> Any:
    fitted, signature = made
    model.fit(fitted["features"].transform(typed(rows, signature)), y)
    return Pipeline([("features", fitted["features"]), ("model", model)]), signature


def test_types_that_are_not_trusted_are_refused(
    fit: Any, rows: pd.DataFrame, target: Any, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    made = with_model(fit("sklearn.linear_model.Ridge", {}, None), Own(), rows, target(None))
    with pytest.raises(TrainingError, match=r"types that are not trusted: .*\.Own"):
        write(tmp_path / "one", made, "test_bundle.Own", {}, records)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_answers_differently_is_refused(
    fit: Any,
    rows: pd.DataFrame,
    target: Any,
    records: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bundle_module, "_TRUSTED_PREFIXES", ("sklearn.", "numpy.", Own.__module__))
    monkeypatch.setitem(sys.modules, Own.__module__, sys.modules[__name__])
    made = with_model(fit("sklearn.linear_model.Ridge", {}, None), Moody(), rows, target(None))
    with pytest.raises(TrainingError, match=r"answers differently after .* \(by 1\)"):
        write(tmp_path / "one", made, "test_bundle.Moody", {}, records)
    assert list(tmp_path.iterdir()) == []
