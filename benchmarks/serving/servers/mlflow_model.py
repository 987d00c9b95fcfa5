"""Write the pipeline as an MLflow model: python mlflow_model.py FOLDER."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import mlflow.sklearn
import pandas as pd
from mlflow.models import infer_signature


def main(folder: Path) -> None:
    """Write `folder`/mlflow, with the signature that MLflow infers from rows."""
    pipeline = pickle.loads((folder / "pipeline.pkl").read_bytes())  # noqa: S301 - our own file
    dtypes = json.loads((folder / "dtypes.json").read_text())
    frame = pd.DataFrame(json.loads((folder / "rows.json").read_text())).astype(dtypes)
    mlflow.sklearn.save_model(
        pipeline,
        str(folder / "mlflow"),
        signature=infer_signature(frame, pipeline.predict_proba(frame)),
        serialization_format="cloudpickle",
        pyfunc_predict_fn="predict_proba",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
