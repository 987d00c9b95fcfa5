from __future__ import annotations

import os
import signal
import subprocess
import sys
from uuid import UUID

from holdtrue.serving._capture import (
    MAX_AGE_S,
    MAX_ROWS,
    Capture,
    ask_to_close,
    is_orphan,
    new_ids,
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


def test_a_segment_is_closed_by_age_without_traffic(tmp_path):
    clock = Clock()
    capture = Capture(tmp_path / "new", clock)
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
