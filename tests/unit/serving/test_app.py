"""The application in a replica, asked through ASGI."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from jsonschema import Draft202012Validator

from holdtrue.access import create_key
from holdtrue.declaration import Model
from holdtrue.models import Bundle, fit_bundle
from holdtrue.serving import Limits, fold_in, read_captured
from holdtrue.serving import _app as module
from holdtrue.serving._log import LogReader
from holdtrue.store import Store

from ._asking import Wrapped, ask, build, get, logged, not_finite, predict, raises
from .conftest import arm_of

LINEAR = "sklearn.linear_model.LogisticRegression"


def test_answers_as_the_model_does(written, slate_with):
    rows = [written.rows[0], written.rows[39]]
    (answer,) = ask(build(slate_with()), predict(rows))
    content = answer.json()
    assert answer.status_code == 200
    assert (content["model"], content["version"]) == ("flights", 1)
    assert [p["class"] for p in content["predictions"]] == ["no", "yes"]


def test_says_what_it_is(written, slate_with):
    about, live, ready, v2 = ask(
        build(slate_with()),
        *map(get, ("/flights", "/flights/live", "/flights/ready", "/flights/v2/health/ready")),
    )
    assert about.json()["columns"] == {"distance": "integer", "carrier": "string"}
    assert about.json()["example"] == written.rows[0]
    assert about.json()["also_accepted"] == ["flight", "at"]
    assert live.json() == {"live": True}
    said = ready.json()
    assert (said["ready"], said["version"], said["digest"]) == (True, 1, written.digest)
    assert said["arms"][0]["compiled"]
    assert v2.status_code == 200


def test_says_and_does_what_is_declared_of_answers(written, slate_with, tmp_path):
    rows = pd.DataFrame(written.rows * 20).assign(late=["yes", *["no"] * 4] * 160)
    signature = Bundle.load(written.path, written.digest).signature
    costs = {"no": {"yes": 1}, "yes": {"no": 9}}
    model = {"candidates": [{"estimator": LINEAR}], "calibrate": "sigmoid", "costs": costs}
    digest = fit_bundle(
        *(rows, tmp_path / "model", signature, LINEAR, {}),
        seed=0,
        threads=1,
        model=Model.model_validate(model),
        folds=2,
        ordered=False,
    )
    arm = arm_of(written._replace(path=tmp_path / "model", digest=digest), "champion", 1, 1)
    app = build(slate_with(arms=(arm,)))
    about, answer = ask(app, get("/flights"), predict(written.rows[1:2]))
    about = about.json()
    assert (about["calibration"], about["interval"]) == ("sigmoid", None)
    assert about["costs"] == {"no": {"no": 0, "yes": 1}, "yes": {"no": 9, "yes": 0}}
    (given,) = answer.json()["predictions"]
    assert 0.1 < given["probabilities"]["yes"] < 0.5
    assert given["class"] == "yes"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/flights/predict"), 405),
        (("POST", "/flights/ready", {}), 405),
        (get("/flights/nothing"), 404),
        (get("/boats/nothing"), 404),
        (predict([{"distance": 1}]), 422),
        (predict([{"distance": 1.5, "carrier": "A"}]), 422),
        (("POST", "/flights/predict", {"content": b" " * 10_001}), 413),
        (("POST", "/flights/predict?version=9", {"content": b'{"distance":1,"carrier":"A"}'}), 404),
    ],
)
def test_refuses_with_a_problem(slate_with, request_, status):
    app = build(slate_with())
    (answer,) = ask(app, request_)
    assert answer.status_code == answer.json()["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]
    assert app.statistics().counts.refused == {str(status): 1}


def test_captures_what_it_answered(written, slate_with, tmp_path):
    app = build(slate_with())
    asked = [row | {"flight": 7, "at": "2024-05-01T10:00:00Z"} for row in written.rows[:3]]
    (answer,) = ask(app, predict(asked))
    app.close()
    assert fold_in(tmp_path / "segments", tmp_path / "table").rows == 3

    kept = read_captured(
        tmp_path / "table", datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 2, tzinfo=UTC)
    )
    row = kept.to_pylist()[0]
    assert row["id"] == answer.json()["ids"][0]
    assert json.loads(row["row"]) == written.rows[0]
    assert json.loads(row["key"]) == {"flight": 7}
    assert row["scores"] == [*answer.json()["predictions"][0]["probabilities"].values()]


def test_a_failing_capture_does_not_fail_the_answer(written, slate_with, tmp_path):
    (tmp_path / "segments").write_text("in the way")
    answer, ready = ask(build(slate_with()), predict(written.rows[:2]), get("/flights/ready"))
    assert answer.status_code == 200
    assert ready.json()["capture_failures"] == 2
    assert "segments" in ready.json()["capture_error"]


def test_captures_nothing_where_nothing_is_wanted(written, slate_with, tmp_path):
    (answer,) = ask(build(slate_with(captured=False)), predict(written.rows[:2]))
    assert answer.status_code == 200
    assert not (tmp_path / "segments").exists()


def test_waits_for_the_disk_where_that_is_declared(written, slate_with):
    slate = slate_with()
    capture = slate.capture.model_copy(update={"durable": True})
    app = build(slate.model_copy(update={"capture": capture}))
    (answer,) = ask(app, predict(written.rows[:2]))
    app.close()
    assert answer.status_code == 200
    assert app.statistics().counts.captured == 2


def test_is_not_ready_when_a_model_answers_otherwise_than_when_it_was_trained(slate_with):
    app = build(slate_with())
    held = app.live.champion
    model = replace(held.model, expected=held.model.expected + 0.1)
    app.live = replace(app.live, champion=replace(held, model=model))
    ready, v2 = ask(app, get("/flights/ready"), get("/flights/v2/health/ready"))
    assert ready.status_code == v2.status_code == 503
    assert ready.json()["ready"] is False
    assert "otherwise" in ready.json()["reason"]


def test_asks_for_a_key_unless_access_is_open(written, slate_with, tmp_path):
    store = Store(tmp_path)
    _, theirs = create_key(store, "billing", ["predict"])
    _, ours = create_key(store, "ops", ["admin"])
    app = build(slate_with(keys=str(tmp_path / "serving" / "keys.json")))
    row = written.rows[:1]
    answers = ask(
        app,
        predict(row),
        predict(row, authorization="Bearer nonsense"),
        predict(row, authorization=f"Bearer {theirs}"),
        predict(row, authorization=f"Bearer {ours}"),
        get("/flights/metrics", authorization=f"Bearer {theirs}"),
        get("/flights/metrics", authorization=f"Bearer {ours}"),
        get("/flights"),
        get("/flights/openapi.json"),
        get("/flights/v2/models/flights"),
        get("/flights/live"),
        get("/flights/ready"),
        get("/flights/docs"),
    )
    statuses = [answer.status_code for answer in answers]
    assert statuses == [401, 401, 200, 403, 403, 200, 401, 401, 401, 200, 200, 200]
    assert answers[0].headers["www-authenticate"] == "Bearer"
    assert theirs not in answers[1].text
    assert "`holdtrue key create`" in answers[0].json()["detail"]


def test_what_is_refused_is_as_the_openapi_document_says(written, slate_with, tmp_path):
    store = Store(tmp_path)
    _, key = create_key(store, "billing", ["predict", "admin"])
    app = build(slate_with(keys=str(tmp_path / "serving" / "keys.json")))
    good = {"authorization": f"Bearer {key}"}
    (found,) = ask(app, get("/flights/openapi.json", **good))
    document = found.json()
    problem = Draft202012Validator(
        {"$ref": "#/components/schemas/Problem", "components": document["components"]}
    )
    asked = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if "security" not in operation:
                asked.append((401, operation, method, path, {}))
            if method == "post":
                asked.append((400, operation, method, path, {"content": "{", "headers": good}))
    far = json.dumps([written.rows[0] | {"distance": "far"}])
    operation = document["paths"]["/predict"]["post"]
    asked.append((422, operation, "post", "/predict", {"content": far, "headers": good}))
    answers = ask(app, *((how.upper(), f"/flights{to}", given) for _, _, how, to, given in asked))
    assert len(answers) > 10
    for (status, operation, _, path, _), answer in zip(asked, answers, strict=True):
        assert (path, answer.status_code) == (path, status)
        said = operation["responses"].get(str(status), operation["responses"]["default"])
        named = document["components"]["responses"][said["$ref"].rsplit("/", 1)[1]]
        assert answer.headers["content-type"] in named["content"]
        problem.validate(answer.json())


def test_a_key_that_was_just_made_is_known_and_a_revoked_one_is_not(written, slate_with, tmp_path):
    from holdtrue.access import revoke_key

    store = Store(tmp_path)
    app = build(slate_with(keys=str(tmp_path / "serving" / "keys.json")))
    _, secret = create_key(store, "billing", ["predict"])
    request = predict(written.rows[:1], authorization=f"Bearer {secret}")
    assert ask(app, request)[0].status_code == 200
    revoke_key(store, "billing")
    asyncio.run(app.tick())
    assert ask(app, request)[0].status_code == 401


def test_limits_the_rate_of_a_key(written, slate_with):
    app = build(slate_with(limits=Limits(max_body_bytes=10_000, requests_per_s=2)))
    answers = ask(app, *[predict(written.rows[:1])] * 3)
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["retry-after"] == "1"


def test_a_share_of_the_keys_goes_to_the_challenger_always_the_same(written, slate_with):
    def versions(weight):
        app = build(slate_with(weight, rollout="r", sticky="flight"))
        rows = [written.rows[0] | {"flight": n} for n in range(200)]
        return [answer.json()["version"] for answer in ask(app, *map(predict, rows))]

    small, large = versions(0.1), versions(0.5)
    assert versions(0.1) == small
    assert 5 < small.count(2) < 40 < 70 < large.count(2) < 130
    assert all(after == 2 for before, after in zip(small, large, strict=True) if before == 2)


def test_a_header_may_decide_too(written, slate_with):
    app = build(slate_with(0.5, rollout="r", sticky="x-caller"))
    requests = [predict(written.rows[:1], **{"x-caller": f"c{n % 20}"}) for n in range(60)]
    versions = [answer.json()["version"] for answer in ask(app, *requests)]
    assert versions[:20] == versions[20:40] == versions[40:]
    assert {*versions} == {1, 2}


def test_a_version_can_be_asked_for(written, slate_with):
    app = build(slate_with(0.5))
    path = "/flights/predict?version={}"
    content = {"content": json.dumps(written.rows[0])}
    answers = ask(app, *[("POST", path.format(n), content) for n in (1, 2, 1, 2)])
    assert [answer.json()["version"] for answer in answers] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("bad", "reason"), [(raises, "failed"), (not_finite, "not finite")], ids=["raises", "nan"]
)
def test_a_challenger_that_cannot_score_never_costs_an_answer(written, slate_with, bad, reason):
    app = build(slate_with(1.0 - 1e-12), challenger=bad)
    answers = ask(app, *[predict(written.rows[:1])] * 5)
    assert [answer.json()["version"] for answer in answers] == [1] * 5
    counts = app.statistics().counts
    assert counts.of(2, "challenger").errors == {reason: 5}
    assert counts.of(1, "champion").requests == 5


def test_a_champion_that_cannot_score_is_a_500_that_tells_nothing(written, slate_with):
    app = build(slate_with(), champion=raises)
    (answer,) = ask(app, predict(written.rows[:1]))
    assert answer.status_code == 500
    assert "broken" not in answer.text
    # The version was asked: it is counted there, and not as a request that none was asked.
    counts = app.statistics().counts
    assert (counts.of(1).errors, counts.refused) == ({"failed": 1}, {})


def test_what_fails_besides_the_model_is_counted_as_a_request_that_none_scored(written, slate_with):
    app = build(slate_with())

    async def broken(*args):
        message = "out of order"
        raise OSError(message)

    app._keep = broken
    (answer,) = ask(app, predict(written.rows[:1]))
    assert answer.status_code == 500
    counts = app.statistics().counts
    assert (counts.of(1).requests, counts.refused) == (0, {"500": 1})


@pytest.mark.parametrize("path", ["predict", "invocations", "v2/models/flights/infer"])
def test_a_failure_is_found_in_the_log_by_what_the_caller_got(slate_with, path, caplog):
    def broken(*args):
        message = "out of order"
        raise OSError(message)

    bodies = {
        "predict": {"distance": 1, "carrier": "A"},
        "invocations": {"instances": [{"distance": 1, "carrier": "A"}]},
        "v2/models/flights/infer": {
            "inputs": [
                {"name": "distance", "datatype": "INT64", "shape": [1], "data": [1]},
                {"name": "carrier", "datatype": "BYTES", "shape": [1], "data": ["A"]},
            ]
        },
    }
    request = ("POST", f"/flights/{path}", {"content": json.dumps(bodies[path])})
    no_score, no_answer = build(slate_with(), champion=raises), build(slate_with())
    no_answer._keep = broken
    for app, event, error in (
        (no_score, "a version failed", "broken"),
        (no_answer, "a request failed", "out of order"),
    ):
        caplog.clear()
        (answer,) = ask(app, request)
        (line,) = logged(caplog)
        assert answer.status_code == 500
        assert (line["event"], error in line["error"]) == (event, True)
        assert [answer.json()["instance"]] == [f"urn:uuid:{one}" for one in line["ids"]]
        assert LogReader(app.live.slate.folder).new()[-1] == line


def test_a_failed_challenger_is_logged_with_the_ids_of_the_champions_answer(
    written, slate_with, caplog
):
    app = build(slate_with(1.0 - 1e-12), challenger=raises)
    (answer,) = ask(app, predict(written.rows[:7]))
    (line,) = logged(caplog)
    assert (line["event"], line["version"]) == ("a version failed", 2)
    assert line["ids"] == answer.json()["ids"][:5]


def test_a_failed_challenger_is_logged_also_where_the_champion_refuses(written, slate_with, caplog):
    app = build(slate_with(1.0 - 1e-12), challenger=raises)
    champion = app.live.champion

    def refuses(rows):
        raise module.Problem(422, "not these")

    app.live = replace(app.live, champion=replace(champion, model=Wrapped(champion.model, None)))
    app.live.champion.model.encode = refuses
    (answer,) = ask(app, predict(written.rows[:1]))
    assert answer.status_code == 422
    failed, refused = logged(caplog)
    assert (failed["event"], failed["ids"]) == ("a version failed", [])
    assert (refused["event"], refused["status"]) == ("a request was refused", 422)


def test_one_refused_content_a_second_is_logged_with_what_the_caller_was_told(slate_with, caplog):
    app = build(slate_with())
    bad = ("POST", "/flights/predict", {"content": '{"distance": "far", "carrier": "A"}'})
    first, _ = ask(app, bad, bad)
    (line,) = logged(caplog)
    assert (line["event"], line["path"]) == ("a request was refused", "/flights/predict")
    assert (line["status"], line["error"]) == (422, first.json()["detail"])
    assert "distance" in line["error"]
    asyncio.run(app.tick())
    ask(app, bad)
    assert len(logged(caplog)) == 2


def test_a_slow_request_is_logged_with_its_ids(written, slate_with, monkeypatch, caplog):
    monkeypatch.setattr(module, "SLOW_S", 0.0)
    (answer,) = ask(build(slate_with()), predict(written.rows[:2]))
    (line,) = logged(caplog)
    assert (line["event"], line["ids"]) == ("a slow request", answer.json()["ids"])


def slow(model, seconds):
    def predict(rows):
        time.sleep(seconds)
        return np.full((len(rows), 2), 0.5)

    return predict


def test_more_than_can_be_answered_in_time_is_refused(written, slate_with):
    limits = Limits(max_body_bytes=10_000, ongoing=2, wait_s=0.2)
    app = build(slate_with(limits=limits), champion=slow(None, 0.15))
    answers = ask(app, *[predict(written.rows[:1])] * 20, at_once=True)
    statuses = [answer.status_code for answer in answers]
    assert {*statuses} == {200, 503}
    assert statuses.count(200) >= 2
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert int(refused.headers["retry-after"]) >= 1
    assert app.turns.ongoing == app.turns.waiting == 0


def test_a_request_that_waited_too_long_for_the_event_loop_is_refused(written, slate_with):
    app = build(slate_with(limits=Limits(max_body_bytes=10_000, wait_s=0.2)))
    assert app.live.compiled
    waited = {"slow to arrive": 0.0, "waited": 0.5}

    async def late(scope, receive, send):
        now = time.perf_counter()
        complete = now - waited[dict(scope["headers"])[b"case"].decode()]
        await app(scope | {"arrived": now - 9, "complete": complete}, receive, send)

    slow, refused = ask(late, *[predict(written.rows[:1], case=case) for case in waited])
    assert slow.status_code == 200
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) == 1


def test_rows_of_waiting_requests_are_scored_together(written, slate_with):
    limits = Limits(max_body_bytes=10_000, batch_rows=32, batch_wait_s=0.05)
    app = build(slate_with(limits=limits))
    requests = [predict([row]) for row in written.rows[:20]]
    answers = ask(app, *requests, at_once=True)
    alone = ask(build(slate_with()), *requests)
    for together, single in zip(answers, alone, strict=True):
        assert together.json()["predictions"] == single.json()["predictions"]
    counts = app.statistics().counts
    assert counts.batched_rows == 20
    assert counts.batches < 10


def test_a_large_request_is_answered_off_the_event_loop(written, slate_with, monkeypatch):
    monkeypatch.setattr(module, "SMALL_BYTES", 10)
    (answer,) = ask(build(slate_with()), predict(written.rows[:3]))
    assert len(answer.json()["ids"]) == 3


def test_a_replica_that_goes_asks_to_close_connections(written, slate_with):
    app = build(slate_with())
    app.draining = True
    (answer,) = ask(app, predict(written.rows[:1]))
    assert answer.headers["connection"] == "close"


def test_counts_all_that_it_answered(written, slate_with):
    app = build(slate_with())
    ask(app, predict(written.rows[:1]), predict(written.rows[:30]), predict([{"distance": 1}]))
    asked = [{"distance": 1, "carrier": "never seen"}]
    ask(app, predict(asked))
    arm = app.statistics().counts.of(1)
    assert (arm.requests, arm.rows, sum(arm.latency), arm.scores.n) == (3, 32, 3, 32)
    assert arm.unknown == {"carrier": 1}
    assert [sum(counts) for counts in arm.probabilities] == [32, 32]


@pytest.mark.parametrize(
    ("headers", "read"),
    [([(b"content-length", b"10001")], 0), ([(b"transfer-encoding", b"chunked")], 3)],
    ids=["announced", "in chunks"],
)
def test_too_large_is_said_before_the_rest_is_read(slate_with, headers, read):
    app, events = build(slate_with()), []

    async def receive():
        events.append("read")
        return {"type": "http.request", "body": b" " * 4_000, "more_body": True}

    async def send(message):
        events.append(message.get("status", "sent"))

    scope = {"type": "http", "method": "POST", "path": "/flights/predict", "query_string": b""}
    asyncio.run(app(scope | {"headers": headers}, receive, send))
    # A fourth piece is there, and a million more; none is asked for.
    assert events == [*["read"] * read, 413, "sent"]
