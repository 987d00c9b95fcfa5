from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from holdtrue.models import Signature, pipeline, target_of, typed, write_bundle
from holdtrue.plan import Context, Journal, Runner
from holdtrue.plan._digest import digest
from holdtrue.plan._journal import Record
from holdtrue.references import (
    Evaluation,
    ModelRef,
    Reference,
    Study,
    Trial,
    Verdict,
    Version,
)
from holdtrue.store import HOME_VARIABLE
from holdtrue.system import System

N = 600
DECLARED: dict[str, Any] = {
    "name": "small",
    "task": "classification",
    "data": {
        "source": {"files": "rows.csv"},
        "target": "y",
        "time": "at",
        "key": ["id"],
        "labels_after": "1h",
        "window": "30d",
        "as_of": "2024-01-31",
        "contract": {"rows": {"min": 100}, "columns": {"size": {"min": 0, "max": 100}}},
    },
    "features": {"numeric": ["size", "weight"], "categorical": ["color"]},
    "model": {
        "candidates": [
            {
                "estimator": "sklearn.linear_model.LogisticRegression",
                "space": {"C": {"float": [0.1, 10.0], "log": True}},
            }
        ]
    },
    "tune": {"metric": "log_loss", "trials": 3, "folds": 2, "timeout": "5m"},
    "evaluate": {"test": "6d", "metrics": ["roc_auc", "log_loss"], "slices": ["color"]},
    "promote": [{"metric": "roc_auc", "at_least": 0.6}],
    "serve": {"port": 8_799},
    "monitor": {"window": "1d", "performance": {"metric": "log_loss", "worse_than": "10%"}},
}


def changed(place: str, value: Any) -> dict[str, Any]:
    """The declaration with one value changed: ``tune.trials``."""
    document: dict[str, Any] = yaml.safe_load(yaml.safe_dump(DECLARED))
    section = document
    *path, last = place.split(".")
    for key in path:
        section = section.setdefault(key, {})
    section[last] = value
    return document


def write_rows(folder: Path) -> None:
    chance = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "id": np.arange(N),
            "at": pd.date_range("2024-01-01", periods=N, freq="72min"),
            "size": chance.integers(0, 100, N),
            "weight": chance.normal(size=N),
            "color": chance.choice(["red", "green"], N),
        }
    )
    frame["y"] = (frame["weight"] + chance.normal(size=N) > 0).astype(int)
    frame.to_csv(folder / "rows.csv", index=False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with rows, a declaration and a store of its own."""
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    (tmp_path / "pyproject.toml").touch()
    write_rows(tmp_path)
    return tmp_path


@pytest.fixture
def system(project: Path) -> Callable[..., System]:
    """Make the system of the project: ``system()`` or ``system("tune.trials", 5)``."""

    def make(place: str | None = None, value: Any = None) -> System:
        document = DECLARED if place is None else changed(place, value)
        path = project / "small.yaml"
        path.write_text(yaml.safe_dump(document))
        return System(path)

    return make


STUDY = Study(
    metric="log_loss",
    direction="lower",
    trials=(
        Trial(
            number=0,
            candidate="sklearn.linear_model.LogisticRegression",
            params={"C": 1.0},
            state="complete",
            value=0.5,
            seconds=1.0,
        ),
    ),
    best=0,
    folds=2,
    sample_rows=480,
    seconds=1.0,
    workers=1,
    log="studies/plain/1.log",
    stopped="all 1 trials are done",
)
MODEL = ModelRef(
    bundle="bundles/1", digest="1" * 32, estimator="x.Y", params={}, rows=120, seconds=1.0
)
LATER: dict[str, Reference] = {
    "tune": STUDY,
    "fit": MODEL,
    "evaluate": Evaluation(
        model="1" * 32,
        rows=120,
        classes=("0", "1"),
        confidence=0.95,
        metrics={},
        baseline={},
        slices={},
    ),
    "gate": Verdict(passed=True, judgements=(), reason="all gates held"),
    "register": Version(system="small", number=1, digest="1" * 32, promoted=True, reason="held"),
}


def put_on_record(context: Context, outputs: Mapping[str, Reference]) -> None:
    """Have steps done, in their order, without doing them."""
    journal, runner = Journal(context.store, "small"), Runner(context)
    for name, output in outputs.items():
        components = runner._components(name)
        record = Record(
            step=name,
            digest=digest(components),
            components=components,
            output=output.model_dump(mode="json"),
            finished=datetime.now(UTC),
            seconds=1.0,
        )
        journal.write(record)
        journal.used(name, record.digest, context.as_of, context.declaration.data.as_of)


@pytest.fixture
def done(system: Callable[..., System]) -> Callable[..., System]:
    """The system with every step up to register on record; those on Ray as if they had run."""
    system().apply(until="split")
    context = system().context()
    context.store.path(MODEL.bundle).mkdir(parents=True)
    put_on_record(context, LATER)
    context.registry.register(
        "small",
        digest=MODEL.digest,
        bundle=MODEL.bundle,
        as_of=context.as_of,
        passed=True,
        reason="held",
        incumbent=None,
        metrics={},
        profile="profiles/1",
        lineage={},
    )
    context.registry.promote("small", 1, generation=0, reason="held", action="gate")
    return system


SIGNATURE = Signature(
    target="y",
    task="classification",
    classes=("0", "1"),
    columns={"x": "number", "z": "number"},
    categorical=(),
)


def fit(context: Context, name: str, estimator: str, rows: pd.DataFrame) -> ModelRef:
    model = pipeline(estimator, {}, SIGNATURE, seed=0, threads=1)
    model.fit(typed(rows, SIGNATURE), target_of(rows, SIGNATURE))
    folder = context.store.path("bundles", "small", name)
    digest = write_bundle(
        *(folder, model, SIGNATURE),
        estimator=estimator,
        params={},
        sample=[{"x": 1.0, "z": 0.5}],
    )
    return ModelRef(
        bundle=context.store.relative(folder),
        digest=digest,
        estimator=estimator,
        params={},
        rows=len(rows),
        seconds=1.0,
    )
