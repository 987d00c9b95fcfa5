"""Who waits for whom: what is answered in the event loop, and what beside it."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time

import pytest

from holdtrue.serving import Limits, _plain, _protocols, _scorer
from holdtrue.serving import _app as module
from holdtrue.serving._asked import MAX_EXPLAINED_ROWS

from ._asking import ask, build, predict

TAKES_S = 0.3
WAIT_S = 0.2
LIMITS = Limits(max_body_bytes=100_000, wait_s=WAIT_S)


def explain(rows):
    content = {"content": json.dumps(rows)}
    return "POST", "/flights/predict?explain=true", content


def explain_v2(rows):
    n = len(rows)
    distance, carrier = ([row[name] for row in rows] for name in ("distance", "carrier"))
    document = {
        "parameters": {"explain": True},
        "inputs": [
            {"name": "distance", "datatype": "INT64", "shape": [n], "data": distance},
            {"name": "carrier", "datatype": "BYTES", "shape": [n], "data": carrier},
        ],
    }
    return "POST", "/flights/v2/models/flights/infer", {"content": json.dumps(document)}


def compressed(rows):
    headers = {"content-encoding": "gzip"}
    content = gzip.compress(json.dumps(rows).encode())
    return "POST", "/flights/predict", {"content": content, "headers": headers}


def many(rows):
    return predict(rows[:1] * (module.SMALL_ROWS + 1))


@pytest.fixture
def slow(slate_with):
    """An application whose model takes its time, as a thread does and the event loop may not."""

    def make(**changes):
        app = build(slate_with(explain=True, limits=LIMITS.model_copy(update=changes)))
        model = type(app.live.champion.model)

        def slowed(name):
            inner = getattr(model, name)

            def work(self, rows):
                if threading.current_thread() is not threading.main_thread():
                    time.sleep(TAKES_S)
                return inner(self, rows)

            return work

        return app, model, slowed

    return make


@pytest.mark.parametrize(
    ("kind", "batch_rows"),
    [(explain, 1), (explain, 8), (explain_v2, 1), (compressed, 1), (many, 1), (many, 8)],
)
def test_what_is_answered_beside_the_event_loop_does_not_wait_longer_than_declared(
    written, slow, kind, batch_rows, monkeypatch
):
    app, model, slowed = slow(batch_rows=batch_rows)
    monkeypatch.setattr(model, "predict", slowed("predict"))
    request = kind(written.rows[:2])
    answers = ask(app, *[request] * 20, at_once=True)
    statuses = [answer.status_code for answer in answers]
    # Two at a time, and some more where the machine is so busy that others came later.
    assert 2 <= statuses.count(200) <= 8
    assert statuses.count(503) == 20 - statuses.count(200)
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert int(refused.headers["retry-after"]) >= 1
    for turns in (app.turns, app.aside):
        assert turns.ongoing == turns.waiting == 0


def test_what_is_small_does_not_wait_behind_what_is_not(written, slow, monkeypatch):
    app, model, slowed = slow(ongoing=4)
    monkeypatch.setattr(model, "predict", slowed("predict"))
    requests = [*[explain(written.rows[:1])] * 12, *[predict(written.rows[:1])] * 12]
    answers = ask(app, *requests, at_once=True)
    assert [answer.status_code for answer in answers[12:]] == [200] * 12
    assert 503 in [answer.status_code for answer in answers[:12]]


def test_the_time_that_a_request_has_waited_counts_in_every_queue(written, slow, monkeypatch):
    app, model, slowed = slow(wait_s=1.0)
    monkeypatch.setattr(model, "predict", slowed("predict"))
    left = []
    wait = module.Turns.wait

    async def waiting(self, limits, at_a_time, waited_s=0.0):
        left.append(limits.wait_s - waited_s)
        await wait(self, limits, at_a_time, waited_s)

    monkeypatch.setattr(module.Turns, "wait", waiting)

    async def late(scope, receive, send):
        now = time.perf_counter()
        await app(scope | {"arrived": now - 9, "complete": now - 0.4}, receive, send)

    ask(late, *[explain(written.rows[:1])] * 3, at_once=True)
    assert left
    assert max(left) < 0.6


@pytest.mark.parametrize("request_", [compressed, many, explain])
def test_nothing_large_is_read_or_written_in_the_event_loop(written, slow, request_, monkeypatch):
    app, _, _ = slow()
    seen = {}

    def watched(name, work):
        def run(*args, **kwargs):
            seen.setdefault(name, []).append(threading.current_thread() is threading.main_thread())
            return work(*args, **kwargs)

        return run

    monkeypatch.setattr(_protocols, "_decoded", watched("decoded", _protocols._decoded))
    monkeypatch.setattr(_scorer, "score", watched("scored", _scorer.score))
    write = watched("written", _plain.write_json)
    monkeypatch.setitem(_plain._WRITERS, b"application/json", write)
    (answer,) = ask(app, request_(written.rows[:2]))
    assert answer.status_code == 200
    assert seen.pop("decoded", [False]) == [False]
    assert seen == {"scored": [False], "written": [False]}


@pytest.mark.parametrize("kind", [explain, explain_v2])
def test_few_rows_at_a_time_are_explained(written, slate_with, kind):
    app = build(slate_with(explain=True, limits=LIMITS))
    some, more = (written.rows[:1] * n for n in (MAX_EXPLAINED_ROWS, MAX_EXPLAINED_ROWS + 1))
    answered, refused = ask(app, kind(some), kind(more))
    assert answered.status_code == 200
    assert refused.status_code == 413
    assert f"at most {MAX_EXPLAINED_ROWS} rows" in refused.json()["detail"]


def test_many_who_ask_whether_it_is_ready_share_one_proof(written, slate_with, monkeypatch):
    app = build(slate_with())
    model, asked = type(app.live.champion.model), []
    verify = model.verify

    def slowly(self):
        asked.append(1)
        time.sleep(0.1)
        verify(self)

    monkeypatch.setattr(model, "verify", slowly)
    ready = ("GET", "/flights/ready", {})
    answers = ask(app, *[ready, ("GET", "/flights/v2/health/ready", {})] * 10, at_once=True)
    assert {answer.status_code for answer in answers} == {200}
    assert len(asked) == 1


def test_who_stops_to_ask_whether_it_is_ready_stops_it_for_nobody_else(slate_with, monkeypatch):
    app = build(slate_with())
    gate = threading.Event()
    monkeypatch.setattr(type(app.live.champion.model), "verify", lambda self: gate.wait(20))

    async def run():
        asking = [asyncio.create_task(app._ready.ask(app.live, app._readiness)) for _ in range(2)]
        await asyncio.sleep(0.01)
        asking[0].cancel()
        gate.set()
        return await asyncio.gather(*asking, return_exceptions=True)

    gone, told = asyncio.run(run())
    assert isinstance(gone, asyncio.CancelledError)
    assert told.status == 200
