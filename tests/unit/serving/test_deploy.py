from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from holdtrue.access import keys_path
from holdtrue.declaration import Declaration
from holdtrue.errors import ConfigError, StackError
from holdtrue.serving import Arm, Slate, slate_of
from holdtrue.serving import _deploy as module
from holdtrue.serving._statistics import ReplicaStatistics, hold, write_replica
from holdtrue.stack import Stack
from holdtrue.store import Store

DECLARATION = {
    "name": "flights",
    "task": "classification",
    "data": {"source": {"files": "f.csv"}, "target": "late", "time": "at", "key": ["flight"]},
    "model": {"candidates": [{"estimator": "sklearn.linear_model.LogisticRegression"}]},
    "tune": {"metric": "log_loss"},
}


def declare(**serve):
    return Declaration.model_validate(DECLARATION | {"serve": serve})


def slate_for(declaration, tmp_path, version=3):
    arm = Arm(role="champion", version=version, bundle="/bundle", digest="0" * 32, weight=1)
    return slate_of(declaration, Store(tmp_path), [arm])


def test_the_slate_says_all_that_a_replica_needs(tmp_path):
    slate = slate_for(declare(capture="10%"), tmp_path)
    assert Slate.model_validate(slate.model_dump(mode="json")) == slate
    assert (slate.champion.version, slate.key, slate.time) == (3, ("flight",), "at")
    assert slate.capture.share == 0.1
    assert slate.capture.folder == str(tmp_path / "captured" / "flights" / "segments")
    assert slate.keys == str(keys_path(Store(tmp_path)))
    assert slate_for(declare(capture=0), tmp_path).capture is None
    assert slate_for(declare(access="open"), tmp_path).keys is None


def test_a_slate_has_a_name_that_survives_its_way_to_a_replica(tmp_path):
    slate = slate_for(declare(), tmp_path)
    assert Slate.model_validate(slate.model_dump(mode="json")).name == slate.name
    assert slate_for(declare(), tmp_path, version=4).name != slate.name


@pytest.mark.parametrize(
    ("replicas", "key", "value"),
    [
        ({"min": 2, "max": 2}, "num_replicas", 2),
        ({"min": 1, "max": 4}, "autoscaling_config", (1, 4, 32)),
    ],
)
def test_replicas_are_fixed_or_scaled(tmp_path, replicas, key, value):
    declaration = declare(replicas=replicas)
    (part,) = module._application(declaration, slate_for(declaration, tmp_path))["deployments"]
    if key == "autoscaling_config":
        found = part[key]
        names = ("min_replicas", "max_replicas", "target_ongoing_requests")
        assert tuple(found[name] for name in names) == value
        assert "num_replicas" not in part
    else:
        assert part[key] == value
        assert "autoscaling_config" not in part


def deployment_of(declaration, tmp_path):
    (part,) = module._application(declaration, slate_for(declaration, tmp_path))["deployments"]
    return part


@pytest.mark.parametrize(
    ("declared", "up_s", "down_s"),
    [
        ({}, 2, 60),
        ({"up_after": "0.5s", "down_after": "5m"}, 0.5, 300),
        ({"up_after": "1m", "down_after": "3s"}, 60, 3),
    ],
)
def test_how_soon_replicas_come_and_go_is_declared(tmp_path, declared, up_s, down_s):
    part = deployment_of(declare(replicas={"max": 4, **declared}), tmp_path)
    scaling = part["autoscaling_config"]
    assert (scaling["upscale_delay_s"], scaling["downscale_delay_s"]) == (up_s, down_s)
    assert scaling["look_back_period_s"] > scaling["metrics_interval_s"]


@pytest.mark.parametrize("replicas", [{"min": 1, "max": 1}, {"min": 2, "max": 4}])
def test_replicas_book_no_cpu(tmp_path, replicas):
    # They must start, too, while training has booked every one.
    part = deployment_of(declare(replicas=replicas), tmp_path)
    assert part["ray_actor_options"]["num_cpus"] == 0
    assert "num_gpus" not in part["ray_actor_options"]


