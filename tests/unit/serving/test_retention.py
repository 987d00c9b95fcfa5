from __future__ import annotations

import fcntl
import os
import time
from datetime import UTC, datetime, timedelta
from threading import Thread

import orjson
import pytest
from deltalake import DeltaTable

from holdtrue.serving import _retention as module
from holdtrue.serving import capture_places, fold_in, read_captured
from holdtrue.serving._capture import Capture
from holdtrue.serving._retention import remove_old
from holdtrue.store import Store

START = datetime(2024, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
FAR = START + 1_000 * DAY


@pytest.fixture
def places(tmp_path):
    return capture_places(Store(tmp_path), "flights")


def fill(places, received, event_times=None) -> None:
    """Fold in one row for each day that it was received."""
    folder, table = places
    for number, day in enumerate(received):
        event = None if event_times is None else event_times[number]
        line = {
            "id": f"id-{day}",
            "version": 3,
            "role": "champion",
            "received": START + day * DAY,
            "event_time": None if event is None else START + event * DAY,
            "key": {},
            "row": {"x": number},
            "scores": [1.0],
            "decided": None,
        }
        capture = Capture(folder)
        capture.append([orjson.dumps(line)])
        capture.close()
    fold_in(folder, table)


def left(table) -> list[int]:
    found = read_captured(table, START - 900 * DAY, FAR)
    return sorted(int(name.removeprefix("id-")) for name in found["id"].to_pylist())


def test_nothing_was_captured_yet(places):
    assert remove_old(places[1], FAR, FAR) == 0


def test_older_rows_go_and_the_moment_itself_stays(places):
    fill(places, range(6))
    assert remove_old(places[1], START + 3 * DAY, FAR) == 3
    assert left(places[1]) == [3, 4, 5]


def test_a_row_that_a_decision_still_needs_stays_however_old_it_is(places):
    fill(places, range(4), event_times=[0, 20, None, 1])
    assert remove_old(places[1], FAR, needed_from=START + 2 * DAY) == 2
    assert left(places[1]) == [1, 2]


def test_nothing_to_remove_makes_no_version(places):
    fill(places, range(3))
    version = DeltaTable(places[1]).version()
    assert remove_old(places[1], START, FAR) == 0
    assert DeltaTable(places[1]).version() == version


def test_what_was_folded_stays_known_so_that_no_row_comes_twice(places):
    _, table = places
    fill(places, range(3))
    remove_old(table, START + 2 * DAY, FAR)
    fill(places, [7])
    assert left(table) == [2, 7]
    assert DeltaTable(table).transaction_version("holdtrue.capture") == 1


def test_the_content_leaves_the_disk_a_day_later(places, monkeypatch):
    _, table = places
    fill(places, [0])
    fill(places, [9])
    assert remove_old(table, START + DAY, FAR) == 1
    assert len(list(table.glob("*.parquet"))) == 2  # somebody may be reading it
    monkeypatch.setattr(module, "_VACUUM_AFTER_H", 0)
    time.sleep(0.01)
    assert remove_old(table, START + DAY, FAR) == 0
    assert len(list(table.glob("*.parquet"))) == 1
    assert left(table) == [9]


def test_many_small_files_become_few(places, monkeypatch):
    monkeypatch.setattr(module, "_MANY_FILES", 3)
    for day in range(5):
        fill(places, [day])
    assert remove_old(places[1], START, FAR) == 0
    assert len(DeltaTable(places[1]).file_uris()) == 1
    assert left(places[1]) == [0, 1, 2, 3, 4]


def test_a_fold_and_a_removal_wait_for_each_other(places):
    _, table = places
    fill(places, [0])
    lock = os.open(table.with_name(".table-batches") / "lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    done: list[int] = []
    worker = Thread(target=lambda: done.append(remove_old(table, FAR, FAR)))
    worker.start()
    worker.join(0.3)
    assert done == []
    os.close(lock)
    worker.join(30)
    assert done == [1]
