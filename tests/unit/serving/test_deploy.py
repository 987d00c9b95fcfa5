from __future__ import annotations

import socket

import pytest

from holdtrue.access import keys_path
from holdtrue.declaration import Declaration
from holdtrue.errors import ConfigError, StackError
from holdtrue.serving import Arm, Slate, slate_of
from holdtrue.serving import _deploy as module
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
            module._check_port([], "flights", port)
        # Its own replicas may listen there.
        module._check_port([{"name": "flights", "args": {"port": port}}], "flights", port)


def test_each_system_has_a_port_of_its_own():
    served = [{"name": "boats", "args": {"port": 8700}}]
    with pytest.raises(ConfigError, match="boats is served there"):
        module._check_port(served, "flights", 8700)


def test_finds_the_reason_in_a_traceback():
    text = (
        "Traceback (most recent call last):\n  File x\nray.exceptions.RayTaskError: \n"
        "holdtrue.errors.ServingError: /b is damaged\n  restore it\n"
    )
    assert module.last_error(text) == "ServingError: /b is damaged"
    assert module.last_error("all is well") is None
