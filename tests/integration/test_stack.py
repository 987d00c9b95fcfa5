"""A real Ray and a real Prefect server: up, used, ended, with nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from holdtrue.errors import StackError
from holdtrue.stack import Stack, _prefect, port_is_free, ray_session
from holdtrue.stack._processes import _family, _runs
from holdtrue.store import Store

pytestmark = pytest.mark.integration

# As the command does it: Ray's settings are read when it is imported, so in a fresh process.
SESSION = """
import sys
from pathlib import Path
from holdtrue.stack import Stack, ray_session
from holdtrue.store import Store
address = sys.argv[2] if len(sys.argv) > 2 else None
with ray_session(Stack(Store(Path(sys.argv[1]))), address):
    import ray
    print("answer", ray.get(ray.remote(lambda: 40 + 2).remote()), flush=True)
    import ray._private.worker as worker
    print("folder", worker._global_node.get_temp_dir_path(), flush=True)
    import psutil
    for process in psutil.Process().children(recursive=True):
        print("process", *process.cmdline(), flush=True)
"""


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def stack(tmp_path):
    stack = Stack(Store(tmp_path / "store"))
    yield stack
    stack.down()


def session(store, *address, env=None):
    return subprocess.run(  # noqa: S603
        [sys.executable, "-c", SESSION, str(store), *address],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=env,
    )


def gone(family, deadline_s=10):
    deadline = time.monotonic() + deadline_s
    while left := [process for process in family if _runs(process)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    return True


@pytest.fixture
def taken(monkeypatch):
    """The port that Prefect usually has: somebody takes it just when it was found to be free."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = iter([True])
        monkeypatch.setattr(_prefect, "_USUAL_PORT", port)
        monkeypatch.setattr(
            _prefect, "port_is_free", lambda port: next(found, None) or port_is_free(port)
        )
        yield port


