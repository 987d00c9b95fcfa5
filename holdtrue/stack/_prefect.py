"""Start a Prefect server and a worker that outlive the command."""

from __future__ import annotations

import importlib.util
import json
import secrets
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from holdtrue.errors import StackError
from holdtrue.stack._processes import (
    LOOPBACK,
    end,
    free_ports,
    port_is_free,
    start,
    wait_until_ready,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdtrue.stack._state import Private, ProcessInfo, StackState

POOL = "holdtrue"
_USUAL_PORT = 4200
_START_TIMEOUT_S = 150.0
_REQUEST_TIMEOUT_S = 10.0


def start_server(
    private: Private, logs: Path, cwd: Path, env: Mapping[str, str], port: int | None = None
) -> StackState:
    """Start a Prefect server on the loopback address, with its work pool, and remember it.

    Args:
        private: Where it is remembered.
        logs: Folder for its output.
        cwd: Its working folder.
        env: Variables, among them PREFECT_HOME and PREFECT_API_AUTH_STRING, which the server
            then asks of everybody.
        port: To take if it is free; Prefect's usual one where left out.

    Raises:
        StackError: It did not start.
    """
    wanted = port or _USUAL_PORT
    if port_is_free(wanted):
        try:
            return _start_server_on(wanted, private, logs, cwd, env)
        except StackError:
            if port_is_free(wanted):
                raise
            # Somebody else has taken it since: another project's stack, say, that was started too.
    return _start_server_on(free_ports(1)[0], private, logs, cwd, env)


def _start_server_on(
    port: int, private: Private, logs: Path, cwd: Path, env: Mapping[str, str]
) -> StackState:
    url = f"http://{LOOPBACK}:{port}"
    log = logs / "prefect.log"
    command = (sys.executable, "-m", "prefect", "server", "start")
    own = {
        **env,
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_SERVER_API_AUTH_STRING": env["PREFECT_API_AUTH_STRING"],
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
    }
    started = None
    try:
        info = started = start(
            "prefect",
            [*command, "--host", LOOPBACK, "--port", str(port)],
            env=own,
            cwd=cwd,
            log=log,
        )
        private.update(lambda s: s.model_copy(update={"processes": (*s.processes, info)}))
        api, auth = f"{url}/api", env["PREFECT_API_AUTH_STRING"]
        wait_until_ready(
            info,
            log,
            "Prefect",
            lambda: _healthy(api) and _make_pool(api, auth),
            _START_TIMEOUT_S,
        )
        return private.update(
            lambda s: s.model_copy(
                update={"prefect_api": api, "prefect_ui": url, "prefect_port": port}
            )
        )
    except BaseException:  # also Ctrl-C: nothing half started is left behind
        if started is not None:
            end([started])
            forget(private, "prefect")
        raise


def start_worker(
    private: Private, logs: Path, project: Path, api: str, env: Mapping[str, str]
) -> StackState:
    """Start a worker that runs the flows of a project, and remember it.

    Runs that an earlier worker has left are crashed: as long as they are taken for running, none
    that follows would get the place of their deployment.

    Raises:
        StackError: It did not start.
    """
    _crash_what_was_left(api, env["PREFECT_API_AUTH_STRING"])
    name = f"holdtrue-{secrets.token_hex(3)}"
    log = logs / "worker.log"
    command = (sys.executable, "-m", "prefect", "worker", "start")
    auth = env["PREFECT_API_AUTH_STRING"]
    started = None
    try:
        info = started = start(
            "worker",
            [*command, "--pool", POOL, "--type", "process", "--name", name],
            env={**env, "PREFECT_WORKER_QUERY_SECONDS": "2"},
            cwd=project,
            log=log,
        )
        state = private.update(lambda s: s.model_copy(update={"processes": (*s.processes, info)}))
        wait_until_ready(
            info, log, "the Prefect worker", lambda: _online(api, auth, name), _START_TIMEOUT_S
        )
    except BaseException:
        if started is not None:
            end([started])
            forget(private, "worker")
        raise
    return state


def forget(private: Private, *names: str) -> None:
    """Remove processes from what is remembered."""

    def change(state: StackState) -> StackState:
        kept: tuple[ProcessInfo, ...] = tuple(p for p in state.processes if p.name not in names)
        gone = {"prefect_api": None, "prefect_ui": None} if "prefect" in names else {}
        return state.model_copy(update={"processes": kept, **gone})

    private.update(change)


def _healthy(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=_REQUEST_TIMEOUT_S).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _make_pool(api: str, auth: str) -> bool:
    """Make the work pool; False where the server is still too busy, as with an old database."""
    template = {"base_job_template": _process_template()}
    try:
        answer = _request(
            "POST", f"{api}/work_pools/", auth, {"name": POOL, "type": "process", **template}
        )
        if answer.status_code == httpx.codes.CONFLICT:  # of an earlier server, or another venv
            answer = _request("PATCH", f"{api}/work_pools/{POOL}", auth, template)
    except httpx.HTTPError:
        return False
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return False
    if answer.is_error:
        message = f"Prefect refused the work pool {POOL}: {answer.status_code} {answer.text[:300]}"
        raise StackError(message)
    return True


def _crash_what_was_left(api: str, auth: str) -> None:
    """Tell the server that runs of our pool have ended with their worker.

    Raises:
        StackError: It does not answer, or refuses.
    """
    left = {
        "flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}},
        "work_pools": {"name": {"any_": [POOL]}},
    }
    crashed = {"type": "CRASHED", "name": "Crashed", "message": "Its worker was ended."}
    try:
        runs = _request("POST", f"{api}/flow_runs/filter", auth, left).raise_for_status().json()
        for run in runs:
            # Forced: some rules would wait for the process that is gone. Slots are given back.
            state = {"state": crashed, "force": True}
            url = f"{api}/flow_runs/{run['id']}/set_state"
            _request("POST", url, auth, state).raise_for_status()
    except httpx.HTTPError as err:
        message = f"the Prefect server at {api} did not end the runs of an earlier worker: {err}"
        raise StackError(message) from err


def _process_template() -> dict[str, Any]:
    # Prefect's own copy: asking its server for it makes that download a newer one.
    spec = importlib.util.find_spec("prefect")
    if spec is None or spec.origin is None:
        message = "Prefect is not installed"
        raise StackError(message, hint="pip install holdtrue")
    views = Path(spec.origin).parent / "server" / "api" / "collections_data" / "views"
    workers = json.loads((views / "aggregate-worker-metadata.json").read_bytes())
    template: dict[str, Any] = workers["prefect"]["process"]["default_base_job_configuration"]
    # Where no command is given, a process that only looks for the code runs before each flow: 5 s.
    command = shlex.join([sys.executable, "-m", "prefect.engine"])
    template["variables"]["properties"]["command"]["default"] = command
    return template


def _online(api: str, auth: str, name: str) -> bool:
    try:
        answer = _request("POST", f"{api}/work_pools/{POOL}/workers/filter", auth, {})
    except httpx.HTTPError:
        return False
    return answer.is_success and any(
        worker["name"] == name and worker["status"] == "ONLINE" for worker in answer.json()
    )


def _request(method: str, url: str, auth: str, content: dict[str, Any]) -> httpx.Response:
    user, _, password = auth.partition(":")
    return httpx.request(
        method, url, json=content, auth=(user, password), timeout=_REQUEST_TIMEOUT_S
    )
