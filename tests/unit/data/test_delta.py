from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from deltalake import write_deltalake

from holdtrue.data import check_source, fingerprint, read_source
from holdtrue.declaration import Data
from holdtrue.errors import ConfigError, DataError, NoSourceError

START = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)
END = dt.datetime(2024, 1, 4, tzinfo=dt.UTC)


def declare(time: str | None = "at", **delta: Any) -> Data:
    source = {"delta": {"table": "lake/orders"} | delta}
    return Data.model_validate({"source": source, "target": "y", "time": time})


def rows(first: int, *, zone: str | None = "UTC", **more: Any) -> pd.DataFrame:
    at = pd.date_range(f"2024-01-0{first}", periods=2, tz=zone).astype(
        "datetime64[us]" if zone is None else f"datetime64[us, {zone}]"
    )
    return pd.DataFrame({"at": at, "x": [first, first + 1], "y": [0, 1]} | more)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    table = str(tmp_path / "lake" / "orders")
    write_deltalake(table, rows(1))
    write_deltalake(table, rows(3), mode="append")
    return tmp_path


def test_the_newest_version_is_read(project: Path) -> None:
    assert read_source(declare(), project, None, None)["x"].to_pylist() == [1, 2, 3, 4]
    untimed = read_source(declare(time=None), project, START, END)
    assert sorted(untimed["x"].to_pylist()) == [1, 2, 3, 4]


def test_a_version_may_be_named(project: Path) -> None:
    assert read_source(declare(version=0), project, None, None)["x"].to_pylist() == [1, 2]


@pytest.mark.parametrize("zone", ["UTC", None])
def test_only_the_window_is_read(tmp_path: Path, zone: str | None) -> None:
    table = str(tmp_path / "lake" / "orders")
    write_deltalake(table, rows(1, zone=zone))
    write_deltalake(table, rows(3, zone=zone), mode="append")
    undated = rows(5, zone=zone).assign(
        at=pd.Series([pd.NaT, pd.NaT], dtype=rows(5, zone=zone)["at"].dtype)
    )
    write_deltalake(table, undated, mode="append")
    table_read = read_source(declare(), tmp_path, START, END)
    assert table_read["x"].to_pylist() == [2, 3, 5, 6]  # what has no time is for the contract
    assert read_source(declare(), tmp_path, START, None)["x"].to_pylist() == [2, 3, 4, 5, 6]


def test_a_time_as_text_is_read_too(tmp_path: Path) -> None:
    frame = rows(1).assign(at=["2024-01-01T00:00:00", "2024-01-02T00:00:00"])
    write_deltalake(str(tmp_path / "lake" / "orders"), frame)
    assert read_source(declare(), tmp_path, START, END)["x"].to_pylist() == [2]


def test_a_new_version_is_a_change_of_the_source(project: Path) -> None:
    before = fingerprint(declare().source, project)
    assert fingerprint(declare().source, project) == before
    write_deltalake(str(project / "lake" / "orders"), rows(5), mode="append")
    assert fingerprint(declare().source, project) != before
    assert fingerprint(declare(version=0).source, project) == {"version": "0"}


def test_what_is_not_there_is_refused(project: Path) -> None:
    with pytest.raises(NoSourceError, match=r"there is no Delta table at .*nothing"):
        check_source(declare(table="nothing").source, project)
    with pytest.raises(ConfigError, match="has no version 7"):
        check_source(declare(version=7).source, project)


def test_a_damaged_table_is_told(project: Path) -> None:
    for file in (project / "lake" / "orders").glob("*.parquet"):
        file.write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"the Delta table .*lake/orders cannot be read"):
        read_source(declare(), project, None, None)