def test_up_use_and_down(stack, tmp_path, taken):
    errors = []

    def bring_up(up, *arguments):
        try:
            up(*arguments)
        except Exception as err:  # noqa: BLE001 - told to the main thread
            errors.append(err)

    threads = [
        threading.Thread(target=bring_up, args=(stack.up_ray,)),
        threading.Thread(target=bring_up, args=(stack.up_worker, tmp_path)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    state = stack.state()
    assert sorted(info.name for info in state.processes) == ["prefect", "ray", "worker"]
    assert (stack.up_ray(), stack.up_prefect(), stack.up_worker(tmp_path)) == (state,) * 3

    pools = f"{state.prefect_api}/work_pools/filter"
    assert httpx.post(pools, json={}).status_code == 401
    auth = tuple(stack.environment()["PREFECT_API_AUTH_STRING"].split(":"))
    assert [pool["name"] for pool in httpx.post(pools, json={}, auth=auth).json()] == ["holdtrue"]
    assert httpx.get(state.prefect_ui).status_code == 200
    assert not state.prefect_ui.endswith(f":{taken}")

    said = session(tmp_path / "store")
    assert "answer 42" in said.stdout, said.stderr
    theirs = os.environ | stack.ray_settings(state.ray_address)
    assert "answer 42" in session(tmp_path / "other", state.ray_address, env=theirs).stdout
    refused = session(tmp_path / "other", state.ray_address, env={**theirs, "RAY_AUTH_TOKEN": "x"})
    assert "StackError" in refused.stderr

    family = _family(state.processes)
    commands = [" ".join(process.cmdline()) for process in family]
    assert any("dashboard.py" in command for command in commands)
    assert not any("client.server" in c or "monitor.py" in c for c in commands), commands
    pids = {process.pid for process in family}
    heard = {c.laddr.ip for c in psutil.net_connections() if c.pid in pids and c.status == "LISTEN"}
    assert heard <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    ended = stack.down()
    assert [words.partition(" (")[0] for words in sorted(ended)] == [
        "Prefect server",
        "Prefect worker",
        "Ray",
    ]
    assert len(family) > 10
    assert gone(family, 0)
    assert not any(Path(folder).exists() for folder in state.folders)
    assert not [*(tmp_path / "state" / "holdtrue").iterdir()]
    with pytest.raises(httpx.ConnectError):
        httpx.get(state.prefect_ui)


def test_down_ends_what_a_killed_ray_left(stack):
    state = stack.up_ray()
    family = _family(state.processes)
    os.kill(state.process("ray").pid, signal.SIGKILL)
    assert gone([process for process in family if process.pid == state.process("ray").pid])
    assert stack.state().ray_address is None
    stack.down()
    assert gone(family, 0)
    assert not any(Path(folder).exists() for folder in state.folders)


def test_ctrl_c_while_starting_leaves_nothing(tmp_path):
    code = (
        "import sys; from pathlib import Path; from holdtrue.stack import Stack;"
        "from holdtrue.store import Store; Stack(Store(Path(sys.argv[1]))).up_ray(progress=print)"
    )
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", code, str(tmp_path / "store")], stderr=subprocess.PIPE
    ) as command:
        stack, deadline = Stack(Store(tmp_path / "store")), time.monotonic() + 30
        while not (state := stack.state()).processes:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (info,) = state.processes
        while not (children := psutil.Process(info.pid).children(recursive=True)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        command.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in command.stderr.read()
    assert gone(children)
    assert stack.state().processes == ()
    assert not any(Path(folder).exists() for folder in state.folders)
    stack.down()


def test_what_ends_is_started_again_until_the_one_who_stays_is_ended(tmp_path):
    stack = Stack(Store(tmp_path / ".holdtrue"))
    command = [sys.executable, "-m", "holdtrue.cli", "up", "--stay"]
    broken = tmp_path / "prefect.yaml"
    broken.write_text("deployments: [ {")
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as keeper:  # noqa: S603
        said = iter(keeper.stdout.readline, "")
        # Who waits for a line that does not come would wait for ever.
        watchdog = threading.Timer(300, keeper.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            assert any("looking after all of it" in line for line in said)
            broken.unlink()
            told = next(line for line in said if "is not served" in line)
            assert f"what prefect.yaml deploys is not served: {broken} is no YAML" in told
            # What ends while something is started is started, too, without a word of its own.
            assert any("all runs again" in line for line in said)
            before = stack.state()
            with pytest.raises(StackError, match="looks after this project already"):
                stack.looked_after().__enter__()
            os.kill(before.process("prefect").pid, signal.SIGKILL)
            told = next(line for line in said if "SIGKILL" in line)
            pid = before.process("prefect").pid
            assert f"the Prefect server (pid {pid}) was ended by SIGKILL" in told
            assert any("starting the Prefect worker" in line for line in said)
            deadline = time.monotonic() + 120
            while stack.missing() and time.monotonic() < deadline:
                time.sleep(0.5)
            after = stack.state()
            # Where people have it open; a worker of the old one is of no use to the new one.
            assert after.prefect_ui == before.prefect_ui
            assert after.process("worker").pid != before.process("worker").pid
            assert after.process("ray") == before.process("ray")
            family = _family(after.processes)
        finally:
            keeper.terminate()
        rest = [*said]
        watchdog.cancel()
    assert keeper.returncode == 0
    assert rest[-1].startswith("ended Ray (pid ") or rest[-1].startswith("ended Prefect")
    assert gone(family, 0)
    assert stack.missing() is None


def test_a_session_of_its_own_leaves_nothing(tmp_path):
    said = session(tmp_path / "store")
    assert "answer 42" in said.stdout, said.stderr
    said, *processes = said.stdout.split("\nprocess ")
    assert any("raylet" in process for process in processes)
    watchers = ("dashboard.py", "monitor.py")
    assert not any(name in process for process in processes for name in watchers), processes
    folder = said.partition("folder ")[2].strip()
    assert folder.startswith("/tmp/ht-")  # noqa: S108
    assert not Path(folder).exists()


def test_something_that_is_not_ray_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("holdtrue.stack._ray.ANSWER_TIMEOUT_S", 5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        stack = Stack(Store(tmp_path / "store"))
        with pytest.raises(StackError, match=f"{address} does not answer like a Ray"):
            stack.up_ray(address)
        with (
            pytest.raises(StackError, match=f"{address} does not answer like a Ray"),
            ray_session(stack, address),
        ):
            pass
