from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from holdtrue.errors import ServingError
from holdtrue.models import Bundle, digest_of, read_signature, scores, typed, write_bundle
from holdtrue.models import _bundle as bundle_module
from holdtrue.models import compiled as compiled_module
from holdtrue.models._manifest import FORMAT, MANIFEST, TIMINGS, read_compilation
from holdtrue.models._served import ServedModel
from holdtrue.models.compiled import Compiled

TWO, THREE = ("no", "yes"), ("a", "b", "c")
BOOSTED = "xgboost.XGBClassifier"
ESTIMATORS: list[tuple[str, dict[str, Any], tuple[str, ...] | None]] = [
    ("xgboost.XGBClassifier", {"n_estimators": 5}, TWO),
    ("xgboost.XGBClassifier", {"n_estimators": 5}, THREE),
    ("xgboost.XGBRegressor", {"n_estimators": 5}, None),
    ("sklearn.linear_model.LogisticRegression", {"C": 0.5}, TWO),
    ("sklearn.linear_model.LogisticRegression", {}, THREE),
    ("sklearn.linear_model.Ridge", {"alpha": 2.0}, None),
    ("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 5}, TWO),
    ("sklearn.ensemble.HistGradientBoostingRegressor", {"max_iter": 5}, None),
    ("lightgbm.LGBMClassifier", {"n_estimators": 5}, TWO),
    ("lightgbm.LGBMClassifier", {"n_estimators": 5}, THREE),
    ("lightgbm.LGBMRegressor", {"n_estimators": 5}, None),
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
        bundle_module, "load_pipeline", lambda *_: pytest.fail("a parser was given the files")
    )
    monkeypatch.setattr(Compiled, "read", lambda *_, **__: pytest.fail("and so was this one"))
    names = {p.name for p in path.iterdir()} - {TIMINGS}
    assert names >= {MANIFEST, "features.skops", "scorer.json"}
    for name in names:
        copy = tmp_path / name
        shutil.copytree(path, copy)
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        with pytest.raises(ServingError, match=r"damaged|not the one that was registered"):
            Bundle.load(copy, digest)
        with pytest.raises(ServingError, match=r"damaged|not the one that was registered"):
            ServedModel.load(copy, digest)
        (copy / name).unlink()
        with pytest.raises(ServingError, match=rf"{name} cannot be read: No such file"):
            Bundle.load(copy, digest)
        with pytest.raises(ServingError, match=rf"{name} cannot be read: No such file"):
            ServedModel.load(copy, digest)


def test_what_was_measured_is_no_part_of_the_model(written: tuple[Path, str]) -> None:
    path, digest = written
    assert json.loads((path / TIMINGS).read_bytes())["switch_rows"] >= 1
    manifest = json.loads((path / MANIFEST).read_bytes())
    assert TIMINGS not in manifest["files"]
    assert "switch_rows" not in json.dumps(manifest)
    assert digest_of((path / MANIFEST).read_bytes()) == digest


@pytest.mark.parametrize("n_rows", [0, 20, 230])
def test_it_is_measured_on_the_training_rows(
    fit: Any,
    records: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_rows: int,
) -> None:
    measured: list[np.ndarray] = []

    def measure(compiled: Compiled, matrix: np.ndarray) -> int:
        measured.append(matrix)
        return 7

    monkeypatch.setattr("holdtrue.models.compiled._proof.break_even", measure)
    fitted, signature = fit(BOOSTED, {"n_estimators": 5}, TWO)
    training = {name: [r[name] for r in records[:n_rows]] for name in signature.columns}
    digest = write_bundle(
        tmp_path / "one",
        fitted,
        signature,
        estimator=BOOSTED,
        params={"n_estimators": 5},
        sample=records[:20],
        training=training if n_rows else None,
    )
    model = ServedModel.load(tmp_path / "one", digest)
    assert model.scorer is not None
    assert model.scorer.switch_rows == 7
    wanted = model.scorer.encode(records[: n_rows or 20]).matrix
    np.testing.assert_array_equal(measured[0], wanted)


@pytest.mark.parametrize(
    "content", [None, b"", b"[]", b'{"switch_rows": -1}', b'{"switch_rows": "1"}']
)
def test_a_model_answers_whatever_became_of_the_measurement(
    written: tuple[Path, str], tmp_path: Path, content: bytes | None
) -> None:
    path, digest = written
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    (copy / TIMINGS).unlink()
    if content is not None:
        (copy / TIMINGS).write_bytes(content)
    ServedModel.load(copy, digest).verify()


@pytest.mark.parametrize(("estimator", "params", "classes"), ESTIMATORS)
def test_it_is_said_how_equal_the_compiled_model_is(
    estimator: str,
    params: dict[str, Any],
    classes: tuple[str, ...] | None,
    fit: Any,
    records: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    digest = write(tmp_path / "one", fit(estimator, params, classes), estimator, params, records)
    found = read_compilation(tmp_path / "one", digest)
    assert found.compiled
    assert found.reason is None
    assert found.identical
    assert found.max_difference is not None
    assert found.max_difference <= 1e-6
    assert found.rows > found.split_rows
    grown = "linear_model" not in estimator
    assert (found.splits > 0) == (found.split_rows > 0) == grown
    assert re.fullmatch(
        r"compiled, and proven equal to the pipeline on [\d,]+ rows: .* [-\de.]+", str(found)
    )


def test_a_model_without_a_compiled_form_says_why(
    fit: Any, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    estimator = "sklearn.neighbors.KNeighborsClassifier"
    digest = write(tmp_path / "one", fit(estimator, {}, TWO), estimator, {}, records)
    found = read_compilation(tmp_path / "one", digest)
    assert not found.compiled
    assert found.reason is not None
    assert "KNeighborsClassifier" in found.reason
    assert "not compiled, so the pipeline itself answers" in str(found)
    assert Bundle.load(tmp_path / "one", digest).compilation == found


def test_a_model_that_is_not_proven_is_not_compiled(
    fit: Any,
    records: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = compiled_module.compile_pipeline

    def moved(*given: Any) -> Compiled:
        compiled = honest(*given)
        assert compiled.linear is not None
        compiled.linear.intercepts[0] += 1e-5
        return compiled

    monkeypatch.setattr(compiled_module, "compile_pipeline", moved, raising=False)
    estimator = "sklearn.linear_model.Ridge"
    digest = write(tmp_path / "one", fit(estimator, {}, None), estimator, {}, records)
    found = read_compilation(tmp_path / "one", digest)
    assert not found.compiled
    assert found.reason is not None
    assert "differ from the pipeline's by" in found.reason
    assert found.max_difference == pytest.approx(1e-5, rel=0.1)
    assert not (tmp_path / "one" / "scorer.json").exists()
    assert not ServedModel.load(tmp_path / "one", digest).compiled


def test_a_compiler_that_breaks_does_not_stop_the_training(
    fit: Any,
    records: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def breaks(*_: Any) -> Compiled:
        raise IndexError(7)

    monkeypatch.setattr(compiled_module, "compile_pipeline", breaks, raising=False)
    estimator = "sklearn.linear_model.Ridge"
    digest = write(tmp_path / "one", fit(estimator, {}, None), estimator, {}, records)
    found = read_compilation(tmp_path / "one", digest)
    assert found.reason == "compiling it failed: IndexError: 7"
    ServedModel.load(tmp_path / "one", digest).verify()


def test_a_bundle_of_the_format_before_still_answers(
    fit: Any, records: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "one"
    write(path, fit("xgboost.XGBClassifier", {}, TWO), "xgboost.XGBClassifier", {}, records)
    manifest = json.loads((path / MANIFEST).read_bytes())
    assert manifest["format"] == FORMAT == 3
    del manifest["compilation"]
    for name in ("scorer.json", "trees.onnx"):
        del manifest["files"][name]
        (path / name).unlink()
    (path / TIMINGS).unlink()

    def rewritten(version: int) -> str:
        content = json.dumps(manifest | {"format": version}).encode()
        (path / MANIFEST).write_bytes(content)
        return digest_of(content)

    digest = rewritten(2)
    back = Bundle.load(path, digest)
    assert back.predict(back.frame(records)).shape == (len(records), 2)
    model = ServedModel.load(path, digest)
    assert not model.compiled
    assert model.reason is not None
    assert "before models were compiled" in model.reason
    model.verify()
    for version in (1, 4):
        with pytest.raises(ServingError, match=f"has format {version}, expected 3"):
            ServedModel.load(path, rewritten(version))


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
