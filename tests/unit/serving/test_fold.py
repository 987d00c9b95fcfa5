from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from deltalake import DeltaTable, write_deltalake

from holdtrue.errors import DataError
from holdtrue.serving import (
    Folded,
    capture_places,
    captured_batches,
    fold_in,
    read_captured,
    some_answers,
)
from holdtrue.serving import _fold as module
from holdtrue.serving._capture import Capture
from holdtrue.serving._fold import find_captured
from holdtrue.store import Store

DIGEST = "0" * 32
START = datetime(2024, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def line(number: int, *, event_time: datetime | None = None, role: str = "champion") -> bytes:
    return orjson.dumps(
        {
            "id": f"id-{number}",
            "version": 3,
            "digest": DIGEST,
            "role": role,
            "received": START + timedelta(hours=number),
            "event_time": event_time,
            "key": {"b": number, "a": "x"},
            "row": None if role == "shadow" else {"distance": number, "carrier": None},
            "scores": [0.25, 0.75],
            "decided": "yes",
        }
    )


@pytest.fixture
def places(tmp_path):
    return capture_places(Store(tmp_path), "flights")


def write(folder, *lines: bytes) -> None:
    capture = Capture(folder)
    capture.append(lines)
    capture.close()


def ids(table) -> list[str]:
    return sorted(read_captured(table, START, START + 365 * DAY)["id"].to_pylist())


def test_what_was_captured_comes_in_tables_of_some_rows_each(places, monkeypatch):
    folder, table = places
    for first in range(0, 23, 4):  # a file for each
        write(folder, *(line(number % 24) for number in range(first, min(first + 4, 23))))
        fold_in(folder, table)
    monkeypatch.setattr(module, "_ROWS_AT_A_TIME", 6)
    found = [*captured_batches(table, START, START + DAY, columns=("id", "version"))]
    assert sorted(len(one) for one in found) == [7, 8, 8]
    assert [one.column_names for one in found] == [["id", "version"]] * 3
    assert sorted(name for one in found for name in one["id"].to_pylist()) == ids(table)
    assert len(ids(table)) == 23
    assert [*captured_batches(table, START + DAY, START + 2 * DAY)] == []


@pytest.mark.parametrize(
    ("most", "kept"),
    [(100, list(range(23))), (23, list(range(23))), (22, list(range(0, 23, 2))), (4, [0, 8, 16])],
)
def test_of_many_answers_some_are_taken_evenly(places, monkeypatch, most, kept):
    folder, table = places
    for number in range(23):  # a file for each, of which two are no answers of the version
        other = orjson.loads(line(number)) | {"id": "other", "version": 4}
        write(folder, line(number), orjson.dumps(other), line(number, role="shadow"))
        fold_in(folder, table)
    monkeypatch.setattr(module, "_ROWS_AT_A_TIME", 5)
    every, n_answers = some_answers(table, START, START + DAY, 3, "id", 100)
    assert n_answers == 23
    found, n_answers = some_answers(table, START, START + DAY, 3, "id", most)
    assert n_answers == 23
    assert found.to_pylist() == [every[place].as_py() for place in kept]
    assert some_answers(table, START, START + DAY, 5, "row", 10)[1] == 0


def test_nothing_captured_yet(places):
    folder, table = places
    assert fold_in(folder, table) == Folded()
    assert read_captured(table, START, START + DAY).num_rows == 0


def test_rows_come_back_as_they_were(places):
    folder, table = places
    write(folder, line(1), line(2))
    write(folder, line(3, event_time=START - DAY))
    assert fold_in(folder, table) == Folded(segments=2, rows=3)
    assert list(folder.iterdir()) == []
    found = read_captured(table, START, START + DAY)
    assert found.schema == module.schema()
    first = min(found.to_pylist(), key=lambda row: row["id"])
    assert first == {
        "id": "id-1",
        "version": 3,
        "digest": DIGEST,
        "role": "champion",
        "received": START + timedelta(hours=1),
        "event_time": None,
        "key": '{"a":"x","b":1}',
        "row": '{"distance":1,"carrier":null}',
        "scores": [0.25, 0.75],
        "decided": "yes",
    }


def test_what_a_shadow_scored_is_kept_and_is_no_answer(places):
    folder, table = places
    write(folder, line(1), line(1, role="shadow"), line(2, role="challenger"))
    fold_in(folder, table)
    found = read_captured(table, START, START + DAY)
    assert sorted(zip(found["id"].to_pylist(), found["role"].to_pylist(), strict=True)) == [
        ("id-1", "champion"),
        ("id-2", "challenger"),
    ]
    (shadow,) = read_captured(table, START, START + DAY, roles=["shadow"]).to_pylist()
    assert (shadow["id"], shadow["row"], shadow["scores"]) == ("id-1", None, [0.25, 0.75])


def test_a_table_of_an_older_version_is_read_and_goes_on(places):
    folder, table = places
    write(folder, line(1))
    fold_in(folder, table)
    old = read_captured(table, START, START + DAY).drop_columns(["role", "decided", "digest"])
    shutil.rmtree(table)
    write_deltalake(table, old)
    assert ids(table) == ["id-1"]
    write(folder, line(2))
    fold_in(folder, table)
    found = read_captured(table, START, START + DAY).sort_by("id")
    assert found["role"].to_pylist() == [None, "champion"]
    assert found["digest"].to_pylist() == [None, DIGEST]


def test_a_segment_of_an_older_version_is_read(places):
    folder, table = places
    old = orjson.loads(line(1))
    del old["digest"]
    write(folder, orjson.dumps(old), line(2))
    assert fold_in(folder, table) == Folded(segments=1, rows=2)
    found = read_captured(table, START, START + DAY).sort_by("id")
    assert found["digest"].to_pylist() == [None, DIGEST]


def test_one_prediction_is_found_wherever_it_is_on_its_way(places, monkeypatch):
    folder, table = places
    assert find_captured(folder, table, "id-1").num_rows == 0
    live = Capture(folder)
    live.append([line(1), line(1, role="shadow"), line(11)])

    def found() -> list[str]:
        answers = find_captured(folder, table, "id-1").to_pylist()
        assert {record["id"] for record in answers} <= {"id-1"}
        return sorted(record["role"] for record in answers)

    both = ["champion", "shadow"]
    assert found() == both  # in an open segment
    live.close()
    assert found() == both  # in a closed one
    with monkeypatch.context() as patch:
        patch.setattr(module, "_append", killed)
        with pytest.raises(Killed):
            fold_in(folder, table)
    assert found() == both  # in a batch that is not committed
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(Killed):
            fold_in(folder, table)
    assert found() == both  # in the batch and in the table
    fold_in(folder, table)
    assert found() == both  # in the table


def test_rows_are_on_the_disk_before_their_segments_are_removed(places, monkeypatch):
    folder, table = places
    write(folder, line(1))
    forced: list[str] = []
    fsync, rmtree = os.fsync, shutil.rmtree

    def record(descriptor: int) -> None:
        forced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def remove(batch):
        (added,) = table.glob("*.parquet")
        (commit,) = (table / "_delta_log").glob("*.json")
        assert {str(added), str(commit), str(table), str(commit.parent)} <= {*forced}
        rmtree(batch)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(shutil, "rmtree", remove)
    assert fold_in(folder, table).rows == 1


def test_a_window_is_half_open_and_follows_the_time_of_the_event(places):
    folder, table = places
    write(
        folder,
        line(1, event_time=START - DAY),
        line(2, event_time=START),
        line(3),
        line(4, event_time=START + DAY),
        line(24),
    )
    fold_in(folder, table)
    found = read_captured(table, START, START + DAY)
    assert sorted(found["id"].to_pylist()) == ["id-2", "id-3"]


def test_a_live_segment_waits_until_it_is_closed(places):
    folder, table = places
    live = Capture(folder)
    live.append([line(1)])
    assert fold_in(folder, table, wait_s=0).rows == 0
    live.append([line(2)])
    live.close()
    assert fold_in(folder, table).rows == 2


def test_an_orphan_with_a_torn_line_is_folded_without_that_line(places):
    folder, table = places
    folder.mkdir(parents=True)
    (folder / "0.jsonl.open").write_bytes(line(1) + b"\n" + line(2)[:-5])
    (folder / "1.jsonl").write_bytes(b"[]\n" + line(3) + b"\n")
    assert fold_in(folder, table) == Folded(segments=2, rows=2, damaged=2)
    assert ids(table) == ["id-1", "id-3"]


def test_a_segment_without_any_row_is_removed(places):
    folder, table = places
    folder.mkdir(parents=True)
    (folder / "1.jsonl").write_bytes(b"")
    assert fold_in(folder, table) == Folded(segments=1)
    assert list(folder.iterdir()) == []


class Killed(BaseException):
    pass


def killed(*args, **kwargs):
    raise Killed


@pytest.mark.parametrize(
    ("place", "name"),
    [(module, "_read"), (module, "_append"), (shutil, "rmtree")],
    ids=["before reading", "before the commit", "between the commit and the removal"],
)
def test_rows_are_folded_once_whenever_it_is_killed(places, monkeypatch, place, name):
    folder, table = places
    write(folder, line(0))
    fold_in(folder, table)
    write(folder, line(1), line(2))
    with monkeypatch.context() as patch:
        patch.setattr(place, name, killed)
        with pytest.raises(Killed):
            fold_in(folder, table)
    write(folder, line(3))
    fold_in(folder, table)
    fold_in(folder, table)
    assert ids(table) == ["id-0", "id-1", "id-2", "id-3"]
    assert [path.name for path in table.with_name(".table-batches").iterdir()] == ["lock"]


def test_killed_half_way_through_the_removal(places, monkeypatch):
    folder, table = places
    write(folder, line(1))
    write(folder, line(2))

    def half(batch):
        next(iter(batch.iterdir())).unlink()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half)
        with pytest.raises(Killed):
            fold_in(folder, table)
    assert fold_in(folder, table).rows == 0
    assert ids(table) == ["id-1", "id-2"]


