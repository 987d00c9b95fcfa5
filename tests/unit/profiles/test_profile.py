from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from holdtrue.errors import DataError, MonitoringError
from holdtrue.profiles import Profile
from holdtrue.profiles._profile import spread

if TYPE_CHECKING:
    from pathlib import Path

MIDNIGHT = datetime(2024, 5, 1, tzinfo=UTC)


def _frame(n_rows: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "amount": np.where(rng.random(n_rows) < 0.1, np.nan, rng.normal(size=n_rows)),
            "city": rng.choice(["Rome", "Oslo", None], n_rows, p=[0.6, 0.3, 0.1]),
            "id": [f"id-{i}" for i in range(n_rows)],
        }
    )


def _take(frame: pd.DataFrame) -> Profile:
    return Profile.take(frame, ["amount"], ["city", "id"])


def test_a_profile_counts_what_is_there() -> None:
    frame = _frame(2_000)
    profile = _take(frame)
    assert profile.rows == 2_000
    assert profile.columns == ("amount", "city", "id")
    amount, city = profile.column("amount"), profile.column("city")
    assert amount is not None
    assert city is not None
    assert amount.missing == frame["amount"].isna().sum()
    assert city.levels == frame["city"].value_counts().to_dict()
    assert city.missing == frame["city"].isna().sum()
    assert city.buckets.sum() == city.present
    exact = spread(np.sort(frame["amount"].dropna().to_numpy()))
    below = np.searchsorted(np.sort(exact), amount.quantiles) / len(exact)
    np.testing.assert_allclose(below, np.linspace(0, 1, len(exact)), atol=0.01)


def test_too_many_labels_leave_the_buckets_exact() -> None:
    column = _take(_frame(2_000)).column("id")
    assert column is not None
    assert column.buckets.sum() == 2_000
    assert column.distinct == pytest.approx(2_000, rel=0.05)


def test_infinite_numbers_are_missing_and_counted() -> None:
    profile = Profile.take(pd.DataFrame({"x": [1.0, np.inf, -np.inf]}), ["x"], [])
    column = profile.column("x")
    assert column is not None
    assert column.missing == 2
    assert column.quantiles.max() == 1.0


def test_a_merged_profile_is_the_profile_of_the_whole() -> None:
    frame = _frame(3_000)
    whole = _take(frame)
    first, second = _take(frame[:1_000]), _take(frame[1_000:])
    before = first.serialize()
    merged = first.merge(second)
    assert first.serialize() == before
    assert merged.rows == whole.rows == 3_000
    for name in whole.columns:
        one, other = merged.column(name), whole.column(name)
        assert one is not None
        assert other is not None
        assert (one.rows, one.missing) == (other.rows, other.missing)
        np.testing.assert_array_equal(one.buckets, other.buckets)
        np.testing.assert_allclose(one.quantiles[20:-20], other.quantiles[20:-20], atol=0.1)
        if name == "city":
            assert one.levels == other.levels


def test_merging_joins_the_times() -> None:
    hour = timedelta(hours=1)
    parts = [
        Profile.take(
            _frame(10), ["amount"], [], start=MIDNIGHT + i * hour, end=MIDNIGHT + (i + 1) * hour
        )
        for i in (1, 0)
    ]
    merged = parts[0].merge(parts[1])
    assert (merged.start, merged.end) == (MIDNIGHT, MIDNIGHT + 2 * hour)
    assert parts[0].start == MIDNIGHT + hour


def test_written_and_read_back(tmp_path: Path) -> None:
    frame = _frame(500)
    profile = Profile.take(
        frame, ["amount"], ["city"], start=MIDNIGHT, end=MIDNIGHT + timedelta(days=1)
    )
    profile.write(tmp_path / "new" / "profile.bin")
    again = Profile.read(tmp_path / "new" / "profile.bin")
    assert (again.rows, again.start, again.end) == (profile.rows, profile.start, profile.end)
    assert again.summary() == profile.summary()
    assert again.merge(profile).rows == 1_000


@pytest.mark.parametrize("content", [b"", b"not a profile", b"WHY1", b"WHY1\x05abc"])
def test_a_damaged_profile_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "profile.bin"
    path.write_bytes(content)
    with pytest.raises(MonitoringError, match=r"profile\.bin"):
        Profile.read(path)


def test_a_cut_profile_is_refused() -> None:
    content = _take(_frame(500)).serialize()
    with pytest.raises(MonitoringError):
        Profile.deserialize(content[: len(content) // 2])


def test_a_lost_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MonitoringError, match="cannot be read"):
        Profile.read(tmp_path / "profile.bin")


@pytest.mark.parametrize("n_rows", [0, 1, 5])
def test_columns_without_a_value(n_rows: int) -> None:
    frame = pd.DataFrame({"x": [np.nan] * n_rows, "c": pd.Series([None] * n_rows, dtype=object)})
    profile = Profile.take(frame, ["x"], ["c"])
    profile = Profile.deserialize(profile.merge(profile).serialize())
    assert profile.rows == 2 * n_rows
    summary = profile.summary()
    assert summary["x"].quantiles == ()
    assert summary["c"].levels == {}
    assert summary["x"].missing == (1.0 if n_rows else 0.0)


def test_absent_columns_are_left_out_and_double_ones_refused() -> None:
    frame = _frame(10)
    assert Profile.take(frame, ["amount", "gone"], []).column("gone") is None
    with pytest.raises(DataError, match="occur twice"):
        Profile.take(pd.concat([frame, frame], axis=1), ["amount"], [])


def test_the_summary_has_201_quantiles_and_the_most_frequent_labels() -> None:
    summary = _take(_frame(1_000)).summary()
    assert len(summary["amount"].quantiles) == 201
    assert list(summary["city"].levels) == ["Rome", "Oslo"]
    assert summary["city"].distinct == pytest.approx(2, abs=0.01)
    assert summary["amount"].missing == pytest.approx(0.1, abs=0.03)


def test_nothing_goes_over_the_network() -> None:
    program = """
import os, sys
os.environ.pop("WHYLOGS_NO_ANALYTICS", None)
seen = []
sys.addaudithook(lambda event, args: seen.append(event) if event.startswith("socket.") else None)
import pandas as pd
from holdtrue.profiles import Profile
before = "whylogs" in sys.modules
Profile.deserialize(Profile.take(pd.DataFrame({"x": [1.0]}), ["x"], []).serialize())
import time
deadline = time.monotonic() + 1.0
while time.monotonic() < deadline:
    time.sleep(0.05)
reach = [e for e in seen if e in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname")]
print(before, reach)
"""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "False []"
