"""FastAPI around the pipeline, as a team would write it: python fastapi_pandas.py FOLDER PORT."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import uvicorn
from fastapi import FastAPI


def application(folder: Path) -> FastAPI:
    """Answers ``POST /predict`` with a list of records."""
    pipeline = pickle.loads((folder / "pipeline.pkl").read_bytes())  # noqa: S301 - our own file
    dtypes = json.loads((folder / "dtypes.json").read_text())
    app = FastAPI()

    # Faster than a function that FastAPI runs in threads: pandas does not gain by them.
    async def predict(rows: list[dict[str, Any]]) -> dict[str, Any]:
        frame = pd.DataFrame(rows).astype(dtypes)
        return {"predictions": pipeline.predict_proba(frame).tolist()}

    predict.__annotations__ = {"rows": list[dict[str, Any]], "return": dict[str, Any]}
    app.post("/predict")(predict)
    return app


if __name__ == "__main__":
    uvicorn.run(
        application(Path(sys.argv[1])),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        log_level="warning",
        access_log=False,
    )
