"""A real endpoint under load while versions take over, go back, and are swapped by hand."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
import yaml

from holdtrue.models import Signature, pipeline, typed, write_bundle
from holdtrue.references import Estimate
from holdtrue.release import advance, drive, looks, promote, rollback, start
from holdtrue.serving import Endpoint
from holdtrue.stack import Stack, free_ports
from holdtrue.store import HOME_VARIABLE
from holdtrue.system import System

pytestmark = pytest.mark.integration

ESTIMATOR = "sklearn.linear_model.LogisticRegression"
SIGNATURE = Signature(
    target="late",
    task="classification",
    classes=("no", "yes"),
    columns={"distance": "number", "delay": "number"},
    categorical=(),
)
ROWS = [{"distance": float(n), "delay": float(n % 7)} for n in range(40)]
WIDER_SIGNATURE = SIGNATURE.model_copy(update={"columns": SIGNATURE.columns | {"tide": "number"}})
WIDER_ROWS = [row | {"tide": float(n % 5)} for n, row in enumerate(ROWS)]
GOOD, ALSO_GOOD, FAILING, DAMAGED, WIDER = 1, 2, 3, 4, 5


def train(c: float, signature: Signature, rows: list[dict[str, float]]):
    frame = typed(pd.DataFrame(rows), signature)
    model = pipeline(ESTIMATOR, {"C": c}, signature, seed=0, threads=1)
    return model.fit(frame, [n % 2 for n in range(40)])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A declaration with a store and five registered versions, the first of them the champion."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(folder / "store"))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        document = {
            "name": "flights",
            "task": "classification",
            "data": {"source": {"files": "flights.csv"}, "target": "late", "key": ["flight"]},
            "model": {"candidates": [{"estimator": ESTIMATOR}]},
            "tune": {"metric": "log_loss"},
            "serve": {
                "port": free_ports(1)[0],
                "access": "open",
                "capture": "0%",
                "rollout": {
                    "canary": ["20%", "50%", "100%"],
                    "every": "2s",
                    "requests": 40,
                    "shadow": True,
                },
            },
        }
        (folder / "flights.yaml").write_text(yaml.safe_dump(document))
        system = System(folder / "flights.yaml")
        for number in (GOOD, ALSO_GOOD, FAILING, DAMAGED, WIDER):
            register(system, number)
        system.registry.promote("flights", GOOD, generation=0, reason="the first")
        yield folder / "flights.yaml"


def register(system: System, number: int) -> None:
    wide = number == WIDER
    signature, rows = (WIDER_SIGNATURE, WIDER_ROWS) if wide else (SIGNATURE, ROWS)
    model = train(1.0 / number, signature, rows)
    if number == FAILING:
        # Of rows far from those that it has seen, infinity less infinity.
        model[-1].coef_ = np.array([[1e308, -1e308]])
    folder = system.store.path("bundles", "flights", str(number))
    with warnings.catch_warnings():
        # As an error, the overflow of the one that fails would keep it from being compiled, and
        # its pipeline answers the far rows with numbers.
        warnings.simplefilter("ignore", RuntimeWarning)
        digest = write_bundle(
            folder, model, signature, estimator=ESTIMATOR, params={"C": 1.0}, sample=rows[18:22]
        )
    if number == DAMAGED:
        (folder / "model.skops").write_bytes(b"damaged")
    system.registry.register(
        "flights",
        digest=digest,
        bundle=system.store.relative(folder),
        as_of=pd.Timestamp("2024-01-01", tz="UTC").to_pydatetime(),
        passed=True,
        reason="all gates held",
        incumbent=None,
        metrics={"log_loss": Estimate(value=0.5, low=0.4, high=0.6)},
        profile="profiles/1",
        lineage={},
    )


@pytest.fixture(scope="module")
def served(path):
    """The system, with its champion answering."""
    system = System(path)
    stack = Stack(system.store)
    try:
        stack.up_ray()
        from holdtrue.plan import serve_champion

        serve_champion(system.context())
        yield system
    finally:
        stack.down()


@pytest.fixture
def context(served):
    """With version 1 as the champion, and no rollout."""
    context = served.context()
    champion = context.registry.champion("flights")
    if context.registry.running_rollout("flights") is not None:
        rollback(context, to=None, reason="the next test")
    if champion.version.number != GOOD:
        promote(context, GOOD, reason="the next test")
    return context


class Load:
    """What a client has seen."""

    def __init__(self) -> None:
        self.versions: list[tuple[int, int]] = []
        self.moments: list[datetime] = []
        self.failed: list[Exception] = []

    def since(self, n: int) -> set[int]:
        """Versions that have answered since so many requests."""
        return {version for _, version in self.versions[n:]}


@contextmanager
def load(context, rows=ROWS):
    url = f"http://127.0.0.1:{context.declaration.serve.port}/flights/predict"
    seen, stopping = Load(), threading.Event()
    numbers = itertools.count()

    def ask() -> None:
        with Endpoint(url) as endpoint:
            while not stopping.is_set():
                number = next(numbers) % 500
                try:
                    row = rows[number % len(rows)] | {"flight": number}
                    moment = datetime.now(UTC)
                    seen.versions.append((number, endpoint.predict([row])["version"]))
                    seen.moments.append(moment)
                except Exception as err:  # noqa: BLE001 - what fails is looked at by the test
                    seen.failed.append(err)
                time.sleep(0.002)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def wait_for(found, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_good_version_takes_over_step_by_step_without_a_failed_request(context) -> None:
    with load(context) as seen:
        begun = start(context, ALSO_GOOD)
        assert begun.is_shadow
        looked = [rollout.where for rollout in looks(context, 0.5)]
        n = len(seen.versions)
        wait_for(lambda: len(seen.versions) > n + 50)
    ended = context.registry.rollouts("flights")[-1]
    assert seen.failed == []
    assert ended.state == "finished", ended.reason
    verdicts = context.registry.verdicts(ended.id)
    assert [v.action for v in verdicts] == ["advance", "advance", "finish"]
    assert {"step 1 of 4, shadow", "step 2 of 4, 20% of the requests"} <= {*looked}
    # A shadow answers nothing, and a caller changes to the new version once.
    asked = sum(moment < verdicts[0].at for moment in seen.moments)
    assert asked > 40
    assert {version for _, version in seen.versions[:asked]} == {GOOD}
    for flight in range(500):
        answers = [version for number, version in seen.versions if number == flight]
        assert answers == sorted(answers)
    assert seen.since(n + 10) == {ALSO_GOOD}
    assert context.registry.champion("flights").version.number == ALSO_GOOD
    assert "rolled out over version 1" in context.registry.history("flights")[-1].reason
    page = context.store.path("reports", "flights", "rollouts.html").read_text()
    assert "Version 2 over version 1" in page
    assert "<svg" in page


def test_a_version_that_fails_goes_back_by_itself(context) -> None:
    far = [{"distance": 1e6, "delay": 1e6}, *ROWS[18:22]]
    with load(context, far) as seen:
        start(context, FAILING)
        ended = drive(context, lambda rollout: None, look_every_s=0.5)
        wait_for(lambda: context.registry.running_rollout("flights") is None)
        n, failed = len(seen.versions), len(seen.failed)
        wait_for(lambda: len(seen.versions) > n + 100)
    assert (ended.state, ended.step) == ("back", 0), ended.reason
    assert "it fails more often" in ended.reason
    # The shadow failed, so that nobody has noticed anything.
    assert seen.failed == []
    assert failed == 0
    assert seen.since(0) == {GOOD}
    assert context.registry.champion("flights").version.number == GOOD


def test_a_canary_that_takes_other_columns_costs_no_request_and_goes_back(context) -> None:
    declared = context.declaration
    canary = declared.serve.rollout.model_copy(update={"shadow": False})
    serve = declared.serve.model_copy(update={"rollout": canary})
    at_once = replace(context, declaration=declared.model_copy(update={"serve": serve}))
    with load(at_once) as seen:
        begun = start(at_once, WIDER)
        assert not begun.is_shadow
        ended = drive(at_once, lambda rollout: None, look_every_s=0.5)
        n = len(seen.versions)
        wait_for(lambda: len(seen.versions) > n + 50)
    assert (ended.state, ended.step) == ("back", 0), ended.reason
    assert "it fails more often" in ended.reason
    assert ended.evidence.seen.challenger.failures == ended.evidence.seen.challenger.requests > 0
    assert seen.failed == []
    assert seen.since(0) == {GOOD}


def test_a_version_that_cannot_be_loaded_is_sent_back_with_the_reason(context) -> None:
    with load(context) as seen:
        with pytest.raises(Exception, match=r"version 4 cannot be rolled out: .*damaged"):
            start(context, DAMAGED)
        n = len(seen.versions)
        wait_for(lambda: len(seen.versions) > n + 50)
    assert seen.failed == []
    assert seen.since(0) == {GOOD}
    last = context.registry.rollouts("flights")[-1]
    assert (last.challenger, last.state) == (DAMAGED, "back")


def test_a_killed_rollout_is_gone_on_with(context, path) -> None:
    with load(context) as seen:
        begun = start(context, ALSO_GOOD)
        command = [sys.executable, "-m", "holdtrue.cli", "rollout", "run", str(path)]
        driver = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [*command, "--every", "0.3"], env=os.environ, stdout=subprocess.DEVNULL
        )
        try:
            wait_for(lambda: context.registry.running_rollout("flights").step >= 1, 120)
        finally:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
        left = context.registry.running_rollout("flights")
        assert left is not None
        assert left.id == begun.id
        assert left.evidence.seen.challenger.requests >= 40
        ended = drive(context, lambda rollout: None, look_every_s=0.5)
    assert ended.id == begun.id
    assert ended.state == "finished", ended.reason
    assert seen.failed == []
    # Each step was decided once.
    actions = [verdict.action for verdict in context.registry.verdicts(ended.id)]
    assert actions == ["advance", "advance", "finish"]


def test_promotion_and_rollback_by_hand_lose_no_request(context) -> None:
    with load(context) as seen:
        promote(context, ALSO_GOOD, reason="by hand")
        n = len(seen.versions)
        wait_for(lambda: len(seen.versions) > n + 50)
        assert seen.since(n + 10) == {ALSO_GOOD}
        assert rollback(context, to=None, reason="no good") == GOOD
        n = len(seen.versions)
        wait_for(lambda: len(seen.versions) > n + 50)
    assert seen.failed == []
    assert seen.since(n + 10) == {GOOD}


def test_other_shares_are_those_of_a_rollout_that_runs_and_lose_no_request(context) -> None:
    from holdtrue.plan import serve_champion

    declared = context.declaration

    def with_steps(canary):
        rollout = declared.serve.rollout.model_copy(update={"canary": canary, "shadow": False})
        serve = declared.serve.model_copy(update={"rollout": rollout})
        return replace(context, declaration=declared.model_copy(update={"serve": serve}))

    with load(context) as seen:
        start(with_steps((0.1, 1.0)), ALSO_GOOD)
        serve_champion(with_steps((0.9, 1.0)))
        running = context.registry.running_rollout("flights")
        assert (running.share, running.plan.shares) == (0.9, (0.9,))
        n = len(seen.versions)
        wait_for(lambda: len(seen.versions) > n + 200)
    assert seen.failed == []
    later = [version for _, version in seen.versions[n + 10 :]]
    assert later.count(ALSO_GOOD) > 0.75 * len(later)
    assert rollback(context, to=None, reason="enough") == GOOD


def test_promotion_by_hand_ends_a_rollout(context) -> None:
    with load(context):
        start(context, ALSO_GOOD)
        promote(context, FAILING, reason="by hand")
        assert advance(context) is None
    assert context.registry.rollouts("flights")[-1].state == "stopped"


def test_the_endpoint_follows_a_rollout_that_is_rolled_back(context, served) -> None:
    with load(context) as seen:
        start(context, ALSO_GOOD)
        assert served.status().rollout.state == "running"
        assert served.rollback(reason="no good") == GOOD
        n = len(seen.versions)
        wait_for(lambda: len(seen.versions) > n + 50)
    assert seen.failed == []
    assert served.status().rollout.state == "stopped"
    with Endpoint(served.status().endpoint) as endpoint:
        assert [arm["role"] for arm in endpoint.ready()["arms"]] == ["champion"]
