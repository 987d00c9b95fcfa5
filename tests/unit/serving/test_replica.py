from __future__ import annotations

import asyncio
import json

import httpx
import numpy as np
import pandas as pd
import pytest
from starlette.requests import Request

from holdtrue.declaration import Model
from holdtrue.errors import ServingError
from holdtrue.models import Bundle, fit_bundle
from holdtrue.serving import fold_in, read_captured
from holdtrue.serving._replica import Replica, is_sampled

LINEAR = "sklearn.linear_model.LogisticRegression"


@pytest.fixture
def config(written, tmp_path):
    return {
        "system": "flights",
        "version": 1,
        "bundle": str(written.path),
        "digest": written.digest,
        "capture": {"share": 1.0, "folder": str(tmp_path / "segments")},
        "max_body_bytes": 1_000,
        "key": ["flight"],
        "time": "at",
    }


def serve(replica, config, *requests):
    """Configure a replica and send it requests, all in one event loop."""

    async def app(scope, receive, send):
        response = await replica(Request(scope, receive))
        await response(scope, receive, send)

    async def run():
        await replica.reconfigure(config)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return [await client.request(*request[:2], **request[2]) for request in requests]

    return asyncio.run(run())


def predict(rows):
    return "POST", "/flights/predict", {"content": json.dumps(rows)}


def get(path):
    return "GET", path, {}


def test_answers_as_the_model_does(written, config):
    rows = [written.rows[0], written.rows[39]]
    (answer,) = serve(Replica(), config, predict(rows))
    content = answer.json()
    assert answer.status_code == 200
    assert (content["model"], content["version"]) == ("flights", 1)
    assert [p["class"] for p in content["predictions"]] == ["no", "yes"]


def test_says_what_it_is(written, config):
    about, live, ready = serve(
        Replica(), config, get("/flights"), get("/flights/live"), get("/flights/ready")
    )
    assert about.json()["columns"] == {"distance": "integer", "carrier": "string"}
    assert about.json()["example"] == written.rows[0]
    assert about.json()["also_accepted"] == ["flight", "at"]
    assert live.json() == {"live": True}
    said = ready.json()
    assert (said["ready"], said["version"], said["digest"]) == (True, 1, written.digest)


def test_says_and_does_what_is_declared_of_answers(written, config, tmp_path):
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
    config |= {"bundle": str(tmp_path / "model"), "digest": digest}
    about, answer = serve(Replica(), config, get("/flights"), predict(written.rows[1:2]))
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
        (predict([{"distance": 1}]), 422),
        (predict([{"distance": 1.5, "carrier": "A"}]), 422),
        (("POST", "/flights/predict", {"content": b" " * 1_001}), 413),
    ],
)
def test_refuses_with_a_problem(config, request_, status):
    (answer,) = serve(Replica(), config, request_)
    assert answer.status_code == answer.json()["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


def test_captures_what_it_answered(written, config, tmp_path):
    replica = Replica()
    asked = [row | {"flight": 7, "at": "2024-05-01T10:00:00Z"} for row in written.rows[:3]]
    (answer,) = serve(replica, config, predict(asked))
    for capture in replica._captures.values():
        capture.close()
    assert fold_in(tmp_path / "segments", tmp_path / "table").rows == 3
    from datetime import UTC, datetime

    kept = read_captured(
        tmp_path / "table", datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 2, tzinfo=UTC)
    )
    row = kept.to_pylist()[0]
    assert row["id"] == answer.json()["ids"][0]
    assert json.loads(row["row"]) == written.rows[0]
    assert json.loads(row["key"]) == {"flight": 7}
    assert row["scores"] == [*answer.json()["predictions"][0]["probabilities"].values()]


def test_a_failing_capture_does_not_fail_the_answer(written, config, tmp_path):
    (tmp_path / "segments").write_text("in the way")
    answer, ready = serve(Replica(), config, predict(written.rows[:2]), get("/flights/ready"))
    assert answer.status_code == 200
    assert ready.json()["capture_failures"] == 2
    assert "segments" in ready.json()["capture_error"]


def test_captures_nothing_where_nothing_is_wanted(written, config, tmp_path):
    (answer,) = serve(Replica(), config | {"capture": None}, predict(written.rows[:2]))
    assert answer.status_code == 200
    assert not (tmp_path / "segments").exists()


def test_a_first_slate_that_is_broken_raises(config):
    with pytest.raises(ServingError, match="not the one that was registered"):
        serve(Replica(), config | {"digest": "0" * 32})


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"digest": "0" * 32}, "not the one that was registered"), ({"max_body_bytes": "x"}, "int")],
)
def test_a_broken_slate_does_not_replace_a_good_one(written, config, change, reason):
    replica = Replica()
    serve(replica, config)
    asked = [get("/flights/ready"), predict(written.rows[:1])]
    ready, answer = serve(replica, config | {"version": 2} | change, *asked)
    assert ready.json()["version"] == answer.json()["version"] == 1
    assert ready.json()["refused"]["version"] == 2
    assert reason in ready.json()["refused"]["reason"]
    (ready,) = serve(replica, config | {"version": 3}, asked[0])
    assert (ready.json()["version"], ready.json()["refused"]) == (3, None)


def test_is_not_ready_when_it_answers_otherwise_than_when_trained(config, monkeypatch):
    replica = Replica()
    serve(replica, config)
    monkeypatch.setattr(
        type(replica._live.bundle), "predict", lambda self, frame: np.full((len(frame), 2), 0.5)
    )
    (ready,) = serve(replica, config, get("/flights/ready"))
    assert ready.status_code == 503
    assert ready.json()["ready"] is False


def test_samples_by_id():
    names = [f"name-{number}" for number in range(4_000)]
    assert all(is_sampled(name, 1.0) for name in names)
    assert not any(is_sampled(name, 0.0) for name in names)
    kept = [name for name in names if is_sampled(name, 0.25)]
    assert 0.2 < len(kept) / len(names) < 0.3
    assert kept == [name for name in names if is_sampled(name, 0.25)]
