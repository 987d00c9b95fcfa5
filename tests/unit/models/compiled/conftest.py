from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import pytest

from holdtrue.models import Signature, from_columns, from_rows, pipeline, scores
from holdtrue.models.compiled import compile_pipeline

N = 500
COLUMNS = {
    "whole": "integer",
    "number": "number",
    "flag": "boolean",
    "text": "string",
    "code": "integer",
    "level": "number",
    "mark": "boolean",
    "day": "time",
}
CLASSES = {"two": ("no", "yes"), "three": ("a", "b", "c"), "value": None}


def make_records(n: int, seed: int) -> list[dict[str, Any]]:
    """Rows as a client sends them: gaps in every column, rare categories in some."""
    random = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {
        "whole": random.integers(0, 50, n).tolist(),
        "number": random.normal(3.0, 2.0, n).tolist(),
        "flag": (random.random(n) > 0.5).tolist(),
        "text": random.choice(
            ["a", "b", "é", "rare", "1"], n, p=[0.5, 0.3, 0.15, 0.01, 0.04]
        ).tolist(),
        "code": random.integers(1, 5, n).tolist(),
        "level": random.choice([1.0, 2.0, 2.5], n).tolist(),
        "mark": (random.random(n) > 0.3).tolist(),
        "day": times(random, n),
    }
    for values in columns.values():
        for row in np.flatnonzero(random.random(n) < 0.06):
            values[row] = None
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def times(random: np.random.Generator, n: int) -> list[str]:
    """Times as clients write them: with offsets and without, to the microsecond or only the day."""
    seconds = random.integers(1_600_000_000, 1_735_000_000, n)
    texts = [datetime.fromtimestamp(int(s), UTC).isoformat() for s in seconds]
    endings = random.choice(["", "Z", "+05:30", ".25", ".000001-08:00", "day"], n)
    return [
        text[:10] if ending == "day" else text[:19] + ending
        for text, ending in zip(texts, endings, strict=True)
    ]


def columns_of(records: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [record[name] for record in records] for name in records[0]}


@cache
def fitted(path: str, params: tuple[tuple[str, Any], ...], task: str) -> Any:
    """A fitted pipeline, its signature, and the records that it was fitted on."""
    classes = CLASSES[task]
    signature = Signature(
        target="y",
        task="regression" if classes is None else "classification",
        classes=classes,
        columns=COLUMNS,
        categorical=("text", "code", "level", "mark"),
    )
    records = make_records(N, 0)
    number = np.array([record["number"] or 0.0 for record in records])
    whole = np.array([record["whole"] or 0 for record in records])
    text = np.array([record["text"] == "a" for record in records])
    month = np.array([int((record["day"] or "2024-06")[5:7]) for record in records])
    value = number + 0.1 * whole + 2 * text + 0.3 * abs(month - 6)
    value += np.random.default_rng(1).normal(size=N)
    if classes is None:
        target = value - value.min() + 1.0
    else:
        edges = np.quantile(value, np.linspace(0, 1, len(classes) + 1)[1:-1])
        target = np.searchsorted(edges, value)
    made = pipeline(path, dict(params), signature, seed=0, threads=1)
    return made.fit(from_rows(records, signature), target), signature, records


class Case:
    """A fitted pipeline and what it was compiled to."""

    def __init__(self, path: str, task: str, **params: Any) -> None:
        self.pipeline, self.signature, self.records = fitted(
            path, tuple(sorted(params.items())), task
        )
        self.compiled = compile_pipeline(self.pipeline, self.signature)

    @property
    def columns(self) -> dict[str, list[Any]]:
        return columns_of(self.records)

    def predict(self, columns: Any) -> np.ndarray:
        return scores(self.pipeline, self.signature, from_columns(columns, self.signature))


@pytest.fixture(scope="session")
def case() -> Any:
    return Case


@pytest.fixture(scope="session")
def new_records() -> list[dict[str, Any]]:
    """Rows that no pipeline was fitted on, with categories that none has seen."""
    records = make_records(300, 7)
    for number, record in enumerate(records[:60]):
        record["text"] = f"new {number % 3}"
        record["code"] = 99
        record["level"] = 7.25
        record["day"] = "2030-01-01"
    return records
