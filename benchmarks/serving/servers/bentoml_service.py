"""BentoML around the pipeline: bentoml serve bentoml_service:Scorer; reads FOLDER from MODEL."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import bentoml  # type: ignore[import-not-found]
import pandas as pd


@bentoml.service(workers=1)
class Scorer:
    """Answers ``POST /predict`` with ``{"rows": [records]}``."""

    def __init__(self) -> None:
        folder = Path(os.environ["MODEL"])
        self.pipeline = pickle.loads((folder / "pipeline.pkl").read_bytes())  # noqa: S301 - ours
        self.dtypes = json.loads((folder / "dtypes.json").read_text())

    @bentoml.api  # type: ignore[untyped-decorator]
    def predict(self, rows: list[dict[str, Any]]) -> list[list[float]]:
        """Score records."""
        frame = pd.DataFrame(rows).astype(self.dtypes)
        found: list[list[float]] = self.pipeline.predict_proba(frame).tolist()
        return found
