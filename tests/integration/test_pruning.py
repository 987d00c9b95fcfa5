"""Trials that are ended early, on a real Ray, and what it saves."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from holdtrue.declaration import Pruner
from holdtrue.stack import Stack, ray_session
from holdtrue.store import Store
from holdtrue.tuning._folds import Fold
from holdtrue.tuning._hub import Hub
from holdtrue.tuning._trial import Contender, FoldsObjective
from holdtrue.tuning._types import Setting
from holdtrue.tuning._watch import make_watch

pytestmark = pytest.mark.integration

MEDIAN = Pruner(rule="median")
XGB, LINEAR = "xgboost.XGBClassifier", "sklearn.linear_model.LogisticRegression"


@pytest.fixture(scope="module", autouse=True)
def own_ray(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("ray")
        patch.setenv("XDG_STATE_HOME", str(folder))
        patch.setenv("PYTHONPATH", str(Path.cwd()))
        patch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 2}')
        before = dict(os.environ)
        with ray_session(Stack(Store(folder / "store")), None):
            import ray

            ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
            yield
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


def make_folds():
    chance = np.random.default_rng(0)
    x = chance.normal(size=(4_000, 10)).astype("float32")
    y = (x[:, 0] * x[:, 1] + x[:, 2] + chance.normal(size=4_000) > 0).astype("int64")
    parts = np.array_split(np.arange(4_000), 3)
    return [Fold(np.delete(x, p, 0), np.delete(y, p), x[p], y[p]) for p in parts]


def make_objective(rule):
    import ray

    folds = ray.put(make_folds())
    contenders = {
        "xgb": Contender(XGB, {"n_estimators": 100}, "plain", folds),
        "linear": Contender(LINEAR, {}, "plain", folds),
    }
    study = f"study {time.monotonic_ns()}"
    return FoldsObjective(contenders, "log_loss", ("no", "yes"), 0, 1, rule, study)


def settings():
    """Half of them learn far too slowly; one linear model in eight."""
    chance = np.random.default_rng(1)
    rates = [float(chance.uniform(0.05, 0.2)) if n % 2 else 1e-4 for n in range(24)]
    return [
        Setting("linear", {"C": 1.0})
        if n % 8 == 7
        else Setting("xgb", {"learning_rate": rate, "max_depth": int(chance.integers(3, 7))})
        for n, rate in enumerate(rates)
    ]


def run_study(rule, hub=None, n_trials=24, between=lambda done: None):
    """Two trials at a time, told to the hub as they end."""
    import ray

    def run(boxed, number, setting, address):
        watch = make_watch(address, number, rule=rule, direction="lower")
        return ray.get(boxed[0])(setting, watch)

    remote = ray.remote(run)
    boxed = [ray.put(make_objective(rule))]
    waiting, running, outcomes = list(enumerate(settings()))[:n_trials], {}, {}
    while waiting or running:
        while waiting and len(running) < 2:
            number, setting = waiting.pop(0)
            address = hub and hub.address
            running[remote.remote(boxed, number, setting, address)] = number
        done, _ = ray.wait(list(running))
        number = running.pop(done[0])
        outcomes[number] = ray.get(done[0])
        if hub is not None:
            hub.finish(number, outcomes[number])
        between(len(outcomes))
    return [outcomes[number] for number in sorted(outcomes)]


def test_pruning_saves_work_and_keeps_the_best():
    run_study(None, n_trials=8)  # the workers import what they need
    whole = run_study(None)
    hub = Hub(MEDIAN, "lower")
    pruned = run_study(MEDIAN, hub)
    assert {outcome.state for outcome in whole} == {"complete"}
    ended = [outcome for outcome in pruned if outcome.state == "pruned"]
    assert len(ended) >= 3
    for outcome in ended:
        assert outcome.reports
        assert outcome.value == outcome.reports[-1].value
        assert 0 < outcome.share < 1
        assert outcome.reason is None
    cpu = [sum(outcome.cpu_seconds for outcome in study) for study in (whole, pruned)]
    print(f"CPU s: {cpu}, pruned: {len(ended)}, work: {sum(o.share for o in pruned) / 24:.2f}")  # noqa: T201
    assert cpu[1] < cpu[0]
    assert min(o.value for o in pruned if o.state == "complete") == min(o.value for o in whole)


def test_a_hub_that_ends_fails_no_trial():
    hub = Hub(MEDIAN, "lower")

    def between(n_done):
        if n_done == 6:
            hub.close()

    outcomes = run_study(MEDIAN, hub, 12, between)
    assert {outcome.state for outcome in outcomes} <= {"complete", "pruned"}
    assert [outcome.reason for outcome in outcomes] == [None] * 12
