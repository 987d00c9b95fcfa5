"""A project's own loading function: how flights arrived, as one of three classes or in minutes."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import pandas as pd

from configs.flights import _folder
from configs.flights import load as load_flights

if TYPE_CHECKING:
    from datetime import datetime


@lru_cache(maxsize=1)
def _delays() -> pd.Series:
    """Minutes after the scheduled arrival, by the number of the flight."""
    return pd.read_csv(_folder() / "flights.csv.zip", usecols=["arr_delay"])["arr_delay"]


def minutes(start: datetime, end: datetime) -> pd.DataFrame:
    """Return the flights with the delay in minutes."""
    flights = load_flights(start, end).drop(columns="late")
    return flights.assign(arr_delay=_delays().loc[flights["flight_id"]].to_numpy())


def classes(start: datetime, end: datetime) -> pd.DataFrame:
    """Return the flights with the name of a class: early, late or on time."""
    flights = minutes(start, end)
    delay = flights.pop("arr_delay")
    named = pd.cut(delay, [-1e9, -10, 14, 1e9], labels=["early", "on time", "late"])
    return flights.assign(arrival=named.astype(object).where(delay.notna()))
