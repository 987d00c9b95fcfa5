import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.errors import ConfigError
from holdtrue.stack import Stack
from holdtrue.stack._resources import (
    Node,
    check_fits,
    check_trial_fits,
    cpus_each,
    this_machine,
)
from holdtrue.store import Store

SMALL, LARGE, GPU = Node(2), Node(16), Node(4, gpus=2.0)
nodes = st.lists(st.builds(Node, st.integers(1, 64)), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("cpus", "gpus", "there"),
    [
        (1, 0.0, [SMALL]),
        (2, 0.0, [SMALL]),
        (16, 0.0, [SMALL, LARGE]),
        (4, 2.0, [SMALL, LARGE, GPU]),
        (1, 0.5, [GPU]),
    ],
)
def test_a_trial_that_one_node_can_hold_is_accepted(cpus, gpus, there):
    check_fits(cpus, gpus, there)


@pytest.mark.parametrize(
    ("cpus", "gpus", "there", "said"),
    [
        (
            8,
            0.0,
            [SMALL],
            "tune.cpus: no node has 8; the largest has 2 CPUs and 0 GPUs",
        ),
        (
            1,
            1.0,
            [Node(1)],
            "tune.gpus: no node has 1; the largest has 1 CPU and 0 GPUs",
        ),
        (
            8,
            1.0,
            [LARGE, GPU],
            "tune.gpus: no node has 1 beside tune.cpus: 8; the largest has 4 CPUs and 2 GPUs",
        ),
    ],
)
def test_a_trial_that_no_node_can_hold_is_refused_in_one_sentence(cpus, gpus, there, said):
    with pytest.raises(ConfigError) as caught:
        check_fits(cpus, gpus, there)
    assert caught.value.message == said
    assert "ray.address" in caught.value.hint


@given(st.integers(1, 40), nodes)
def test_all_workers_fit_at_once_and_not_with_one_cpu_more(workers, there):
    cpus = cpus_each(workers, there)
    room = {each: sum(node.cpus // each for node in there) for each in (cpus, cpus + 1) if each}
    assert cpus == 0 or room[cpus] >= workers
    assert room[cpus + 1] < workers


def test_without_a_cluster_this_machine_is_asked(tmp_path, monkeypatch, declaration):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    stack = Stack(Store(tmp_path / "store"))
    most = this_machine().cpus
    assert most >= 1
    check_trial_fits(declaration(cpus=most), stack)
    with pytest.raises(ConfigError, match=rf"tune.cpus: no node has {most + 1}; .* has {most} CPU"):
        check_trial_fits(declaration(cpus=most + 1), stack)


def test_a_small_trial_asks_nobody(tmp_path, monkeypatch, declaration):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    # Nothing listens there.
    check_trial_fits(declaration(address="127.0.0.1:9"), Stack(Store(tmp_path / "store")))


@pytest.mark.parametrize(
    ("visible", "count"), [(None, 2), ("0", 1), ("0,1,2", 2), ("", 0), ("-1", 0)]
)
def test_only_visible_devices_count(tmp_path, monkeypatch, visible, count):
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr("holdtrue.stack._resources._NVIDIA", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert this_machine().gpus == count


@pytest.fixture
def declaration():
    from holdtrue.declaration import Declaration

    def make(cpus=1, address=None):
        return Declaration.model_validate(
            {
                "name": "small",
                "task": "classification",
                "data": {"source": {"files": "rows.csv"}, "target": "late"},
                "model": {"candidates": [{"estimator": "xgboost.XGBClassifier"}]},
                "tune": {"metric": "roc_auc", "cpus": cpus},
                "ray": {"address": address},
            }
        )

    return make
