"""Two nodes on one machine: a search spreads over both, and outlives the death of one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from holdtrue.stack import Stack
from holdtrue.stack._processes import _family, end, start
from holdtrue.store import Store

pytestmark = pytest.mark.integration

TRIALS = 12
DEADLINE_S = 150

# In a process of its own: Ray's settings are read when it is imported, and what __main__ defines
# travels to the workers.
SEARCH = """
import json, os, sys, time
from pathlib import Path
import numpy as np
from holdtrue.declaration import Range, Stop
from holdtrue.stack import Stack, ray_session
from holdtrue.stack._resources import alive_nodes
from holdtrue.store import Store
from holdtrue.tuning._drive import drive
from holdtrue.tuning._space import Space
from holdtrue.tuning._types import Outcome, Search

class Objective:
    def __init__(self, data, runs, home):
        self.data, self.runs, self.home = data, runs, home
    def __call__(self, setting, watch):
        import ray
        node, x = ray.get_runtime_context().get_node_id(), setting.params["x"]
        with self.runs.open("a") as file:
            file.write(json.dumps({"x": x, "node": node}) + "\\n")
        began = time.perf_counter()
        value = float(ray.get(self.data)[-1]) - abs(x - 0.5)
        # Nothing ends before both nodes work, and on the second nothing ends at all.
        while self.runs.read_text().count(self.home) == self.runs.read_text().count("node"):
            time.sleep(0.1)
        time.sleep(0.3 if node == self.home else 300)
        seconds = time.perf_counter() - began
        return Outcome(state="complete", value=value, seconds=seconds, cpu_seconds=0.0)

store, runs, log, answer = map(Path, sys.argv[1:5])
with ray_session(Stack(Store(store)), None):
    import ray
    runs.touch()
    home = ray.get_runtime_context().get_node_id()
    deadline = time.monotonic() + 60
    while len(alive_nodes()) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    data = ray.put(np.arange(2_000_001, dtype="float64"))  # too large to travel with a task
    search = Search(
        metric="value", direction="higher", trials=int(sys.argv[5]), timeout_s=120, stop=Stop(),
        sampler="random",
    )
    space = Space.of({"x": Range(float=(0.0, 1.0))})
    driven = drive(
        Objective(data, runs, home), space, search, log=log, study_name="test",
        progress=lambda live: None,
    )
    answer.write_text(json.dumps({
        "numbers": [trial.number for trial in driven.trials],
        "states": [trial.state for trial in driven.trials],
        "values": [trial.value for trial in driven.trials],
        "xs": [trial.params["x"] for trial in driven.trials],
        "stopped": driven.stopped, "workers": driven.workers, "home": home,
    }))
"""


# As `ray start --address` does it, which refuses to where nothing may listen beyond the loopback
# address.
NODE = """
import sys, time
from ray._private.node import Node
from ray._private.parameter import RayParams
params = RayParams(
    gcs_address=sys.argv[1], node_ip_address="127.0.0.1", num_cpus=2,
    object_store_memory=200_000_000, min_worker_port=0, max_worker_port=0,
)
node = Node(params, head=False, shutdown_at_exit=True, spawn_reaper=False)
while True:
    time.sleep(1)
"""


@pytest.fixture
def stack(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        monkeypatch.delenv(name, raising=False)
    stack = Stack(Store(tmp_path / "store"))
    yield stack
    stack.down()


@contextmanager
def second_node(stack, tmp_path):
    """A node beside the head, as on a machine of its own; with two CPUs, whatever there are."""
    state = stack.state()
    command = [sys.executable, "-c", NODE, state.ray_address]
    env = stack.ray_settings(state.ray_address) | {"TMPDIR": state.folders[0]}
    info = start("node", command, env=env, cwd=tmp_path, log=tmp_path / "node.log")
    try:
        yield info
    finally:
        end([info])


def lines(path):
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def until(ready, process, log):
    deadline = time.monotonic() + DEADLINE_S
    while not (found := ready()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return found


def kill(info):
    for process in _family([info]):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def test_a_search_spreads_over_two_nodes_and_outlives_one(stack, tmp_path):
    stack.up_ray()
    runs, answer = tmp_path / "runs.jsonl", tmp_path / "answer.json"
    files = [tmp_path / "store", runs, tmp_path / "study.log", answer]
    command = [sys.executable, "-c", SEARCH, *map(str, files), str(TRIALS)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as driver:  # noqa: S603
        try:
            # Connected to the head before there is another node to connect to.
            until(runs.exists, driver, tmp_path / "node.log")
            with second_node(stack, tmp_path) as node:
                until(
                    lambda: len({run["node"] for run in lines(runs)}) == 2,
                    driver,
                    tmp_path / "node.log",
                )
                kill(node)
                _, complained = driver.communicate(timeout=DEADLINE_S)
        finally:
            driver.kill()
    assert driver.returncode == 0, complained
    driven = json.loads(answer.read_text())
    assert driven["numbers"] == list(range(TRIALS))
    assert driven["states"] == ["complete"] * TRIALS
    # The data were put by the driver, whose node lives.
    assert driven["values"] == [2_000_000 - abs(x - 0.5) for x in driven["xs"]]
    assert len(set(driven["xs"])) == TRIALS
    # What ran on the dead node was run again with the same setting; nothing else was.
    started = lines(runs)
    lost = [run["x"] for run in started if run["node"] != driven["home"]]
    assert lost
    assert sorted(run["x"] for run in started) == sorted(driven["xs"] + lost)
