"""A small real model, written as a bundle, and slates with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import pytest

from holdtrue.models import Signature, pipeline, typed, write_bundle
from holdtrue.serving import Arm, Limits, Slate
from holdtrue.serving._slate import CaptureSettings

if TYPE_CHECKING:
    from pathlib import Path


LINEAR = "sklearn.linear_model.LogisticRegression"


class Written(NamedTuple):
    path: Path
    digest: str
    rows: list[dict[str, object]]


def write(path, *, estimator=LINEAR, wide=False, **params):
    signature = Signature(
        target="late",
        task="classification",
        classes=("no", "yes"),
        columns={"distance": "integer", "carrier": "string"} | ({"tide": "number"} if wide else {}),
        categorical=("carrier",),
    )
    rows = [{"distance": 100 * n, "carrier": "AB"[n % 2]} for n in range(40)]
    if wide:
        rows = [row | {"tide": float(n)} for n, row in enumerate(rows)]
    frame = typed(pd.DataFrame(rows), signature)
    model = pipeline(estimator, params, signature, seed=0, threads=1)
    model.fit(frame, [n // 20 for n in range(40)])
    digest = write_bundle(
        path, model, signature, estimator=estimator, params=params, sample=rows[:10]
    )
    return Written(path, digest, rows)


def write_regression(path):
    """A model that predicts -9.5, -7.5, -5.5 and so on for its rows, which have no noise."""
    signature = Signature(
        target="late",
        task="regression",
        classes=None,
        columns={"distance": "integer", "carrier": "string"},
        categorical=("carrier",),
    )
    rows = [{"distance": 100 * n, "carrier": "AB"[n % 2]} for n in range(40)]
    estimator = "sklearn.linear_model.LinearRegression"
    model = pipeline(estimator, {}, signature, seed=0, threads=1)
    model.fit(typed(pd.DataFrame(rows), signature), [2 * n - 9.5 for n in range(40)])
    digest = write_bundle(path, model, signature, estimator=estimator, params={}, sample=rows[:10])
    return Written(path, digest, rows)


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Written:
    return write(tmp_path_factory.mktemp("bundle") / "model")


@pytest.fixture(scope="session")
def other(tmp_path_factory) -> Written:
    """Another model for the same rows."""
    return write(tmp_path_factory.mktemp("bundle") / "model", C=0.01)


@pytest.fixture(scope="session")
def wider(tmp_path_factory) -> Written:
    """A model that takes one column more."""
    return write(tmp_path_factory.mktemp("bundle") / "model", wide=True)


@pytest.fixture(scope="session")
def unexplained(tmp_path_factory) -> Written:
    """A model that is not compiled, and so not explained."""
    return write(
        tmp_path_factory.mktemp("bundle") / "model",
        estimator="sklearn.neighbors.KNeighborsClassifier",
    )


@pytest.fixture
def slate_with(written, other, tmp_path):
    """Makes slates: `written` is version 1 and the champion, `second` is version 2."""

    def make(challenger=0.0, *, second=other, shadow=False, captured=True, **changes):
        arms = [arm_of(written, "champion", 1, 1 - challenger)]
        if challenger:
            arms.append(arm_of(second, "challenger", 2, challenger))
        if shadow:
            arms.append(arm_of(second, "shadow", 2, 0))
        capture = CaptureSettings(share=1.0, folder=str(tmp_path / "segments"))
        settings = {
            "system": "flights",
            "arms": tuple(arms),
            "capture": capture if captured else None,
            "statistics": str(tmp_path / "flights" / "stats"),
            "keys": None,
            "limits": Limits(max_body_bytes=10_000),
            "key": ("flight",),
            "time": "at",
        }
        return Slate(**settings | changes)

    return make


def arm_of(model, role, version, weight):
    return Arm(
        role=role, version=version, bundle=str(model.path), digest=model.digest, weight=weight
    )
