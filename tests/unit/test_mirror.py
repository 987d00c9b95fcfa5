from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdtrue.declaration import parse
from holdtrue.errors import ConfigError
from holdtrue.mirror import _without_password, mirror
from holdtrue.plan import Context
from holdtrue.references import Estimate
from holdtrue.store import HOME_VARIABLE, Store
from holdtrue.system import System

DECLARED = """
name: small
task: classification
data: {source: {files: rows.csv}, target: y}
model: {candidates: [{estimator: sklearn.linear_model.LogisticRegression}]}
tune: {metric: log_loss}
"""
AS_OF = datetime(2024, 1, 31, tzinfo=UTC)
Make = Callable[[str], Context]


@pytest.fixture
def context(tmp_path: Path) -> Make:
    def make(track: str) -> Context:
        made = Context(
            declaration=parse(DECLARED + track),
            project=tmp_path,
            store=Store(tmp_path / "store"),
            as_of=AS_OF,
        )
        made.registry.register(
            "small",
            digest=f"{1:032x}",
            bundle="bundles/1",
            as_of=AS_OF,
            passed=True,
            reason="apply: all gates held",
            incumbent=None,
            metrics={"log_loss": Estimate(value=0.5, low=0.4, high=0.6)},
            profile="profiles/1",
            lineage={},
        )
        return made

    return make


def test_without_a_declared_mlflow_nothing_happens(
    context: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # it takes seconds to import
    made = context("")
    before = sorted(tmp_path.rglob("*"))
    assert mirror(made) is None
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("sqlite:///store", "unable to open database file"),
        ("sqlite:///rows.txt", "file is not a database"),
        ("sqlite:///rows.txt/mlflow.db", "File exists"),
    ],
)
def test_a_file_that_cannot_be_used_only_warns(
    uri: str, said: str, context: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.txt").write_text("no database\n" * 100)
    failed = mirror(context(f"track: {{mlflow: '{uri}'}}"))
    assert failed is not None
    assert failed.startswith(f"MLflow at {uri} was not updated: ")
    assert said in failed
    assert capsys.readouterr().err == (
        f"Warning: {failed}\n  The next version or rollback catches up.\n"
    )
    assert (tmp_path / "rows.txt").read_text() == "no database\n" * 100


def test_a_password_is_not_shown() -> None:
    said = "https://ann:secr@t@host:80 failed: https://ann:secr@t@host:80/api, a@b"
    assert _without_password(said) == "https://host:80 failed: https://host:80/api, a@b"


@pytest.mark.parametrize("uri", ["mlflow.db", "file:///tmp/mlruns", "sqlite:///", "http://", ""])
def test_other_addresses_are_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"track\.mlflow"):
        parse(DECLARED + f"track: {{mlflow: '{uri}'}}")


def test_a_missing_client_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "rows.csv").write_text("x,y\n1,0\n2,1\n")
    (tmp_path / "small.yaml").write_text(DECLARED + "track: {mlflow: 'sqlite:///mlflow.db'}")
    system = System(tmp_path / "small.yaml")
    found = importlib.util.find_spec
    hide = {"mlflow": None}
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *rest: hide[name] if name in hide else found(name, *rest),
    )
    with pytest.raises(ConfigError, match="not installed") as caught:
        system.check()
    assert caught.value.hint == "pip install holdtrue[mlflow]"
    assert not system.store.root.exists()
