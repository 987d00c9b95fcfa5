from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from configs import flights
from holdtrue import load

DECLARATION = Path(__file__).parents[3] / "configs" / "flights.yaml"
# Columns of the raw table that are known only once the flight has left.
AFTERWARDS = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"]
START = dt.datetime(2013, 2, 1, tzinfo=dt.UTC)
END = dt.datetime(2013, 2, 8, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return flights.load(START, END)


def test_the_declared_columns_exist(rows: pd.DataFrame) -> None:
    declared = load(DECLARATION).declaration
    features = {*declared.features.numeric, *declared.features.categorical}
    assert features <= set(rows)
    assert {declared.data.target, declared.data.time, *declared.data.key} <= set(rows)
    # What is not a feature is the target, the time or the key.
    assert set(rows) - features == {"flight_id", "scheduled_departure", "late"}


def test_no_feature_is_known_only_after_departure(rows: pd.DataFrame) -> None:
    features = load(DECLARATION).declaration.features
    assert set(AFTERWARDS).isdisjoint({*features.numeric, *features.categorical})
    raw = pd.read_csv(flights._folder() / "flights.csv.zip", usecols=AFTERWARDS)
    known = raw.loc[rows["flight_id"]].reset_index(drop=True)
    for name in features.numeric:
        for late in ("dep_delay", "arr_delay"):
            # A strong order between a feature and a delay would be a delay in disguise.
            assert abs(rows[name].corr(known[late], method="spearman")) < 0.5, (name, late)
        for actual in AFTERWARDS:
            assert not rows[name].astype(float).equals(known[actual].astype(float))


def test_features_do_not_depend_on_what_happened(
    rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read the raw flights with everything that happened shuffled: only `late` may change."""
    real = pd.read_csv

    def shuffled(path: Path, *arguments: object, **options: object) -> pd.DataFrame:
        frame = real(path, *arguments, **options)
        if path.name == "flights.csv.zip":
            order = np.random.default_rng(0).permutation(len(frame))
            frame[AFTERWARDS] = frame[AFTERWARDS].to_numpy()[order]
        return frame

    monkeypatch.setattr(flights.pd, "read_csv", shuffled)
    made_anew = flights._flights.__wrapped__()
    when = made_anew["scheduled_departure"]
    inside = (when >= START.replace(tzinfo=None)) & (when < END.replace(tzinfo=None))
    other = made_anew[inside].reset_index(drop=True)
    pd.testing.assert_frame_equal(other.drop(columns="late"), rows.drop(columns="late"))
    assert not other["late"].equals(rows["late"])


def test_only_the_window_is_returned_in_order_of_time(rows: pd.DataFrame) -> None:
    when = rows["scheduled_departure"]
    assert when.is_monotonic_increasing
    assert when.min() >= START.replace(tzinfo=None)
    assert when.max() < END.replace(tzinfo=None)
    assert len(rows) > 5_000
    assert rows["flight_id"].is_unique
    before = flights.load(START - dt.timedelta(days=1), START)
    assert before["scheduled_departure"].max() < when.min()
    assert len(flights.load(START, START)) == 0


def test_a_cancelled_flight_has_no_label(rows: pd.DataFrame) -> None:
    raw = pd.read_csv(flights._folder() / "flights.csv.zip", usecols=["arr_delay"])
    delay = raw["arr_delay"].loc[rows["flight_id"]].reset_index(drop=True)
    assert rows["late"].isna().equals(delay.isna())
    assert 0 < delay.isna().mean() < 0.2
    known = delay.notna()
    assert (rows.loc[known, "late"] == (delay[known] >= 15)).all()


def test_every_flight_is_there_once(rows: pd.DataFrame) -> None:
    year = flights.load(
        dt.datetime(2013, 1, 1, tzinfo=dt.UTC), dt.datetime(2014, 1, 1, tzinfo=dt.UTC)
    )
    assert len(year) == 336_776
    assert rows["temp"].notna().mean() > 0.95
