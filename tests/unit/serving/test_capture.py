from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import psutil
import pytest

from holdtrue.serving._capture import (
    MAX_AGE_S,
    MAX_ROWS,
    Capture,
    ask_to_close,
    is_orphan,
    new_ids,
    time_of,
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def names(folder):
    return sorted(path.name.partition(".")[2] for path in folder.iterdir())


def test_ids_are_unique_version_7_and_sorted_by_time():
    first, second = new_ids(1_000), new_ids(1)
    assert len({*first}) == 1_000
    assert {(UUID(name).version, UUID(name).variant) for name in first} == {
        (7, "specified in RFC 4122")
    }
    assert first[0][:13] <= second[0][:13]


def test_ids_that_are_made_singly_are_unique_too_in_threads_and_after_a_fork():
    with ThreadPoolExecutor(4) as threads:
        found = [*threads.map(lambda _: new_ids(1)[0], range(4_000))]
    # One write for each, and the parent's after the child has ended.
    script = (
        "import os; from holdtrue.serving._capture import new_ids; new_ids(1); child = os.fork();"
        "child and os.waitpid(child, 0); os.write(1, new_ids(1)[0][14:].encode() + b'\\n');"
        "os._exit(0)"
    )
    command = [sys.executable, "-c", script]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    child, parent = subprocess.run(  # noqa: S603
        command, env=env, check=True, capture_output=True
    ).stdout.split()
    assert parent != child
    assert len({*found}) == len(found)
    assert {(len(name), UUID(name).version, UUID(name).variant) for name in found} == {
        (36, 7, "specified in RFC 4122")
    }


def test_an_id_tells_when_it_was_made():
    before = time.time()
    made = time_of(new_ids(1)[0])
    assert before - 0.001 <= made <= time.time()
    for text in ("", "flight 12", "018f3c2e-0000-4000-8000-000000000000", "z" * 36):
        assert time_of(text) is None


def test_a_segment_is_closed_by_age_without_traffic(tmp_path):
    clock = Clock()
    capture = Capture(tmp_path / "new", clock=clock)
    capture.append([b"1", b"2"])
    clock.now += MAX_AGE_S - 1
    capture.close_if_due()
    assert names(tmp_path / "new") == ["jsonl.open"]
    clock.now += 1
    capture.close_if_due()
    capture.close_if_due()
    assert names(tmp_path / "new") == ["jsonl"]
    assert [path.read_bytes() for path in (tmp_path / "new").iterdir()] == [b"1\n2\n"]


def test_a_segment_is_closed_when_full_and_another_is_opened(tmp_path):
    capture = Capture(tmp_path)
    capture.append([b"x"] * MAX_ROWS)
    capture.append([b"y"])
    assert names(tmp_path) == ["jsonl", "jsonl.open"]
    capture.close()
    assert names(tmp_path) == ["jsonl", "jsonl"]
    assert capture.written == MAX_ROWS + 1


def test_nothing_to_write_opens_nothing(tmp_path):
    Capture(tmp_path).append([])
    assert names(tmp_path) == []


def test_a_failure_is_counted_and_the_next_row_tries_again(tmp_path):
    folder = tmp_path / "segments"
    folder.write_text("in the way")
    capture = Capture(folder)
    capture.append([b"1", b"2"])
    assert (capture.written, capture.failed) == (0, 2)
    assert "segments" in capture.last_error
    folder.unlink()
    capture.append([b"3"])
    capture.close()
    assert (capture.written, capture.failed) == (1, 2)


def test_half_a_line_is_taken_back(tmp_path, monkeypatch):
    capture = Capture(tmp_path)
    capture.append([b"whole"])
    write, calls = os.write, []

    def full_disk(descriptor, content):
        calls.append(content)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return write(descriptor, bytes(content[:3]))

    monkeypatch.setattr(os, "write", full_disk)
    capture.append([b"half of it"])
    monkeypatch.undo()
    (segment,) = tmp_path.iterdir()
    assert segment.read_bytes() == b"whole\n"
    assert segment.suffix == ".jsonl"
    assert capture.last_error == f"No space left on device: {tmp_path}"


def test_a_killed_writer_leaves_an_orphan_with_all_its_rows(tmp_path):
    script = (
        "import sys, time; from pathlib import Path;"
        "from holdtrue.serving._capture import Capture;"
        "Capture(Path(sys.argv[1])).append([b'1', b'2']); print('written', flush=True);"
        "time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as writer:  # noqa: S603
        assert writer.stdout.readline() == b"written\n"
        (segment,) = tmp_path.iterdir()
        assert not is_orphan(segment)
        writer.send_signal(signal.SIGKILL)
    assert is_orphan(segment)
    assert segment.read_bytes() == b"1\n2\n"


def test_a_segment_is_closed_when_somebody_asks_for_it(tmp_path):
    capture = Capture(tmp_path)
    capture.append([b"{}"])
    capture.close_if_due()
    assert list(tmp_path.glob("*.jsonl")) == []
    ask_to_close(tmp_path, timeout_s=0.0)
    capture.close_if_due()
    assert len(list(tmp_path.glob("*.jsonl"))) == 1
    capture.append([b"{}"])
    capture.close()


class Disk:
    """Records what is forced to the disk, and can be slow or broken."""

    def __init__(self, monkeypatch) -> None:
        self.forced: list[str] = []
        self.slow: threading.Event | None = None
        self.entered = threading.Event()
        self.broken = False
        fsync = os.fsync

        def forced(descriptor: int) -> None:
            name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
            self.entered.set()
            if self.slow is not None:
                assert self.slow.wait(30)
            if self.broken:
                raise OSError(5, "Input/output error")
            fsync(descriptor)
            self.forced.append(name)

        monkeypatch.setattr(os, "fsync", forced)


def test_lines_are_acknowledged_only_when_they_are_on_the_disk(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    disk.slow = threading.Event()
    capture = Capture(tmp_path, durable=True)
    capture.append([b"1"])
    first = capture.synced()
    assert disk.entered.wait(30)
    assert not first.done()
    # Others append meanwhile, and share the next turn.
    later = []
    for _ in range(5):
        capture.append([b"2"])
        later.append(capture.synced())
    disk.slow.set()
    assert first.result(30)
    assert all(future.result(30) for future in later)
    segments = [name for name in disk.forced if ".jsonl" in name]
    assert len(segments) == 2
    assert str(tmp_path) in disk.forced  # the name of the segment, too
    capture.close()


def test_a_segment_that_is_full_is_forced_to_the_disk_before_it_is_let_go(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    capture = Capture(tmp_path, durable=True)
    capture.append([b"x"] * MAX_ROWS)
    assert capture.synced().result(30)
    (closed,) = tmp_path.iterdir()
    assert str(closed) in disk.forced
    assert is_orphan(closed)  # nothing keeps it open


def test_a_disk_that_fails_is_counted_and_never_raised(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    capture = Capture(tmp_path, durable=True)
    capture.append([b"1", b"2"])
    disk.broken = True
    assert capture.synced().result(30) is False
    assert capture.failed == 2
    assert capture.last_error == f"Input/output error: {tmp_path}"
    disk.broken = False
    capture.append([b"3"])
    assert capture.synced().result(30) is True
    assert names(tmp_path) == ["jsonl", "jsonl.open"]
    capture.close()


def test_an_answer_that_nobody_waits_for_any_more_holds_up_no_other(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    disk.slow = threading.Event()
    capture = Capture(tmp_path, durable=True)
    capture.append([b"1"])
    first = capture.synced()
    assert disk.entered.wait(30)
    given_up, other = capture.synced(), capture.synced()
    given_up.cancel()
    disk.slow.set()
    assert first.result(30)
    assert other.result(30)
    capture.close()


def test_what_was_written_before_somebody_asked_is_forced_to_the_disk_too(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    capture = Capture(tmp_path)  # the declaration says durable only from the next request on
    capture.append([b"x"] * MAX_ROWS)
    assert disk.forced == []
    capture.append([b"y"])
    assert capture.synced().result(30)
    first, second = sorted(map(str, tmp_path.iterdir()))
    assert {first, second, str(tmp_path)} <= {*disk.forced}
    capture.close()


@pytest.mark.parametrize("asked", [False, True], ids=["usual", "durable"])
def test_segments_that_ended_are_not_kept_open(tmp_path, asked):
    def opened() -> int:
        return sum(str(tmp_path) in file.path for file in psutil.Process().open_files())

    capture = Capture(tmp_path)
    if asked:
        capture.append([b"x"])
        assert capture.synced().result(30)
    for _ in range(5):  # nobody waits for these
        capture.append([b"x"] * MAX_ROWS)
    capture.append([b"x"])
    deadline = time.monotonic() + 30
    # The one that is written to; the last one that ended may still be asked for, where none was.
    while opened() != (1 if asked else 2):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    capture.close()
    assert opened() == 0
