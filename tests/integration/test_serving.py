"""A real Ray Serve: deploy, ask, swap under load, refuse, capture, end."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta

import httpx
import pandas as pd
import psutil
import pytest

from holdtrue.declaration import Declaration
from holdtrue.errors import ConfigError, ServingError, StackError
from holdtrue.models import Signature, pipeline, typed, write_bundle
from holdtrue.serving import Endpoint, capture_places, deploy, fold_in, read_captured, undeploy
from holdtrue.stack import Stack, free_ports
from holdtrue.stack._processes import _runs
from holdtrue.store import Store

pytestmark = pytest.mark.integration

ESTIMATOR = "sklearn.linear_model.LogisticRegression"
SIGNATURE = Signature(
    target="late",
    task="classification",
    classes=("no", "yes"),
    columns={"distance": "integer", "carrier": "string"},
    categorical=("carrier",),
)
ROWS = [{"distance": 100 * n, "carrier": "AB"[n % 2]} for n in range(40)]


def declare(name: str, port: int) -> Declaration:
    return Declaration.model_validate(
        {
            "name": name,
            "task": "classification",
            "data": {
                "source": {"files": "flights.csv"},
                "target": "late",
                "time": "at",
                "key": ["flight"],
            },
            "model": {"candidates": [{"estimator": ESTIMATOR}]},
            "tune": {"metric": "log_loss"},
            "serve": {"port": port, "max_body_bytes": 100_000},
        }
    )


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Two versions of a model: folders and digests by number."""
    frame = typed(pd.DataFrame(ROWS), SIGNATURE)
    written = {}
    for version, c in ((1, 1.0), (2, 0.01)):
        model = pipeline(ESTIMATOR, {"C": c}, SIGNATURE, seed=0, threads=1)
        model.fit(frame, [n // 20 for n in range(40)])
        path = tmp_path_factory.mktemp("bundle") / str(version)
        digest = write_bundle(
            path, model, SIGNATURE, estimator=ESTIMATOR, params={"C": c}, sample=ROWS[:10]
        )
        written[version] = (path, digest)
    return written


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def stack(store, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        stack = Stack(store)
    try:
        stack.up_ray()
        yield stack
    finally:
        family = [child for info in stack.state().processes for child in _tree(info.pid)]
        stack.down()
        assert not [process for process in family if _runs(process)]


@pytest.fixture(scope="module")
def declaration():
    return declare("flights", free_ports(1)[0])


@pytest.fixture(scope="module")
def url(stack, store, bundles, declaration):
    return deploy(stack, declaration, 1, *bundles[1], store)


@pytest.fixture
def endpoint(url):
    with Endpoint(url) as endpoint:
        yield endpoint


def _tree(pid):
    leader = psutil.Process(pid)
    return [leader, *leader.children(recursive=True)]


def test_answers_one_row_and_many(endpoint, declaration):
    answer = endpoint.predict(ROWS[:3])
    assert (answer["model"], answer["version"]) == ("flights", 1)
    assert len(set(answer["ids"])) == 3
    assert [p["class"] for p in answer["predictions"]] == ["no"] * 3
    assert sum(answer["predictions"][0]["probabilities"].values()) == pytest.approx(1)
    one = httpx.post(endpoint.url, json=ROWS[0]).json()
    wrapped = httpx.post(endpoint.url, json={"rows": ROWS[:1]}).json()
    assert one["predictions"] == wrapped["predictions"] == answer["predictions"][:1]
    root = endpoint.url.removesuffix("/predict")
    about = httpx.get(root).json()
    assert about["columns"] == {"distance": "integer", "carrier": "string"}
    assert httpx.post(endpoint.url, json=about["example"]).status_code == 200
    assert httpx.get(f"{root}/live").json() == {"live": True}
    assert endpoint.ready()["version"] == 1


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"{", 400, "not JSON"),
        (b"[]", 422, "at least one row"),
        (b"7", 422, "expected one record"),
        (b'{"distance": 1}', 422, "carrier"),
        (b'{"distance": "far", "carrier": "A"}', 422, "distance"),
        (b'{"distance": 1, "carrier": "A", "x": 1}', 422, "x"),
        (b'{"distance": 1, "carrier": "A", "at": "soon"}', 422, "at"),
        (b" " * 100_001, 413, "bytes"),
    ],
)
def test_refuses_bad_requests(url, content, status, said):
    answer = httpx.post(url, content=content)
    assert answer.status_code == answer.json()["status"] == status
    assert said in answer.json()["detail"]


