from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from holdtrue.data import as_table, is_removed, load_snapshot, take_snapshot
from holdtrue.data._snapshots import table_digest
from holdtrue.errors import DataError
from holdtrue.references import Snapshot
from holdtrue.store import Store

START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def frame() -> pd.DataFrame:
    n = 50
    return pd.DataFrame(
        {
            "whole": pd.array([None, *range(n - 1)], dtype="Int64"),
            "number": [np.nan, *np.linspace(0, 1, n - 1)],
            "text": [None, *[f"é{i % 7}" for i in range(n - 1)]],
            "flag": pd.array([None, *[i % 2 == 0 for i in range(n - 1)]], dtype="boolean"),
            "at": pd.date_range("2024-01-01", periods=n, freq="h"),
        }
    )


def take(store: Store, frame: pd.DataFrame, system: str = "small") -> Snapshot:
    return take_snapshot(store, system, as_table(frame, "rows"), START, None)


def test_types_and_values_come_back(store: Store, frame: pd.DataFrame) -> None:
    snapshot = take(store, frame)
    assert (snapshot.rows, snapshot.start, snapshot.end) == (50, START, None)
    back = load_snapshot(store, snapshot)
    wanted = frame.assign(at=frame["at"].dt.tz_localize("UTC").astype("datetime64[us, UTC]"))
    pd.testing.assert_frame_equal(back, wanted.astype({"text": "str"}))
    assert dict(snapshot.columns) == {
        "whole": "integer",
        "number": "number",
        "text": "string",
        "flag": "boolean",
        "at": "time",
    }


def test_the_same_content_makes_no_new_version(store: Store, frame: pd.DataFrame) -> None:
    first = take(store, frame)
    files = sorted(store.root.rglob("*"))
    assert take(store, frame.copy()) == first
    assert sorted(store.root.rglob("*")) == files


def test_one_changed_value_makes_a_new_version_and_the_old_one_stays(
    store: Store, frame: pd.DataFrame
) -> None:
    first = take(store, frame)
    changed = frame.copy()
    changed.loc[7, "number"] += 1e-12
    second = take(store, changed)
    assert (first.version, second.version) == (0, 1)
    assert first.digest != second.digest
    assert load_snapshot(store, first)["number"][7] == frame["number"][7]
    assert load_snapshot(store, second)["number"][7] == changed["number"][7]
    assert take(store, frame) == first  # the old content is found again


def test_other_columns_are_a_new_version(store: Store, frame: pd.DataFrame) -> None:
    first = take(store, frame)
    second = take(store, frame.drop(columns="text").astype({"whole": "float64"}))
    assert second.version == 1
    assert list(load_snapshot(store, second)) == ["whole", "number", "flag", "at"]
    assert list(load_snapshot(store, first)) == list(frame)


def test_systems_have_tables_of_their_own(store: Store, frame: pd.DataFrame) -> None:
    assert take(store, frame, "a").table != take(store, frame, "b").table


def test_the_order_of_many_rows_is_kept(store: Store) -> None:
    table = as_table(pd.DataFrame({"i": np.arange(300_000)}), "rows")
    back = load_snapshot(store, take_snapshot(store, "small", table, None, None))
    assert (back["i"].to_numpy() == np.arange(300_000)).all()


def test_the_digest_does_not_depend_on_chunks(frame: pd.DataFrame) -> None:
    table = as_table(frame, "rows")
    parts = pa.concat_tables([table.slice(0, 13), table.slice(13, 1), table.slice(14)])
    assert parts["text"].num_chunks == 3
    assert table_digest(parts) == table_digest(table)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.rename(columns={"text": "words"}),
        lambda f: f[["number", "whole", "text", "flag", "at"]],
        lambda f: f.iloc[::-1],
        lambda f: f.iloc[1:],
        lambda f: f.assign(flag=f["flag"].fillna(value=False)),
        lambda f: f.assign(whole=f["whole"].astype("float64")),
        lambda f: f.assign(at=f["at"] + pd.Timedelta(1, "us")),
    ],
)
def test_the_digest_changes_with_names_kinds_order_and_values(change, frame: pd.DataFrame) -> None:
    assert table_digest(as_table(change(frame), "x")) != table_digest(as_table(frame, "x"))