def details_of(declaration, slate, target, *states):
    app = module._application(declaration, slate)
    replicas = [{"replica_id": str(i), "state": state} for i, state in enumerate(states)]
    part = {"status": "UPDATING", "target_num_replicas": target, "replicas": replicas}
    return {
        "applications": {"flights": {"deployed_app_config": app, "deployments": {"Replica": part}}}
    }


def test_it_is_said_how_many_replicas_there_are(tmp_path):
    declaration = declare(replicas={"min": 1, "max": 4})
    slate, before = (slate_for(declaration, tmp_path, version=v) for v in (4, 3))
    folder = Path(slate.statistics)
    living = [hold(folder, name) for name in ("a", "b", "c")]
    try:
        for name, served in (("a", slate), ("b", before), ("c", slate), ("gone", slate)):
            write_replica(folder, ReplicaStatistics(id=name, pid=1, at=0, slate=served.name))
        details = details_of(declaration, slate, 3, "RUNNING", "RUNNING", "STARTING")
        found = module.replica_counts(details, "flights")
        assert (found.wanted, found.up_to_date, found.ready) == (3, 2, 2)
        assert module.replica_counts(details, "boats") is None
        app = details["applications"]["flights"]["deployed_app_config"]
        app["deployments"][0]["user_config"]["of_another_time"] = 1
        found = module.replica_counts(details, "flights")
        assert (found.wanted, found.up_to_date, found.ready) == (3, 0, 2)
        assert module.replica_counts({"applications": {"flights": {}}}, "flights") is None
    finally:
        for descriptor in living:
            os.close(descriptor)


def test_nothing_is_said_of_replicas_where_nothing_serves(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert module.replicas_of(Stack(Store(tmp_path / "store")), "flights") is None


def test_a_version_changes_nothing_but_what_replicas_are_told(tmp_path):
    declaration = declare()
    first = slate_for(declaration, tmp_path)
    apps = [
        module._application(declaration, slate)
        for slate in (first, slate_for(declaration, tmp_path, version=4))
    ]
    told = [app["deployments"][0].pop("user_config") for app in apps]
    assert apps[0] == apps[1]
    assert told[0] != told[1]


def test_a_port_in_use_is_refused_before_anything_is_deployed():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} is in use"):
            module._check_port([], declare(port=port))
        # Its own replicas may listen there.
        module._check_port([{"name": "flights", "args": {"port": port}}], declare(port=port))


def test_each_system_has_a_port_of_its_own():
    served = [{"name": "boats", "args": {"port": 8700}}]
    with pytest.raises(ConfigError, match="boats is served there"):
        module._check_port(served, declare(port=8700))


@pytest.mark.parametrize(
    ("port", "host", "moved"),
    [(8700, "127.0.0.1", False), (8700, "0.0.0.0", True), (8701, "0.0.0.0", False)],  # noqa: S104
)
def test_an_address_is_free_for_another_one_on_the_same_port_when_it_was_left(
    tmp_path, port, host, moved
):
    before = {"name": "flights", "args": {"port": 8700}}  # as before there was a host
    declaration = declare(port=port, host=host)
    app = module._application(declaration, slate_for(declaration, tmp_path))
    assert app["args"] == {"port": port, "host": host}
    assert module._is_moved(before, app) is moved
    assert not module._is_moved({**before, "name": "boats"}, app)


def test_finds_the_reason_in_a_traceback():
    text = (
        "Traceback (most recent call last):\n  File x\nray.exceptions.RayTaskError: \n"
        "holdtrue.errors.ServingError: /b is damaged\n  restore it\n"
    )
    assert module.last_error(text) == "ServingError: /b is damaged"
    assert module.last_error("all is well") is None