def test_stops_reading_a_body_without_announced_length(url):
    def endless():
        for _ in range(3_000):
            yield b" " * 1_000

    answer = httpx.post(url, content=endless())
    assert answer.status_code == 413


def test_swaps_under_load_without_a_failed_request(stack, store, bundles, declaration, url):
    deploy(stack, declaration, 1, *bundles[1], store)
    seen, failed, stop = [], [], threading.Event()

    def ask():
        with Endpoint(url) as endpoint:
            while not stop.is_set():
                try:
                    seen.append(endpoint.predict(ROWS[:2])["version"])
                except Exception as err:  # noqa: BLE001 - no failure at all is allowed
                    failed.append(err)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        deploy(stack, declaration, 2, *bundles[2], store)
        answered = len(seen)
        deadline = time.monotonic() + 10
        while len(seen) < answered + 20 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed
    assert {*seen} == {1, 2}
    assert {*seen[answered + 4 :]} == {2}


def test_a_broken_version_does_not_replace_a_good_one(
    stack, store, bundles, declaration, url, tmp_path
):
    deploy(stack, declaration, 1, *bundles[1], store)
    for file in bundles[2][0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.skops").write_bytes(b"damaged")
    with pytest.raises(ServingError, match=r"version 2 cannot be served: .*damaged"):
        deploy(stack, declaration, 2, tmp_path, bundles[2][1], store)
    with Endpoint(url) as endpoint:
        ready = endpoint.wait(1, bundles[1][1], 10)
        assert ready["refused"] is None
        assert endpoint.predict(ROWS[:1])["version"] == 1


def test_captures_each_answer_once(stack, store, bundles, declaration, endpoint):
    deploy(stack, declaration, 1, *bundles[1], store)
    folder, table = capture_places(store, "flights")
    start = datetime(2013, 7, 1, tzinfo=UTC)
    asked = [
        row | {"flight": n, "at": (start + timedelta(hours=n)).isoformat()}
        for n, row in enumerate(ROWS)
    ]
    ids = endpoint.predict(asked)["ids"]
    deadline = time.monotonic() + 30
    while (kept := read_captured(table, start, start + timedelta(days=7))).num_rows < 40:
        fold_in(folder, table)
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert sorted(kept["id"].to_pylist()) == sorted(ids)
    first = kept.filter([name == ids[0] for name in kept["id"].to_pylist()]).to_pylist()[0]
    assert first["event_time"] == start
    assert json.loads(first["key"]) == {"flight": 0}
    assert json.loads(first["row"]) == ROWS[0]
    assert fold_in(folder, table).rows == 0
    assert endpoint.ready()["capture_failures"] == 0


def test_two_systems_share_one_serve(stack, store, bundles, declaration, url):
    second = declare("boats", declaration.serve.port)
    other = deploy(stack, second, 2, *bundles[2], store)
    with Endpoint(url) as old, Endpoint(other) as new:
        assert old.predict(ROWS[:1])["model"] == "flights"
        assert new.predict(ROWS[:1])["model"] == "boats"
    elsewhere = declare("trains", free_ports(1)[0])
    with pytest.raises(ConfigError, match="already serves on port"):
        deploy(stack, elsewhere, 2, *bundles[2], store)
    assert undeploy(stack, "boats")
    assert not undeploy(stack, "boats")
    with Endpoint(other) as gone, pytest.raises(ServingError):
        gone.predict(ROWS[:1])
    with Endpoint(url) as endpoint:
        assert endpoint.predict(ROWS[:1])["model"] == "flights"


def test_a_first_version_that_is_broken_leaves_nothing(
    stack, store, bundles, declaration, url, tmp_path
):
    broken = declare("broken", declaration.serve.port)
    with pytest.raises(ServingError, match="cannot be read"):
        deploy(stack, broken, 1, tmp_path / "none", bundles[1][1], store)
    with Endpoint(url.replace("flights", "broken")) as endpoint:
        assert endpoint.ready() is None
    with Endpoint(url) as endpoint:
        assert endpoint.ready() is not None


def test_needs_ray(store, bundles, declaration, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(StackError, match="no Ray is up"):
        deploy(Stack(store), declaration, 1, *bundles[1], store)
