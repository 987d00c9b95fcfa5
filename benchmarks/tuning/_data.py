"""The rows that the searches are measured on: flights, and real sets that scikit-learn ships."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

ROWS = 50_000
JUDGED_SHARE = 0.2
_CARRIERS = 9
_FLOATS = [
    *("distance", "departure_minute", "arrival_minute", "weekday", "plane_age", "seats"),
    *("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust"),
    *("precip", "pressure", "visib"),
]


def flights(start: datetime, end: datetime) -> tuple[np.ndarray, np.ndarray]:
    """Flights that left in ``[start, end)`` and arrived, in order of time.

    Returns:
        shape (n_rows, 30) of float32, and shape (n_rows,): 1 where it was late, else 0.
    """
    from configs.flights import load

    frame = load(start, end)
    frame = frame[frame["late"].notna()].reset_index(drop=True)
    parts = [frame[_FLOATS].to_numpy(np.float32), _calendar(frame), _codes(frame)]
    return np.hstack(parts), frame["late"].to_numpy(np.float32)


def _calendar(frame: pd.DataFrame) -> np.ndarray:
    when = frame["scheduled_departure"].dt
    return np.column_stack([when.month, when.day]).astype(np.float32)


def _codes(frame: pd.DataFrame) -> np.ndarray:
    """Three airports, the commonest carriers and how common the destination is: 13 columns."""
    columns = [frame["origin"] == name for name in ("EWR", "JFK", "LGA")]
    commonest = frame["carrier"].value_counts().index[:_CARRIERS]
    columns += [frame["carrier"] == name for name in commonest]
    columns.append(frame["dest"].map(frame["dest"].value_counts(normalize=True)))
    return np.column_stack(columns).astype(np.float32)


def write_flights(path: Path, rows: int = ROWS) -> None:
    """Write a random sample of the year's flights, of which a fifth is for judging."""
    x, y = flights(datetime(2013, 1, 1, tzinfo=UTC), datetime(2014, 1, 1, tzinfo=UTC))
    chosen = np.random.default_rng(0).permutation(len(y))[:rows]
    judged = round(len(chosen) * JUDGED_SHARE)
    judge, fit = chosen[:judged], chosen[judged:]
    np.savez(path, fit_x=x[fit], fit_y=y[fit], judge_x=x[judge], judge_y=y[judge])


def read(path: Path | str) -> dict[str, np.ndarray]:
    """Read what `write_flights` has written."""
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}
