"""The model that everybody serves: fitted once on flights, as a bundle and as a pickle."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from holdtrue.models import Bundle, Signature

CATEGORICAL = ("carrier", "origin", "dest")
NUMERIC = (
    *("distance", "departure_minute", "arrival_minute", "weekday", "plane_age", "seats", "temp"),
    *("dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"),
)
AWKWARD = "benchmarks.serving._awkward.Awkward"
WAITS_S = 0.05
"""Of the model that waits, for each call."""
ESTIMATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "trees": ("xgboost.XGBClassifier", {"n_estimators": 200, "max_depth": 6}),
    "linear": ("sklearn.linear_model.LogisticRegression", {"max_iter": 300}),
    # What has no compiled form: a real one, and those that do what a model should not.
    "network": (
        "sklearn.neural_network.MLPClassifier",
        {"hidden_layer_sizes": [32], "tol": 1.0},  # so that few rounds are enough for it
    ),
    "waits": (AWKWARD, {"waits_s": WAITS_S}),
    "raises": (AWKWARD, {"as_shadow": "raises"}),
    "sleeps": (AWKWARD, {"as_shadow": "sleeps"}),
}
# Rows that are asked for in turns, and rows of a request with many.
POOL = 200
MANY = 100
_START, _MIDDLE, _END = (datetime(2013, month, 1, tzinfo=UTC) for month in (1, 6, 7))
_FIT_ROWS = 40_000


@dataclass(frozen=True)
class Fitted:
    """One model in a folder, written for everybody."""

    kind: str
    """Key of `ESTIMATORS`."""
    folder: Path
    """Holds ``pipeline.pkl``, ``dtypes.json``, ``rows.json`` and ``bundle/``."""
    digest: str
    """Of the bundle."""
    rows: list[dict[str, Any]]
    """Records without missing values, which V2's JSON has no way to say."""
    expected: np.ndarray
    """What the pipeline answers: shape (n_rows, 2)."""

    @property
    def bundle(self) -> Path:
        """Folder of the bundle."""
        return self.folder / "bundle"


def signature() -> Signature:
    """The columns of the flights, as the declaration has them."""
    from holdtrue.models import Signature

    columns: dict[str, Any] = dict.fromkeys(CATEGORICAL, "string")
    return Signature(
        target="late",
        task="classification",
        classes=("0", "1"),
        columns=columns | dict.fromkeys(NUMERIC, "number"),
        categorical=CATEGORICAL,
    )


def fit(kind: str, folder: Path, version: int = 1) -> Fitted:
    """Fit a model and write it for everybody.

    Args:
        kind: Key of `ESTIMATORS`.
        folder: Made here.
        version: Each is fitted on a few rows fewer.
    """
    from holdtrue.declaration import Candidate, Model
    from holdtrue.models import Bundle, fit_bundle

    estimator, params = ESTIMATORS[kind]
    folder.mkdir(parents=True)
    digest = fit_bundle(
        _flights(_START, _MIDDLE).head(_FIT_ROWS - 1_000 * (version - 1)),
        folder / "bundle",
        signature(),
        estimator,
        params,
        seed=0,
        threads=2,
        model=Model(candidates=(Candidate(estimator=estimator),)),
        folds=3,
        ordered=True,
    )
    bundle = Bundle.load(folder / "bundle", digest)
    complete = _flights(_MIDDLE, _END)[list(bundle.signature.columns)].dropna().head(POOL)
    records: list[dict[str, Any]] = json.loads(complete.to_json(orient="records"))
    dtypes = dict.fromkeys(CATEGORICAL, "object") | dict.fromkeys(NUMERIC, "float64")
    (folder / "pipeline.pkl").write_bytes(pickle.dumps(bundle.pipeline))
    (folder / "dtypes.json").write_text(json.dumps(dtypes))
    (folder / "rows.json").write_text(json.dumps(records))
    return Fitted(kind, folder, digest, records, _answers(bundle, records))


def _answers(bundle: Bundle, records: list[dict[str, Any]]) -> np.ndarray:
    return np.asarray(bundle.pipeline.predict_proba(bundle.frame(records)), dtype="float64")


def _flights(start: datetime, end: datetime) -> pd.DataFrame:
    from configs.flights import load

    rows = load(start, end).dropna(subset=["late"])
    rows["late"] = rows["late"].astype(int).astype(str)
    return rows.reset_index(drop=True)
