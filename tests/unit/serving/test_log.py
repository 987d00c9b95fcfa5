from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from holdtrue.serving import _log
from holdtrue.serving._log import LogReader, line_text, write_line
from holdtrue.store import locked


def lines(reader: LogReader) -> list[int]:
    return [line["n"] for line in reader.new()]


def write(folder, *numbers: int) -> None:
    for number in numbers:
        write_line(folder, json.dumps({"n": number}).encode())


def test_what_is_kept_comes_first_and_then_what_is_added(tmp_path):
    reader = LogReader(tmp_path / "there is none yet")
    assert lines(reader) == []
    write(tmp_path, 1, 2)
    reader = LogReader(tmp_path)
    assert lines(reader) == [1, 2]
    assert lines(reader) == []
    write(tmp_path, 3)
    assert lines(reader) == [3]
    assert lines(LogReader(tmp_path)) == [1, 2, 3]


def test_it_is_bounded_and_nobody_who_follows_it_misses_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(_log, "MAX_BYTES", 100)
    reader, found = LogReader(tmp_path), []
    for number in range(100):
        write(tmp_path, number)
        if number % 7 == 0:
            found += lines(reader)
    found += lines(reader)
    assert found == [*range(100)]
    sizes = [(tmp_path / name).stat().st_size for name in (_log.LOG, _log.EARLIER)]
    assert max(sizes) <= 100
    kept = lines(LogReader(tmp_path))
    assert kept == [*range(100 - len(kept), 100)]
    assert len(kept) > 10


def test_several_write_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(_log, "MAX_BYTES", 20_000)
    with ThreadPoolExecutor(8) as threads:
        [*threads.map(lambda number: write(tmp_path, number), range(1_000))]
    assert sorted(lines(LogReader(tmp_path))) == [*range(1_000)]


def test_who_reads_waits_for_nobody_and_leaves_what_is_being_written(tmp_path):
    write(tmp_path, 1)
    reader = LogReader(tmp_path)
    with locked(tmp_path / "log.lock"), (tmp_path / _log.LOG).open("ab") as file:
        file.write(b'{"n": ')
        file.flush()
        assert lines(reader) == [1]
        file.write(b"2}\n")
    assert lines(reader) == [2]


def test_a_line_that_was_cut_off_is_passed_over(tmp_path):
    write(tmp_path, 1)
    with (tmp_path / _log.LOG).open("ab") as file:
        file.write(b'{"n": 2\n[3]\n\xff\n')
    write(tmp_path, 4)
    assert lines(LogReader(tmp_path)) == [1, 4]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            {
                "event": "a version failed",
                "at": "2026-11-30T02:40:12.123456+00:00",
                "system": "flights",
                "replica": "r",
                "ids": ["a", "b"],
                "version": 2,
                "error": "ValueError: no",
            },
            "2026-11-30 02:40:12  a version failed  replica r  version 2  ValueError: no  [a, b]",
        ),
        ({}, "  "),
    ],
)
def test_a_line_in_words(line, said):
    assert line_text(line) == said
