"""Scoring of whole tables, outside the endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def score(bundle: Path, digest: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Score a table with a bundle.

    Args:
        bundle: Folder of the bundle.
        digest: Digest of its manifest.
        rows: shape (n_rows, any): with at least the feature columns.

    Returns:
        The rows with ``prediction`` and, for classification, ``probability_<class>``; where an
        interval is declared, with ``interval_low`` and ``interval_high``.

    Raises:
        DataError: There are no rows, or a feature column is missing or of the wrong kind.
        ServingError: The bundle is damaged.
    """
    from holdtrue.data import as_frame, as_table, kinds_compatible, require_columns
    from holdtrue.errors import DataError
    from holdtrue.models import Bundle, typed

    if rows.empty:
        message = "there are no rows to score"
        raise DataError(message)
    model = Bundle.load(bundle, digest)
    signature = model.signature
    table = as_table(rows, "the rows")
    require_columns(table.column_names, dict.fromkeys(signature.columns, "feature"), "the rows")
    kinds_compatible(table, signature.columns)
    answers = model.predict(typed(as_frame(table, signature.columns), signature))
    result = rows.reset_index(drop=True).copy()
    if signature.classes is None:
        result["prediction"] = answers
        ends = model.answering.intervals(answers)
        if ends is not None:
            result["interval_low"], result["interval_high"] = ends.T
        return result
    result["prediction"] = np.asarray(signature.classes)[model.answering.decide(answers)]
    for index, name in enumerate(signature.classes):
        result[f"probability_{name}"] = answers[:, index]
    return result


def read_rows(path: Path) -> pd.DataFrame:
    """Read a CSV, Parquet or JSON lines file, by its ending.

    Raises:
        DataError: It cannot be read, or has another ending.
    """
    from holdtrue.data import read_file

    return read_file(path).to_pandas()


def write_rows(path: Path, rows: pd.DataFrame) -> None:
    """Write a CSV, Parquet or JSON lines file, by its ending.

    Raises:
        ConfigError: It has another ending, or its folder cannot be written.
    """
    from holdtrue.errors import ConfigError

    try:
        if path.name.endswith(".parquet"):
            rows.to_parquet(path, index=False)
        elif path.name.endswith(".csv"):
            rows.to_csv(path, index=False)
        elif path.name.endswith(".jsonl"):
            rows.to_json(path, orient="records", lines=True, date_format="iso")
        else:
            message = f"{path}: the ending must be .csv, .parquet or .jsonl"
            raise ConfigError(message)
    except OSError as err:
        message = f"{path} cannot be written: {err.strerror or err}"
        raise ConfigError(message) from err
