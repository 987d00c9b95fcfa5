"""Estimators of packages besides scikit-learn and XGBoost: checked, written, loaded."""

from __future__ import annotations

import importlib
import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import Pipeline

from holdtrue.declaration import Candidate
from holdtrue.errors import ConfigError, ServingError, TrainingError
from holdtrue.models import Bundle, check_candidate, digest_of, typed, write_bundle
from holdtrue.models._confusion import ConfusionClassifier
from holdtrue.models._manifest import MANIFEST
from holdtrue.models._served import ServedModel
from holdtrue.models._skops import check_types, dump_skops, load_skops, package_of
from holdtrue.store import put_on_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd

ESTIMATORS = """
import threading
from pathlib import PurePosixPath

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from {other} import Scale


class Mean(RegressorMixin, BaseEstimator):
    def __init__(self, shift=0.0):
        self.shift = shift

    def fit(self, x, y):
        self.part_ = Part(float(np.mean(y)))
        return self

    def predict(self, x):
        return np.full(len(x), self.part_.value + self.shift)


class Part:
    def __init__(self, value):
        self.value = value


class Moody(Mean):
    def __getstate__(self):
        return {{"shift": self.shift + 1, "part_": self.part_}}


class Needs(Mean):
    def __init__(self, shift):
        self.shift = shift


class Stranger(Mean):
    def __init__(self, shift=0.0):
        self.shift, self.scale = shift, Scale()


class Late(Mean):
    def fit(self, x, y):
        self.scale_ = Scale()
        return super().fit(x, y)


class Locked(Mean):
    def __init__(self, shift=0.0):
        self.shift, self.lock = shift, threading.Lock()


class Placed(Mean):
    def __init__(self, shift=0.0):
        self.shift, self.place = shift, PurePosixPath("/tmp")


class Counting(Mean):
    def __init__(self, shift=0.0):
        self.shift, self.count = shift, (i for i in range(3))


class Outer:
    class Inner(Mean):
        pass


Hidden = Outer.Inner
"""


@pytest.fixture
def package(tmp_path: Path) -> Iterator[str]:
    """A package with estimators, in a folder that is on the path while the test runs."""
    name, other = "own_estimators", "strange_parts"
    folder = tmp_path / "project"
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("")
    (folder / name / "models.py").write_text(ESTIMATORS.format(other=other))
    (folder / f"{other}.py").write_text("class Scale:\n    factor = 1.0\n")
    before = list(sys.path)
    put_on_path(folder)
    yield f"{name}.models"
    sys.path[:] = before
    forget(name, other)


def forget(*packages: str) -> None:
    """Let packages be as if they had never been imported."""
    for module in [m for m in sys.modules if m.partition(".")[0] in packages]:
        del sys.modules[module]
    importlib.invalidate_caches()


def check(path: str, **params: Any) -> None:
    candidate = Candidate.model_validate({"estimator": path, "params": params})
    check_candidate(candidate, "regression")


@pytest.fixture
def made(
    package: str, fit: Any, rows: pd.DataFrame, target: Any, records: Any, tmp_path: Path
) -> Any:
    """Write a bundle of one of the package's estimators; gives folder and digest."""

    def make(name: str = "Mean") -> tuple[Path, str]:
        fitted, signature = fit("sklearn.linear_model.Ridge", {}, None)
        model = getattr(importlib.import_module(package), name)(shift=2.0)
        model.fit(fitted["features"].transform(typed(rows, signature)), target(None))
        digest = write_bundle(
            tmp_path / "bundle",
            Pipeline([("features", fitted["features"]), ("model", model)]),
            signature,
            estimator=f"{package}.{name}",
            params={"shift": 2.0},
            sample=records[:20],
        )
        return tmp_path / "bundle", digest

    return make


def test_an_estimator_of_another_package_is_written_and_answers(
    made: Any, target: Any, records: Any
) -> None:
    folder, digest = made()
    bundle = Bundle.load(folder, digest)
    wanted = np.full(3, target(None).mean() + 2.0)
    np.testing.assert_allclose(bundle.predict(bundle.frame(records[:3])), wanted)
    served = ServedModel.load(folder, digest)
    served.verify()
    np.testing.assert_allclose(served.predict(served.encode(records[:3])), wanted)


def test_the_manifest_names_the_package_and_no_other(made: Any) -> None:
    folder, _ = made()
    assert json.loads((folder / MANIFEST).read_bytes())["trusted"] == ["own_estimators"]


def test_an_altered_manifest_cannot_name_more_packages(made: Any) -> None:
    folder, digest = made()
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["trusted"].append("os")
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ServingError, match="is not the one that was registered"):
        Bundle.load(folder, digest)


def test_a_manifest_without_the_package_trusts_it_not(made: Any) -> None:
    folder, _ = made()
    manifest = json.loads((folder / MANIFEST).read_bytes())
    del manifest["trusted"]
    content = json.dumps(manifest).encode()
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(ServingError, match=r"not trusted: own_estimators\.models\.Mean"):
        Bundle.load(folder, digest_of(content))


def test_a_package_that_is_not_there_is_named(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, digest = made()
    monkeypatch.setattr(sys, "path", [p for p in sys.path if not p.endswith("/project")])
    forget("own_estimators")
    with pytest.raises(ServingError, match=r"own_estimators\.models\.Mean, which cannot") as caught:
        ServedModel.load(folder, digest)
    assert "install own_estimators here" in (caught.value.hint or "")


def test_types_of_a_third_package_are_refused_in_the_fit(made: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"not trusted: strange_parts\.Scale"):
        made("Late")
    assert not (tmp_path / "bundle").exists()


def test_a_model_that_answers_differently_is_refused(made: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"answers differently after .* \(by 1\)"):
        made("Moody")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", ["Mean", "Late", "Moody", "Needs"])
def test_what_may_be_written_passes_the_check(package: str, name: str) -> None:
    check(f"{package}.{name}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Stranger", "types that are not trusted: strange_parts.Scale"),
        ("Placed", "types that are not trusted: pathlib.PurePosixPath"),
        ("Locked", "types that are not trusted: _thread.lock"),
        ("Hidden", "own_estimators.models.Inner, which cannot be imported"),
    ],
)
def test_what_could_not_be_written_is_refused_before_the_search(
    package: str, name: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(f"{package}.{name}")
    assert caught.value.message.startswith(f"estimator {package}.{name} cannot be written without")
    assert said in caught.value.message
    assert "\n" not in caught.value.message
    assert "its own package" in (caught.value.hint or "")


def test_what_skops_cannot_write_at_all_is_refused_before_the_search(package: str) -> None:
    with pytest.raises(
        ConfigError, match=r"models\.Counting: the model cannot be written"
    ) as caught:
        check(f"{package}.Counting")
    assert "\n" not in caught.value.message


def test_python_itself_is_never_trusted(package: str) -> None:
    made = type("Made", (), {"__module__": "os"})()
    assert package_of(made) == ()
    assert package_of(np.zeros(1)) == ()
    own = importlib.import_module(package).Mean()
    assert package_of(own) == ("own_estimators",)
    assert package_of(CalibratedClassifierCV(own)) == ("own_estimators",)
    assert package_of(ConfusionClassifier(own)) == ("own_estimators",)


def test_a_package_whose_name_only_begins_so_is_not_trusted(package: str) -> None:
    content = dump_skops(importlib.import_module(package).Mean())
    assert check_types(content, ["own_estimators"]) == [f"{package}.Mean"]
    with pytest.raises(ServingError, match="not trusted"):
        load_skops(content, ["own"])
