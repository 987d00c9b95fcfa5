"""Start a Ray head that outlives the command, or find out about one that runs elsewhere."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from holdtrue.errors import StackError
from holdtrue.stack._processes import (
    LOOPBACK,
    end,
    free_ports,
    start,
    wait_until_ready,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdtrue.stack._state import Private, StackState

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Without this, autoscaling looks at the load only every 10 s.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    # Ray ends a worker whose machine runs out of memory, and would run its task again for ever.
    "RAY_task_oom_retries": "2",
    # Replicas are workers too, and give way to nobody; see `holdtrue.priority`.
    "RAY_worker_niceness": "0",
    # A thread of OpenMP that waits for another one turns on its core, which others need: beside two
    # busy processes, a fit by two threads took 2 to 5 s so, and takes 0.2 to 0.3.
    "OMP_WAIT_POLICY": "passive",
    # The function that workers call first.
    "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR": "holdtrue.serving._hook.prepare",
}
# Of a Ray that ends with the command: nobody reads its metrics, which take a fifth of the CPU time
# that its own processes take.
UNWATCHED = {"RAY_enable_metrics_collection": "0", "RAY_event_stats": "0"}
# Ray's own switch for machines where nothing may listen beyond the loopback address; without it
# Ray replaces 127.0.0.1 by the address of the network card.
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
ANSWER_TIMEOUT_S = 15.0
_ATTEMPTS = 3
_START_TIMEOUT_S = 90.0
_PROBE = """
import sys, ray
context = ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print("dashboard", context.dashboard_url or "")
"""


def new_folder() -> Path:
    """A temporary folder for Ray: short, for the paths of its sockets are limited to 107 bytes."""
    short = Path("/tmp")  # noqa: S108 - mkdtemp makes a folder of our own in it
    return Path(tempfile.mkdtemp(prefix="ht-", dir=short if short.is_dir() else None))


def start_head(private: Private, logs: Path, cwd: Path, env: Mapping[str, str]) -> StackState:
    """Start a Ray head on the loopback address and remember it.

    Raises:
        StackError: It did not start, several times.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _start_once(private, logs / "ray.log", cwd, env)
        except StackError:  # Ray gives its parts 30 s, which a busy machine exceeds
            if attempt == _ATTEMPTS:
                raise
    raise AssertionError


def _start_once(private: Private, log: Path, cwd: Path, env: Mapping[str, str]) -> StackState:
    ports = free_ports(7)
    folder = new_folder()
    started = None
    try:
        private.update(lambda s: s.model_copy(update={"folders": (*s.folders, str(folder))}))
        # Ray's processes leave folders where temporary files go: they must go with this one.
        env = {**env, "TMPDIR": str(folder)}
        info = started = start("ray", _command(ports, folder), env=env, cwd=cwd, log=log)
        private.update(lambda s: s.model_copy(update={"processes": (*s.processes, info)}))
        wait_until_ready(
            info,
            log,
            "Ray",
            lambda: b"Ray runtime started" in log.read_bytes(),
            _START_TIMEOUT_S,
        )
        return private.update(
            lambda s: s.model_copy(
                update={
                    "ray_address": f"{LOOPBACK}:{ports[0]}",
                    "ray_dashboard": f"http://{LOOPBACK}:{ports[1]}",
                    "ray_owned": True,
                }
            )
        )
    except BaseException:  # also Ctrl-C: nothing half started is left behind
        if started is not None:
            end([started])
        forget(private, folder)
        raise


def forget(private: Private, *folders: Path) -> None:
    """Remove what a Ray head of ours left, and the memory of it."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    gone = {str(folder) for folder in folders}
    private.update(
        lambda s: s.model_copy(
            update={
                "ray_address": None,
                "ray_dashboard": None,
                "ray_owned": False,
                "processes": tuple(info for info in s.processes if info.name != "ray"),
                "folders": tuple(folder for folder in s.folders if folder not in gone),
            }
        )
    )


def _command(ports: list[int], folder: Path) -> list[str]:
    names = (
        "port",
        "dashboard-port",
        "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port",
        "runtime-env-agent-port",
        "metrics-export-port",
        "node-manager-port",
    )
    return [
        *(sys.executable, "-m", "holdtrue.stack._head", "start", "--head", "--block"),
        f"--node-ip-address={LOOPBACK}",
        f"--dashboard-host={LOOPBACK}",
        f"--temp-dir={folder}",
        "--disable-usage-stats",
        # It sends what workers print to drivers, which none of ours listens to; idle, it takes as
        # much CPU time as the raylet. The dashboard reads the files themselves.
        "--include-log-monitor=false",
        # It would add machines to the cluster; there are none.
        "--no-monitor",
        # Any free port: Ray's fixed range collides with another cluster on the same machine.
        "--min-worker-port=0",
        "--max-worker-port=0",
        *(f"--{name}={port}" for name, port in zip(names, ports, strict=True)),
    ]


def check_answers(address: str) -> None:
    """Refuse an address that nothing listens on, before Ray waits a minute for it.

    Raises:
        StackError: Nothing answered within 15 s.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_TIMEOUT_S).close()
    except OSError as err:
        message = f"no Ray answers at {address}: {err.strerror or err}"
        hint = "correct ray.address, or leave it out to have Ray started on this machine"
        raise StackError(message, hint=hint) from err


def find_dashboard(address: str, env: Mapping[str, str], cwd: Path) -> str:
    """Ask a cluster for the URL of its dashboard.

    Raises:
        StackError: As for `probe`, or it has no dashboard.
    """
    url = probe(address, env, cwd)
    if not url:
        message = f"Ray at {address} has no dashboard, which serving is configured through"
        raise StackError(message, hint="start the cluster with --include-dashboard=true")
    return url if "://" in url else f"http://{url}"


def probe(address: str, env: Mapping[str, str], cwd: Path) -> str:
    """Connect to a cluster in a process of its own, which can be ended where Ray tries for ever.

    Args:
        address: Host and port.
        env: Variables, all of them.
        cwd: Working folder.

    Returns:
        Where its dashboard listens; empty where it has none.

    Raises:
        StackError: It is not a Ray cluster that lets us in.
    """
    check_answers(address)
    command = [sys.executable, "-c", _PROBE, address]
    try:
        answer = subprocess.run(  # noqa: S603 - our own command; the address is an argument
            command,
            env=dict(env),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=2 * ANSWER_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        message = f"what listens at {address} does not answer like a Ray cluster"
        raise StackError(message, hint="check ray.address") from err
    found = [line for line in answer.stdout.splitlines() if line.startswith("dashboard ")]
    if not found:
        reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        message = f"Ray at {address} refused the connection: {reason}"
        raise StackError(message, hint="check ray.address and RAY_AUTH_TOKEN")
    return found[-1].removeprefix("dashboard ").strip()
