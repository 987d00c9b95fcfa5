"""A shadow beside the champion, asked through ASGI."""

from __future__ import annotations

import asyncio
import json
import threading

import httpx
import numpy as np
import pytest

from holdtrue.serving import _shadow as module
from holdtrue.serving._live import load

from ._asking import build, not_finite, predict, raises
from .conftest import arm_of

ROW = {"distance": 5, "carrier": "A"}


async def post(app, *requests):
    """Send requests one after the other; gives their answers."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return [await client.request(*request[:2], **request[2]) for request in requests]


async def scored(app):
    """Wait until the shadow has scored all that it was asked."""
    while app._shadow._lane is not None and app._shadow._lane.scoring:
        await asyncio.sleep(0.01)


def shadowed(app, count):
    """Ask, and wait for the shadow in the loop that it was asked in."""

    async def run():
        answers = await post(app, *[predict([ROW])] * count)
        await scored(app)
        return answers

    return asyncio.run(run())


def test_a_shadow_scores_and_is_captured_but_never_answers(slate_with, tmp_path):
    app = build(slate_with(shadow=True))
    answers = shadowed(app, 3)
    app.close()
    assert [answer.json()["version"] for answer in answers] == [1] * 3
    assert app.statistics().counts.of(2, "shadow").requests == 3
    lines = [
        json.loads(line)
        for segment in (tmp_path / "segments").glob("*.jsonl")
        for line in segment.read_bytes().splitlines()
    ]
    assert sorted(line["role"] for line in lines) == ["champion"] * 3 + ["shadow"] * 3
    assert {line["id"] for line in lines if line["role"] == "shadow"} == {
        answer.json()["ids"][0] for answer in answers
    }


@pytest.mark.parametrize(
    ("bad", "reason"), [(raises, "failed"), (not_finite, "not finite")], ids=["raises", "nan"]
)
def test_a_shadow_that_fails_touches_nothing(slate_with, bad, reason):
    app = build(slate_with(shadow=True), shadow=bad)
    answers = shadowed(app, 2)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert app.statistics().counts.of(2, "shadow").errors == {reason: 2}


class Stuck:
    """A model that answers when it is let."""

    def __init__(self):
        self.gate = threading.Event()

    def __call__(self, rows):
        self.gate.wait(20)
        return np.full((len(rows), 2), 0.5)


def test_what_a_shadow_is_too_slow_for_is_left_out(slate_with, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    stuck = Stuck()
    app = build(slate_with(shadow=True), shadow=stuck)

    async def run():
        answers = await post(app, *[predict([ROW])] * 8)
        dropped = app._shadow.dropped
        stuck.gate.set()
        await scored(app)
        return answers, dropped

    answers, dropped = asyncio.run(run())
    assert [answer.status_code for answer in answers] == [200] * 8
    assert dropped == app.statistics().counts.shadow_dropped == 5
    assert app.statistics().counts.of(2, "shadow").requests == 3


def with_shadow(app, slate, written, version):
    """Another slate with a shadow, as it is loaded beside the one that is served."""
    arms = (slate.champion, arm_of(written, "shadow", version, 0.0))
    return load(slate.model_copy(update={"arms": arms}), app.live, app.tallies)


def test_a_shadow_that_is_stuck_starves_no_later_one(written, slate_with):
    stuck, slate = Stuck(), slate_with(shadow=True)
    app = build(slate, shadow=stuck)

    async def run():
        await post(app, *[predict([ROW])] * 4)
        app.serve(with_shadow(app, slate, written, 3))
        assert (app._shadow.waiting, app._shadow.dropped) == (0, 3)
        await post(app, *[predict([ROW])] * 2)
        await scored(app)
        counts = app.statistics().counts
        stuck.gate.set()
        return counts

    counts = asyncio.run(run())
    assert (counts.of(3, "shadow").requests, counts.of(3, "shadow").errors) == (2, {})
    assert counts.shadow_dropped == 3


def test_a_slate_without_a_shadow_leaves_what_it_has_not_scored(slate_with):
    stuck = Stuck()
    app = build(slate_with(shadow=True), shadow=stuck)

    async def run():
        await post(app, *[predict([ROW])] * 4)
        thread = app._shadow._lane.thread
        app.serve(load(slate_with(), app.live, app.tallies))
        stuck.gate.set()
        while thread.is_alive():
            await asyncio.sleep(0.01)

    asyncio.run(run())
    assert app.statistics().counts.shadow_dropped == 3


def test_an_answer_that_comes_after_its_slate_is_not_scored_any_more(slate_with):
    stuck = Stuck()
    app = build(slate_with(shadow=True), shadow=stuck)
    before = app.live

    async def run():
        app.serve(load(slate_with(), before, app.tallies))
        app._shadow.ask(before, None, None, None)
        assert app._shadow._lane is None

    asyncio.run(run())


def test_the_same_shadow_in_another_slate_goes_on(slate_with):
    stuck, slate = Stuck(), slate_with(shadow=True)
    app = build(slate, shadow=stuck)

    async def run():
        await post(app, *[predict([ROW])] * 4)
        app.serve(load(slate.model_copy(update={"explain": True}), app.live, app.tallies))
        stuck.gate.set()
        await scored(app)

    asyncio.run(run())
    counts = app.statistics().counts
    assert (counts.of(2, "shadow").requests, counts.shadow_dropped) == (4, 0)


def test_rows_that_wait_for_a_shadow_are_bounded(written, slate_with, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING_ROWS", 10)
    stuck = Stuck()
    app = build(slate_with(shadow=True), shadow=stuck)

    async def run():
        # The first one is scored, the second waits however large it is.
        rows = [written.rows[:n] for n in (1, 30, 1)]
        await post(app, *map(predict, rows))
        assert (app._shadow.waiting, app._shadow.dropped) == (1, 1)
        stuck.gate.set()
        await scored(app)
        stuck.gate.clear()
        rows = [written.rows[:n] for n in (1, 4, 6, 1)]
        await post(app, *map(predict, rows))
        assert (app._shadow.waiting, app._shadow.dropped) == (2, 2)
        stuck.gate.set()
        await scored(app)

    asyncio.run(run())


def test_bytes_that_wait_for_a_shadow_are_bounded(slate_with, monkeypatch):
    content = json.dumps([ROW])
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 3 * len(content))
    stuck = Stuck()
    app = build(slate_with(shadow=True), shadow=stuck)

    async def run():
        for _ in range(2):
            stuck.gate.clear()
            dropped = app._shadow.dropped
            await post(app, *[predict([ROW])] * 6)
            assert (app._shadow.waiting, app._shadow.dropped - dropped) == (3, 2)
            stuck.gate.set()
            await scored(app)

    asyncio.run(run())


def test_a_shadow_that_is_stuck_keeps_no_process_from_ending(slate_with):
    stuck = Stuck()
    app = build(slate_with(shadow=True), shadow=stuck)

    async def run():
        await post(app, predict([ROW]))
        thread = app._shadow._lane.thread
        assert thread.daemon
        app.close()
        stuck.gate.set()
        while thread.is_alive():
            await asyncio.sleep(0.01)

    asyncio.run(run())


def test_rows_that_a_shadow_does_not_take_count_against_it(wider, slate_with):
    app = build(slate_with(shadow=True, second=wider))
    assert {answer.status_code for answer in shadowed(app, 2)} == {200}
    assert app.statistics().counts.of(2, "shadow").errors == {"refused": 2}