def test_many_segments_are_folded_in_several_commits(places, monkeypatch):
    monkeypatch.setattr(module, "_SEGMENTS_PER_COMMIT", 2)
    folder, table = places
    for number in range(5):
        write(folder, line(number))
    assert fold_in(folder, table) == Folded(segments=5, rows=5)
    assert len(ids(table)) == 5
    log = (table / "_delta_log").glob("*.json")
    texts = [entry.read_text().splitlines() for entry in log]
    numbers = [
        json.loads(row)["txn"]["version"] for rows in texts for row in rows if '"txn"' in row
    ]
    assert sorted(numbers) == [0, 1, 2]


def test_a_damaged_table_is_told_and_what_is_captured_waits_for_its_repair(places):
    folder, table = places
    write(folder, line(1))
    fold_in(folder, table)
    commit = max((table / "_delta_log").glob("*.json"))
    before = commit.read_bytes()
    commit.write_bytes(b"")  # Delta would take it for a commit that changed nothing
    write(folder, line(2))
    for ask in (lambda: fold_in(folder, table), lambda: ids(table)):
        with pytest.raises(DataError, match=f"{commit.name} is empty"):
            ask()
    commit.write_bytes(before)
    assert fold_in(folder, table).rows == 1
    assert ids(table) == ["id-1", "id-2"]


def test_an_empty_commit_behind_a_checkpoint_is_of_no_account_to_the_newest_version(places):
    folder, table = places
    for number in range(3):
        write(folder, line(number))
        fold_in(folder, table)
    log = table / "_delta_log"
    first, _, last = sorted(log.glob("*.json"))
    DeltaTable(table).create_checkpoint()
    first.write_bytes(b"")
    assert ids(table) == ["id-0", "id-1", "id-2"]
    write(folder, line(3))
    fold_in(folder, table)
    newest = max(log.glob("*.json"))
    assert newest > last
    newest.write_bytes(b"")
    with pytest.raises(DataError, match=f"{newest.name} is empty"):
        ids(table)
