"""Capture under load on a real Ray Serve: replicas are killed, and no acknowledged row is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta

import httpx
import numpy as np
import pandas as pd
import pytest

from holdtrue.access import own_key
from holdtrue.declaration import Declaration
from holdtrue.models import Signature, pipeline, typed, write_bundle
from holdtrue.registry import Registry
from holdtrue.serving import Arm, capture_places, deploy, fold_in, read_captured, slate_of
from holdtrue.serving._statistics import is_alive, read_replicas
from holdtrue.stack import free_ports
from holdtrue.trace import trace

pytestmark = pytest.mark.integration

ESTIMATOR, PARAMS = "xgboost.XGBClassifier", {"n_estimators": 10, "max_depth": 3}
SIGNATURE = Signature(
    target="late",
    task="classification",
    classes=("no", "yes"),
    columns={"distance": "number", "carrier": "string"},
    categorical=("carrier",),
)
CHANCE = np.random.default_rng(0)
ROWS = [{"distance": float(CHANCE.normal()), "carrier": "ABC"[n % 3]} for n in range(300)]
CLIENTS, KILLS = 3, 2


@pytest.fixture(scope="module")
def arm(store):
    """A registered version, as the champion."""
    frame = typed(pd.DataFrame(ROWS), SIGNATURE)
    model = pipeline(ESTIMATOR, PARAMS, SIGNATURE, seed=0, threads=1)
    model.fit(frame, [int(row["distance"] > 0) for row in ROWS])
    path = store.path("bundles", "flights", "one")
    digest = write_bundle(
        path, model, SIGNATURE, estimator=ESTIMATOR, params=PARAMS, sample=ROWS[:20]
    )
    version = Registry(store).register(
        "flights",
        digest=digest,
        bundle=store.relative(path),
        as_of=datetime(2013, 7, 1, tzinfo=UTC),
        passed=True,
        reason="test",
        incumbent=None,
        metrics={},
        profile="profiles/flights/one",
        lineage={},
    )
    return Arm(role="champion", version=version.number, bundle=str(path), digest=digest, weight=1.0)


@pytest.fixture(scope="module")
def port():
    return free_ports(1)[0]


def declare(port: int, **serve: object) -> Declaration:
    return Declaration.model_validate(
        {
            "name": "flights",
            "task": "classification",
            "data": {"source": {"files": "flights.csv"}, "target": "late", "key": ["flight"]},
            "model": {"candidates": [{"estimator": ESTIMATOR}]},
            "tune": {"metric": "log_loss"},
            "serve": {"port": port, "explain": True, **serve},
        }
    )


def replica_ids(folder):
    """Process ids of the replicas that run, by name."""
    return {r.id: r.pid for r in read_replicas(folder) if is_alive(folder, r.id)}


class Load:
    """Clients that ask, each with one retry, and note the ids of what was answered."""

    def __init__(self, url: str, key: str) -> None:
        self.ids: list[str] = []
        self.failed: list[str] = []
        self._url, self._headers = url, {"authorization": f"Bearer {key}"}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, count: int) -> None:
        wanted, deadline = len(self.ids) + count, time.monotonic() + 120
        while len(self.ids) < wanted:
            assert time.monotonic() < deadline, self.failed[-3:]
            time.sleep(0.02)

    def _run(self, number: int) -> None:
        # One row, some, and as many as are scored in another way.
        sizes = (1, 1, 5, 300)
        with httpx.Client(headers=self._headers, timeout=30) as client:
            turn = number
            while not self._stop.is_set():
                turn += 1
                rows = [row | {"flight": turn} for row in ROWS[: sizes[turn % len(sizes)]]]
                try:
                    answer = client.post(self._url, json=rows)
                    answer.raise_for_status()
                except httpx.HTTPError as err:  # not acknowledged; the row may be captured
                    self.failed.append(repr(err))
                    time.sleep(0.1)
                    continue
                self.ids += answer.json()["ids"]


def captured(store, wanted):
    """The ids in the table, once all that are wanted are there."""
    folder, table = capture_places(store, "flights")
    now = datetime.now(UTC)
    deadline = time.monotonic() + 60
    while True:
        fold_in(folder, table)
        found = read_captured(table, now - timedelta(days=1), now + timedelta(days=1))
        ids = found["id"].to_pylist()
        if {*wanted} <= {*ids} or time.monotonic() > deadline:
            return ids
        time.sleep(0.2)


@pytest.mark.parametrize("durable", [False, True], ids=["usual", "durable"])
def test_every_acknowledged_prediction_is_captured_once_though_replicas_are_killed(
    stack, store, arm, port, durable
):
    declaration = declare(port, durable=durable, replicas={"min": 2, "max": 2})
    slate = slate_of(declaration, store, [arm])
    url = deploy(stack, declaration, slate)
    statistics = store.path("serving", "flights", "stats")
    killed = []
    with Load(url, own_key(store)) as load:
        for _ in range(KILLS):
            load.wait_for(1_000)
            alive = {n: pid for n, pid in replica_ids(statistics).items() if pid not in killed}
            victim = min(alive.values())
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)
            load.wait_for(1_000)
    assert len(load.ids) == len({*load.ids})
    ids = captured(store, load.ids)
    assert {*load.ids} - {*ids} == set()
    assert len(ids) == len({*ids})
    # A sample of them, of each size of request, leads back to the very same scores.
    for name in load.ids[:: max(1, len(load.ids) // 15)]:
        assert trace(store, declaration, name).recomputed.identical


def test_an_answer_comes_with_its_explanation_where_it_is_asked_for(stack, store, arm, port):
    declaration = declare(port)
    url = deploy(stack, declaration, slate_of(declaration, store, [arm]))
    headers = {"authorization": f"Bearer {own_key(store)}"}
    answer = httpx.post(f"{url}?explain=true", json=ROWS[:2], headers=headers, timeout=60)
    content = answer.raise_for_status().json()
    for said, answered in zip(content["explanations"], content["predictions"], strict=True):
        assert {*said["contributions"]} == {*SIGNATURE.columns}
        total = said["base"] + sum(said["contributions"].values())
        assert total == pytest.approx(said["score"], abs=1e-9)
        chance = 1 / (1 + np.exp(-said["score"]))
        assert chance == pytest.approx(answered["probabilities"][said["class"]], abs=1e-6)
