"""A real Ray Serve: deploy, ask, swap under load, refuse, capture, end."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pandas as pd
import psutil
import pyarrow as pa
import pytest

from holdtrue.access import create_key, own_key
from holdtrue.declaration import Declaration
from holdtrue.errors import ConfigError, ServingError, StackError
from holdtrue.models import Signature, pipeline, typed, write_bundle
from holdtrue.serving import (
    Arm,
    Endpoint,
    capture_places,
    deploy,
    fold_in,
    read_captured,
    read_statistics,
    slate_of,
    undeploy,
)
from holdtrue.serving._deploy import ReplicaCounts, check_place, replicas_of
from holdtrue.serving._statistics import is_alive, read_replicas
from holdtrue.stack import Stack, free_ports
from holdtrue.store import put_on_path

pytestmark = pytest.mark.integration

CSV = "text/csv"
ESTIMATOR = "sklearn.linear_model.LogisticRegression"
SIGNATURE = Signature(
    target="late",
    task="classification",
    classes=("no", "yes"),
    columns={"distance": "integer", "carrier": "string"},
    categorical=("carrier",),
)
ROWS = [{"distance": 100 * n, "carrier": "AB"[n % 2]} for n in range(40)]


def declare(name: str, port: int, **serve: object) -> Declaration:
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
            "serve": {"port": port, "max_body_bytes": 100_000, **serve},
        }
    )


def arm(bundles, version, role="champion", weight=1.0):
    path, digest = bundles[version]
    return Arm(role=role, version=version, bundle=str(path), digest=digest, weight=weight)


def put(stack, declaration, store, *arms, rollout=None):
    return deploy(stack, declaration, slate_of(declaration, store, arms, rollout))


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
def declaration():
    return declare("flights", free_ports(1)[0])


@pytest.fixture(scope="module")
def url(stack, store, bundles, declaration):
    return put(stack, declaration, store, arm(bundles, 1))


@pytest.fixture
def key(store):
    return own_key(store)


@pytest.fixture
def headers(key):
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def endpoint(url, key):
    with Endpoint(url, key=key) as endpoint:
        yield endpoint


def _family(stack):
    """All processes that were started with the stack."""
    leaders = [psutil.Process(info.pid) for info in stack.state().processes]
    return [process for leader in leaders for process in (leader, *leader.children(recursive=True))]


@contextmanager
def asked(url, key, rows=ROWS[:2], threads=4):
    """Ask again and again; gives the versions that answered, and lets no request fail."""
    seen, failed, stop = [], [], threading.Event()

    def ask():
        with Endpoint(url, key=key) as endpoint:
            while not stop.is_set():
                try:
                    seen.append(endpoint.predict(rows)["version"])
                except Exception as err:  # noqa: BLE001 - no failure at all is allowed
                    failed.append(err)

    asking = [threading.Thread(target=ask) for _ in range(threads)]
    for thread in asking:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in asking:
            thread.join()
    assert not failed


def test_answers_one_row_and_many(endpoint, headers):
    answer = endpoint.predict(ROWS[:3])
    assert (answer["model"], answer["version"]) == ("flights", 1)
    assert len(set(answer["ids"])) == 3
    assert [p["class"] for p in answer["predictions"]] == ["no"] * 3
    assert sum(answer["predictions"][0]["probabilities"].values()) == pytest.approx(1)
    one = httpx.post(endpoint.url, json=ROWS[0], headers=headers).json()
    wrapped = httpx.post(endpoint.url, json={"rows": ROWS[:1]}, headers=headers).json()
    assert one["predictions"] == wrapped["predictions"] == answer["predictions"][:1]
    root = endpoint.url.removesuffix("/predict")
    about = httpx.get(root, headers=headers).json()
    assert about["columns"] == {"distance": "integer", "carrier": "string"}
    assert httpx.post(endpoint.url, json=about["example"], headers=headers).status_code == 200
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
def test_refuses_bad_requests(url, headers, content, status, said):
    answer = httpx.post(url, content=content, headers=headers)
    assert answer.status_code == answer.json()["status"] == status
    assert said in answer.json()["detail"]


def test_stops_reading_a_body_without_announced_length(url, headers):
    def endless():
        for _ in range(3_000):
            yield b" " * 1_000

    answer = httpx.post(url, content=endless(), headers=headers)
    assert answer.status_code == 413


def test_swaps_under_load_without_a_failed_request(stack, store, bundles, declaration, url, key):
    put(stack, declaration, store, arm(bundles, 1))
    with asked(url, key) as seen:
        put(stack, declaration, store, arm(bundles, 2))
        answered = len(seen)
        deadline = time.monotonic() + 10
        while len(seen) < answered + 20 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert {*seen} == {1, 2}
    assert {*seen[answered + 4 :]} == {2}


def test_a_broken_version_does_not_replace_a_good_one(
    stack, store, bundles, declaration, endpoint, tmp_path
):
    put(stack, declaration, store, arm(bundles, 1))
    for file in bundles[2][0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.skops").write_bytes(b"damaged")
    broken = Arm(role="champion", version=2, bundle=str(tmp_path), digest=bundles[2][1], weight=1)
    with pytest.raises(ServingError, match=r"version 2 cannot be served: .*damaged"):
        put(stack, declaration, store, broken)
    ready = endpoint.wait(1, bundles[1][1], 10)
    assert ready["refused"] is None
    assert endpoint.predict(ROWS[:1])["version"] == 1


def test_a_challenger_answers_its_share_of_the_keys_always_the_same(
    stack, store, bundles, declaration, endpoint
):
    def versions():
        asked = [[row | {"flight": number}] for number, row in enumerate(ROWS)]
        return [endpoint.predict(rows)["version"] for rows in asked]

    put(
        stack,
        declaration,
        store,
        arm(bundles, 1, weight=0.8),
        arm(bundles, 2, "challenger", 0.2),
        rollout="7",
    )
    small = versions()
    assert versions() == small
    put(
        stack,
        declaration,
        store,
        arm(bundles, 1, weight=0.2),
        arm(bundles, 2, "challenger", 0.8),
        rollout="7",
    )
    large = versions()
    assert {*small} == {*large} == {1, 2}
    assert all(after == 2 for before, after in zip(small, large, strict=True) if before == 2)
    put(stack, declaration, store, arm(bundles, 2))
    assert {*versions()} == {2}
    deadline = time.monotonic() + 10
    while read_statistics(store, "flights").of(1, "champion", "7").requests < small.count(1) * 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    counted = read_statistics(store, "flights")
    assert counted.of(1, "champion", "7").requests == 2 * small.count(1) + large.count(1)
    assert counted.of(2, "challenger", "7").requests == 2 * small.count(2) + large.count(2)


def test_nobody_answers_without_a_key(stack, store, declaration, url, headers):
    root = url.removesuffix("/predict")
    assert httpx.post(url, json=ROWS[0]).status_code == 401
    assert httpx.post(url, json=ROWS[0], headers={"authorization": "Bearer x"}).status_code == 401
    _, secret = create_key(store, "billing", ["predict"])
    theirs = {"authorization": f"Bearer {secret}"}
    assert httpx.post(url, json=ROWS[0], headers=theirs).status_code == 200
    assert httpx.get(f"{root}/metrics", headers=theirs).status_code == 403
    assert httpx.get(f"{root}/live").status_code == 200
    metrics = httpx.get(f"{root}/metrics", headers=headers)
    assert 'holdtrue_requests_total{role="champion",system="flights"' in metrics.text


def test_all_listen_on_the_loopback_address_only(stack, url):
    listening = [
        connection.laddr.ip
        for process in _family(stack)
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 3
    assert {ip.removeprefix("::ffff:") for ip in listening} <= {"127.0.0.1", "::1"}


def test_a_replica_of_compiled_models_imports_nothing_heavy(store, url, endpoint):
    endpoint.predict(ROWS[:1])
    (replica,) = _living(store, "flights")
    assert endpoint.ready()["arms"][0]["compiled"]
    heavy = {"pandas", "sklearn", "xgboost", "prefect", "mlflow", "scipy", "deltalake"}
    assert heavy & {name.partition(".")[0] for name in replica.modules} == set()
    assert "numpy" in replica.modules
    assert psutil.Process(replica.pid).nice() == os.nice(0)  # it gives way to nobody


def test_what_only_watches_gives_way(stack, url):
    dashboards = [
        process
        for process in _family(stack)
        if "dashboard.py" in str(process.cmdline()) or "dashboard-" in process.name()
    ]
    assert len(dashboards) > 2  # with those that it has started
    assert {process.nice() for process in dashboards} == {os.nice(0) + 5}


def test_no_request_fails_while_replicas_come_and_go(stack, store, bundles, key):
    port = free_ports(1)[0]
    one, two = (declare("scaled", port, replicas={"min": n, "max": n}) for n in (1, 2))
    url = put(stack, one, store, arm(bundles, 1))
    with asked(url, key) as seen:
        put(stack, two, store, arm(bundles, 1))
        _until(lambda: len(_living(store, "scaled")) == 2)
        both = _living(store, "scaled")
        before = {replica.id: _requests(replica) for replica in both}
        _until(
            lambda: all(_requests(r) > before[r.id] for r in _living(store, "scaled")), timeout_s=30
        )
        put(stack, one, store, arm(bundles, 1))
        _until(lambda: len(_living(store, "scaled")) == 1, timeout_s=40)
        answered = len(seen)
        _until(lambda: len(seen) > answered + 20)
    # Written each second; also what the replica that has gone had answered is in them.
    _until(lambda: read_statistics(store, "scaled").of(1).requests == len(seen))
    assert undeploy(stack, "scaled")


def test_replicas_follow_the_load(stack, store, bundles, key):
    replicas = {"min": 1, "max": 2, "target_ongoing_requests": 2, "down_after": "2s"}
    # On a busy machine the burst waits for long; none of it is to be refused.
    port = free_ports(1)[0]
    scaled = declare("burst", port, replicas=replicas, limits={"wait": "30s"})
    url = put(stack, scaled, store, arm(bundles, 1))
    with asked(url, key, threads=1) as seen:
        _until(lambda: len(seen) > 200)
    place = {"port": port, "host": "127.0.0.1"}
    one = ReplicaCounts(wanted=1, up_to_date=1, ready=1, **place)
    assert replicas_of(stack, "burst") == one
    with asked(url, key, ROWS * 25, threads=16):
        _until(lambda: len(_living(store, "burst")) == 2, timeout_s=60)
        both = ReplicaCounts(wanted=2, up_to_date=2, ready=2, **place)
        _until(lambda: replicas_of(stack, "burst") == both)
    with asked(url, key, threads=1):
        _until(lambda: len(_living(store, "burst")) == 1, timeout_s=60)
    assert undeploy(stack, "burst")
    assert replicas_of(stack, "burst") is None


def _until(done, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _living(store, system):
    folder = store.path("serving", system, "stats")
    return [replica for replica in read_replicas(folder) if is_alive(folder, replica.id)]


def _requests(replica):
    return sum(arm.requests for arm in replica.counts.arms)


def test_captures_each_answer_once(stack, store, bundles, declaration, endpoint):
    put(stack, declaration, store, arm(bundles, 1))
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


def test_a_time_is_a_feature(stack, store, bundles, declaration, url, headers, tmp_path):
    signature = SIGNATURE.model_copy(update={"columns": SIGNATURE.columns | {"departure": "time"}})
    start = datetime(2024, 5, 1, 0, 30, tzinfo=UTC)
    moments = [None if n == 7 else start + timedelta(hours=25 * n) for n in range(40)]
    rows = [
        row | {"departure": moment and moment.isoformat()}
        for row, moment in zip(ROWS, moments, strict=True)
    ]
    model = pipeline(ESTIMATOR, {}, signature, seed=0, threads=1)
    model.fit(typed(pd.DataFrame(rows), signature), [n // 20 for n in range(40)])
    digest = write_bundle(
        *(tmp_path / "3", model, signature), estimator=ESTIMATOR, params={}, sample=rows[:10]
    )
    put(stack, declaration, store, arm({3: (tmp_path / "3", digest)}, 3))
    wanted = model.predict_proba(typed(pd.DataFrame(rows), signature))[:, 1]
    frame = pd.DataFrame(rows).assign(departure=pd.Series(moments, dtype="datetime64[ns, UTC]"))
    stream = io.BytesIO()
    table = pa.Table.from_pandas(frame, preserve_index=False)
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    answers = [
        httpx.post(url, content=content, headers=headers | {"content-type": kind, "accept": CSV})
        for content, kind in (
            (json.dumps(rows), "application/json"),
            (pd.DataFrame(rows).to_csv(index=False), CSV),
            (stream.getvalue(), "application/vnd.apache.arrow.stream"),
        )
    ]
    found = [pd.read_csv(io.StringIO(answer.text))["probability_yes"] for answer in answers]
    assert (found[0] == found[1]).all()
    assert (found[0] == found[2]).all()
    assert found[0].to_numpy() == pytest.approx(wanted, abs=1e-9)
    late = httpx.post(url, json=rows[0] | {"departure": "2300-01-01"}, headers=headers)
    assert late.status_code == 422
    assert late.json()["errors"][0]["found"] == "a time outside of these years"
    assert not {"pandas", "sklearn"} & {*_living(store, "flights")[0].modules}
    put(stack, declaration, store, arm(bundles, 1))


def test_two_systems_are_served_each_on_its_port(stack, store, bundles, declaration, url, key):
    other = put(stack, declare("boats", free_ports(1)[0]), store, arm(bundles, 2))
    with Endpoint(url, key=key) as old, Endpoint(other, key=key) as new:
        assert old.predict(ROWS[:1])["model"] == "flights"
        assert new.predict(ROWS[:1])["model"] == "boats"
    elsewhere = declare("trains", declaration.serve.port)
    with pytest.raises(ConfigError, match="flights is served there"):
        put(stack, elsewhere, store, arm(bundles, 2))
    with pytest.raises(ConfigError, match="flights is served there"):
        check_place(stack, elsewhere)
    check_place(stack, declaration)
    assert undeploy(stack, "boats")
    assert not undeploy(stack, "boats")
    with Endpoint(other, key=key) as gone, pytest.raises(StackError):
        gone.predict(ROWS[:1])
    with Endpoint(url, key=key) as endpoint:
        assert endpoint.predict(ROWS[:1])["model"] == "flights"


def test_another_address_is_listened_on_where_it_is_declared_and_no_longer_than_that(
    stack, store, bundles, key
):
    port = free_ports(1)[0]
    # An address of this machine that a listener on 127.0.0.1 does not hear.
    elsewhere = f"http://127.0.0.2:{port}/moved/predict"
    for host, heard in (("127.0.0.1", False), ("0.0.0.0", True), ("127.0.0.1", False)):  # noqa: S104
        url = put(stack, declare("moved", port, host=host), store, arm(bundles, 1))
        assert url == f"http://127.0.0.1:{port}/moved/predict"
        with Endpoint(url, key=key) as endpoint, Endpoint(elsewhere, key=key) as other:
            assert endpoint.predict(ROWS[:1])["model"] == "moved"
            assert (other.ready() is not None) == heard
    with pytest.raises(ValueError, match="keys are needed"):
        declare("moved", port, host="0.0.0.0", access="open")  # noqa: S104
    assert undeploy(stack, "moved")


def test_a_first_version_that_is_broken_leaves_nothing(
    stack, store, bundles, declaration, url, key, tmp_path
):
    broken = declare("broken", free_ports(1)[0])
    none = Arm(
        role="champion", version=1, bundle=str(tmp_path / "none"), digest=bundles[1][1], weight=1
    )
    with pytest.raises(ServingError, match="cannot be read"):
        put(stack, broken, store, none)
    with Endpoint(f"http://127.0.0.1:{broken.serve.port}/broken/predict") as endpoint:
        assert endpoint.ready() is None
    with Endpoint(url, key=key) as endpoint:
        assert endpoint.ready() is not None


def test_needs_ray(store, bundles, declaration, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(StackError, match="no Ray is up"):
        put(Stack(store), declaration, store, arm(bundles, 1))


OWN = """
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class Always(ClassifierMixin, BaseEstimator):
    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, x):
        return np.tile([0.25, 0.75], (len(x), 1))
"""


def test_a_model_of_the_projects_own_class_is_served(stack, store, tmp_path, monkeypatch, key):
    """A replica does not run in the project's folder, and finds its modules nevertheless."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "own_always.py").write_text(OWN)
    monkeypatch.setattr(sys, "path", list(sys.path))
    put_on_path(project)
    model = pipeline("own_always.Always", {}, SIGNATURE, seed=0, threads=1)
    model.fit(typed(pd.DataFrame(ROWS), SIGNATURE), [n // 20 for n in range(40)])
    path = tmp_path / "bundle"
    digest = write_bundle(
        path, model, SIGNATURE, estimator="own_always.Always", params={}, sample=ROWS[:10]
    )
    declaration = declare("own", free_ports(1)[0])
    one = arm({1: (path, digest)}, 1)
    with pytest.raises(ServingError, match=r"own_always\.Always, which cannot be imported"):
        put(stack, declaration, store, one)
    url = deploy(stack, declaration, slate_of(declaration, store, [one], project=project))
    with Endpoint(url, key=key) as endpoint:
        predictions = endpoint.predict(ROWS[:2])["predictions"]
    assert [p["probabilities"]["yes"] for p in predictions] == [0.75, 0.75]
    undeploy(stack, "own")
