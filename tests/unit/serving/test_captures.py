"""What is answered in one turn of the event loop, and the lines that are written of it."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdtrue.serving import _captures as module
from holdtrue.serving._asked import Table
from holdtrue.serving._captures import Captures
from holdtrue.serving._scoring import score
from holdtrue.serving._slate import CaptureSettings

from ._asking import build

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)


class Folder:
    """Where segments are written, and how often."""

    def __init__(self, path, monkeypatch) -> None:
        self.path = path
        self.writes = 0
        write = os.write

        def counted(descriptor: int, content: bytes) -> int:
            name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
            self.writes += name.startswith(str(path))
            return write(descriptor, content)

        monkeypatch.setattr(os, "write", counted)

    @property
    def ids(self) -> list[str]:
        segments = [] if not self.path.exists() else sorted(self.path.iterdir())
        lines = [line for path in segments for line in path.read_bytes().splitlines()]
        return [json.loads(line)["id"] for line in lines]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return Folder(tmp_path / "segments", monkeypatch)


def post(app, rows, on_send):
    """Ask for rows through ASGI; `on_send` gets what is sent, at the moment when it is."""
    scope = {"type": "http", "method": "POST", "path": "/flights/predict", "query_string": b""}

    async def receive():
        return {"type": "http.request", "body": json.dumps(rows).encode(), "more_body": False}

    async def send(message):
        on_send(message)

    return app(scope | {"headers": []}, receive, send)


async def all_at_once(app, requests, on_send):
    await asyncio.gather(*[post(app, rows, on_send) for rows in requests])


def answers_of(app, requests):
    """Ask at once; the documents of the answers in the order in which they are sent."""
    found = []

    def on_send(message):
        if message["type"] == "http.response.body":
            found.append(json.loads(message["body"]))

    asyncio.run(all_at_once(app, requests, on_send))
    return found


def test_nothing_is_sent_before_all_of_the_turn_is_written_by_one_write(
    written, slate_with, folder
):
    app = build(slate_with())
    seen, sent = [], []

    def on_send(message):
        seen.append((folder.writes, len(folder.ids)))
        if message["type"] == "http.response.body":
            sent.extend(json.loads(message["body"])["ids"])

    requests = [written.rows[n : n + 2] for n in range(20)]
    asyncio.run(all_at_once(app, requests, on_send))
    assert {*seen} == {(1, 40)}
    assert sorted(folder.ids) == sorted(sent)
    assert app.statistics().counts.captured == len({*sent}) == 40


def test_a_request_alone_is_written_before_it_is_answered(written, slate_with, folder):
    app = build(slate_with())
    for number in range(1, 4):
        (answer,) = answers_of(app, [written.rows[0]])
        assert folder.writes == number
        assert folder.ids[-1:] == answer["ids"]


def test_who_goes_away_before_the_turn_ends_costs_no_other_its_line(written, slate_with, folder):
    app = build(slate_with())
    sent = []

    async def run():
        asked = [post(app, row, sent.append) for row in written.rows[:4]]
        tasks = [asyncio.create_task(one) for one in asked]
        await asyncio.sleep(0)  # all are scored, and wait for the end of the turn
        assert (folder.writes, sent) == (0, [])
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
    bodies = [m["body"] for m in sent if m["type"] == "http.response.body"]
    answered = {name for body in bodies for name in json.loads(body)["ids"]}
    assert len(answered) == 3
    assert answered <= {*folder.ids}
    assert folder.writes == 1


def test_a_line_that_cannot_be_made_is_counted_and_costs_no_other_its_line(
    written, slate_with, folder, monkeypatch
):
    app = build(slate_with())
    lines, calls = module.lines, []

    def fails_once(*args):
        calls.append(args)
        if len(calls) == 2:
            raise TypeError
        return lines(*args)

    monkeypatch.setattr(module, "lines", fails_once)
    found = answers_of(app, [[row] for row in written.rows[:3]])
    assert len(found) == 3  # a failure to capture never fails an answer
    assert folder.ids == [*found[0]["ids"], *found[2]["ids"]]
    counts = app.statistics().counts
    assert (counts.captured, counts.capture_failures) == (2, 1)
    assert "a line could not be made" in app._captures.last_error


def test_answers_of_one_turn_go_where_their_slate_has_them_go(written, slate_with, tmp_path):
    first = build(slate_with()).live

    def with_capture(settings):
        return replace(first, slate=first.slate.model_copy(update={"capture": settings}))

    other = with_capture(CaptureSettings(share=1.0, folder=str(tmp_path / "other")))
    row = written.rows[0]
    table = Table(1, lambda given: pytest.fail("not written here"), row.get, [row])
    given, question = score(first, first.champion, table)
    captures = Captures()
    for live in (first, other, with_capture(None), other, first):
        captures.keep_later(live, live.champion, question, given, NOW)
    assert captures.written == 0
    captures.catch_up()
    captures.catch_up()  # there is nothing left
    assert [capture.written for capture in captures.all()] == [2, 2]
    captures.keep(first, first.champion, question, given, NOW)  # as for a shadow
    assert captures.written == 5
