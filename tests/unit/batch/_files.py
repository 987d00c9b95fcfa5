"""Bundles, files and what is in them, for the tests of batch scoring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow import csv

from holdtrue.batch import Scored, list_inputs, score_files
from holdtrue.models import Signature, pipeline, typed, write_bundle
from holdtrue.models._served import ServedModel

N = 300
BOOSTED = "xgboost.XGBClassifier"
CLASSES = ("early", "late")
ENDINGS = [".csv", ".parquet", ".jsonl"]
Bundle = tuple[Path, str]


def make_bundle(path: Path, rows: pd.DataFrame, estimator: str, params: dict[str, Any]) -> Bundle:
    signature = Signature(
        target="y",
        task="classification",
        classes=CLASSES,
        columns={"code": "integer", "x": "number", "flag": "boolean", "text": "string"},
        categorical=("code", "text"),
    )
    fitted = pipeline(estimator, params, signature, seed=0, threads=1)
    late = (rows["x"].fillna(0) + (rows["code"].fillna(1) == 1).astype(float) > 0.3).to_numpy()
    fitted.fit(typed(rows, signature), late.astype("int64"))
    sample = [{"code": 1, "x": 0.5, "flag": True, "text": "a"}]
    digest = write_bundle(
        path, fitted, signature, estimator=estimator, params=params, sample=sample
    )
    return path, digest


def write(path: Path, rows: pd.DataFrame) -> Path:
    if path.name.endswith(".parquet"):
        rows.to_parquet(path, index=False)
    elif path.name.endswith(".jsonl"):
        whole = rows.astype(object).where(rows.notna(), None).to_dict("records")
        path.write_text("".join(json.dumps(row) + "\n" for row in whole))
    else:
        rows.to_csv(path, index=False)
    return path


def read(path: Path) -> pd.DataFrame:
    if path.name.endswith(".parquet"):
        return pd.read_parquet(path)
    if path.name.endswith(".jsonl"):
        return pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])
    return csv.read_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True)).to_pandas()


def records_of(rows: pd.DataFrame) -> list[dict[str, Any]]:
    columns = {}
    for name in ("code", "x", "flag", "text"):
        column = rows[name].astype(object)
        columns[name] = column.where(column.notna(), None).tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def online(bundle: Bundle, rows: pd.DataFrame) -> np.ndarray:
    """What the endpoint answers to the rows, one a request."""
    model = ServedModel.load(*bundle)
    return np.concatenate([model.predict(model.encode([record])) for record in records_of(rows)])


def probabilities(scored: pd.DataFrame) -> np.ndarray:
    return scored[[f"probability_{name}" for name in CLASSES]].to_numpy(dtype="float64")


def do(bundle: Bundle, source: Path, output: Path, **given: Any) -> Scored:
    return score_files(*bundle, list_inputs(source), output, **given)
