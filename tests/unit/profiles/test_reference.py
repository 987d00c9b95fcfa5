from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from holdtrue.declaration._values import Rate
from holdtrue.errors import DataError, MonitoringError
from holdtrue.monitoring import compare
from holdtrue.profiles import (
    CALIBRATION_FILE,
    PROFILE_FILE,
    SUMMARY_FILE,
    Calibration,
    Profile,
    reference,
    until_event,
)

if TYPE_CHECKING:
    from pathlib import Path

    from holdtrue.references import ColumnSummary

MONTHLY = Rate(1, timedelta(days=30))


def _frame(n_days: int = 40, each: int = 300, seed: int = 0, drift: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n_rows = n_days * each
    day = np.repeat(np.arange(n_days), each)
    # With drift, the days' means wander: neighbours are alike, as with weather.
    walk = np.cumsum(rng.normal(0, drift, n_days)) if drift else np.zeros(n_days)
    return pd.DataFrame(
        {
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(day, unit="D"),
            "x": rng.normal(walk[day], 1.0),
            "c": rng.choice(["a", "b", "c"], n_rows),
            "id": [f"{i}" for i in range(n_rows)],
        }
    )


def _reference(
    frame: pd.DataFrame,
    folder: Path,
    *,
    time: bool = True,
    numeric: tuple[str, ...] = ("x",),
    categorical: tuple[str, ...] = ("c", "id"),
) -> tuple[str, int, dict[str, ColumnSummary]]:
    return reference(
        frame,
        frame["when"] if time else None,
        numeric,
        categorical,
        window=timedelta(days=1),
        false_alarms=MONTHLY,
        folder=folder,
        seed=0,
    )


def test_the_files_say_the_same(tmp_path: Path) -> None:
    frame = _frame()
    digest, blocks, columns = _reference(frame, tmp_path)
    assert len(digest) == 32
    assert blocks == 40
    calibration = Calibration.read(tmp_path)
    assert (calibration.rows, calibration.blocks, calibration.block_rows) == (12_000, 40, 300)
    assert calibration.by_time
    assert 0 < calibration.expected_alarms <= 1
    assert Profile.read(tmp_path / PROFILE_FILE).rows == 12_000
    written = json.loads((tmp_path / SUMMARY_FILE).read_text())
    assert set(written) == set(columns) == {"x", "c", "id"}
    assert columns["c"].levels == frame["c"].value_counts().to_dict()
    assert columns["id"].distinct == 12_000
    x, c, many = calibration.columns
    assert len(x.quantiles) == 401
    assert c.levels == columns["c"].levels
    assert many.levels is None
    assert sum(many.buckets) == 12_000
    assert set(many.effects) == {"levels", "missing"}


def test_equal_rows_give_an_equal_digest(tmp_path: Path) -> None:
    frame = _frame()
    assert _reference(frame, tmp_path / "a")[0] == _reference(frame, tmp_path / "b")[0]
    other = frame.assign(x=frame["x"] + 1e-9)
    assert _reference(other, tmp_path / "c")[0] != _reference(frame, tmp_path / "a")[0]


def test_without_a_time_blocks_are_random(tmp_path: Path) -> None:
    _, blocks, _ = _reference(_frame(), tmp_path, time=False)
    assert blocks == 400
    assert not Calibration.read(tmp_path).by_time


def test_days_that_depend_on_each_other_widen_the_limits(tmp_path: Path) -> None:
    _reference(_frame(), tmp_path / "calm")
    _reference(_frame(drift=0.2), tmp_path / "restless")
    calm, restless = (Calibration.read(tmp_path / name) for name in ("calm", "restless"))
    bounds = [
        one.columns[0].effects["location"].invert("location", one.suspect_limit)
        for one in (calm, restless)
    ]
    assert bounds[1] > 3 * bounds[0]


def test_columns_without_a_value_and_constants(tmp_path: Path) -> None:
    frame = _frame().assign(empty=np.nan, same=5.0)
    _reference(frame, tmp_path, numeric=("x", "empty", "same"))
    empty = Calibration.read(tmp_path).columns[1]
    assert empty.may_be_empty
    assert empty.quantiles == ()


@pytest.mark.parametrize("n_rows", [2, 10, 150])
def test_few_rows_are_a_reference_too(tmp_path: Path, n_rows: int) -> None:
    _reference(_frame()[:n_rows], tmp_path)
    assert Calibration.read(tmp_path).rows == n_rows


def test_what_cannot_be_a_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MonitoringError, match="cannot be a reference"):
        _reference(_frame()[:1], tmp_path)
    with pytest.raises(DataError, match="gone"):
        _reference(_frame(), tmp_path, numeric=("gone",))
    with pytest.raises(DataError, match="when"):
        _reference(_frame().assign(when="yesterday evening"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_calibration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MonitoringError, match="cannot be read"):
        Calibration.read(tmp_path)
    (tmp_path / CALIBRATION_FILE).write_text("{}")
    with pytest.raises(MonitoringError, match="damaged"):
        Calibration.read(tmp_path)


def test_times_that_go_on_are_no_drift_and_those_that_do_not_are(tmp_path: Path) -> None:
    frame = _frame(n_days=100)
    rng = np.random.default_rng(1)
    event = frame["when"].dt.tz_localize("UTC")
    booked = event - pd.to_timedelta(rng.exponential(30.0, len(frame)), unit="D")
    frame = until_event(frame.assign(booked=booked), ["booked"], event)
    days = frame["booked"].dt.total_seconds() / 86_400
    assert 29 < days.mean() < 31
    past = frame[frame["when"] < "2024-02-10"]
    _reference(past, tmp_path, numeric=("booked",), categorical=("c",))
    calibration = Calibration.read(tmp_path)
    for start in pd.date_range("2024-03-20", periods=10, tz="UTC"):
        day = frame[event.between(start, start + pd.Timedelta("1D"), inclusive="left")]
        profile = Profile.take(day, ["booked"], ["c"])
        begin = start.to_pydatetime()
        check = compare(calibration, profile, begin, begin + timedelta(days=1), 0)
        assert check.state == "quiet"
        halved = Profile.take(day.assign(booked=day["booked"] / 2), ["booked"], ["c"])
        check = compare(calibration, halved, begin, begin + timedelta(days=1), 0)
        assert check.state == "suspect"