@pytest.mark.parametrize(
    ("damage", "what", "why"),
    [
        ("commit", lambda path: path.write_bytes(b""), "00000000000000000001.json is empty"),
        ("commit", lambda path: path.write_bytes(path.read_bytes()[:300]), "damaged: "),
        ("part", lambda path: path.unlink(), "damaged: "),
        ("part", lambda path: path.write_bytes(path.read_bytes()[:200]), "damaged: "),
    ],
)
def test_a_damaged_table_is_told(
    store: Store, frame: pd.DataFrame, damage: str, what: Callable[[Path], None], why: str
) -> None:
    first = take(store, frame)
    known = set(store.path(first.table).glob("*.parquet"))
    second = take(store, frame.assign(number=2.0))
    table = store.path(second.table)
    files = {
        "commit": table / "_delta_log" / f"{second.version:020}.json",
        "part": next(path for path in table.glob("*.parquet") if path not in known),
    }
    what(files[damage])
    with pytest.raises(DataError, match=why) as told:
        load_snapshot(store, second)
    assert str(table) in str(told.value)
    assert "restore" in str(told.value)
    if damage == "part":
        assert len(load_snapshot(store, first)) == len(frame)
    else:
        with pytest.raises(DataError, match="damaged: "):
            take(store, frame)


def test_other_rows_than_were_written_are_told(store: Store, frame: pd.DataFrame) -> None:
    snapshot = take(store, frame)
    other = take(store, frame.assign(number=2.0))
    with pytest.raises(DataError, match="version 1 holds other rows than were written"):
        load_snapshot(store, snapshot.model_copy(update={"version": other.version}))


def test_old_versions_can_be_read_however_many_come_after(
    store: Store, frame: pd.DataFrame
) -> None:
    first = take(store, frame)
    table, log = store.path(first.table), store.path(first.table, "_delta_log")
    for _ in range(97):
        write_deltalake(table, as_table(frame, "rows"), mode="overwrite")
    for number in range(3):  # Delta tidies up after each hundred
        for commit in log.glob("*.json"):
            os.utime(commit, (1e9, 1e9))
        take(store, frame.assign(number=float(number)))
    assert (log / f"{99:020}.checkpoint.parquet").exists()
    pd.testing.assert_series_equal(load_snapshot(store, first)["number"], frame["number"])


@pytest.mark.parametrize("folder", ["store", "a störe"])
def test_content_whose_rows_were_removed_is_written_again(
    tmp_path: Path, frame: pd.DataFrame, folder: str
) -> None:
    store = Store(tmp_path / folder)
    first = take(store, frame)
    second = take(store, frame.assign(number=2.0))
    assert not is_removed(store, first)
    table = DeltaTable(store.path(first.table))
    table.vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert is_removed(store, first)
    assert not is_removed(store, second)
    again = take(store, frame)
    assert again.version > second.version
    assert len(load_snapshot(store, again)) == len(frame)


def test_files_that_are_lost_were_not_removed_on_purpose(store: Store, frame: pd.DataFrame) -> None:
    first = take(store, frame)
    next(store.path(first.table).glob("*.parquet")).unlink()
    assert not is_removed(store, first)
    table = DeltaTable(store.path(first.table))
    table.vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert not is_removed(store, first)  # the newest version has that file, too


def test_other_columns_than_were_written_are_told(store: Store, frame: pd.DataFrame) -> None:
    snapshot = take(store, frame)
    commit = store.path(snapshot.table, "_delta_log", f"{0:020}.json")
    commit.write_text(commit.read_text().replace('name\\":\\"text', 'name\\":\\"texs'))
    with pytest.raises(DataError, match="version 0 holds other columns than were written"):
        load_snapshot(store, snapshot)
