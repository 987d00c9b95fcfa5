"""Change what Ray Serve serves, through its configuration, so that no request is lost."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from pydantic import ValidationError

from holdtrue.access import own_key
from holdtrue.errors import ConfigError, ServingError, StackError
from holdtrue.references import Reference
from holdtrue.serving._endpoint import Endpoint
from holdtrue.serving._listener import LOOPBACK
from holdtrue.serving._scaling import POLICY
from holdtrue.serving._slate import Slate
from holdtrue.serving._statistics import ReplicaStatistics, is_alive, read_replicas
from holdtrue.stack import port_is_free

if TYPE_CHECKING:
    from holdtrue.declaration import Declaration
    from holdtrue.stack import Stack

IMPORT_PATH = "holdtrue.serving._replica:application"
DEPLOYMENT = "Replica"
STOP_TIMEOUT_S = 20.0
"""How long a replica that is stopped may take."""
_START_S = 120.0
"""What a deployment may take beside the models."""
# So long Ray Serve may take to act on what it was told, and still tell how it stood before.
_HEARD_S = 3.0
_POLL_S = 0.1
_REQUEST_TIMEOUT_S = 90.0
_READY_TIMEOUT_S = 10.0
# Ray Serve's word for a replica that may be asked.
_READY = "RUNNING"
# States of an application whose replicas have failed to start.
_STUCK = ("UNHEALTHY", "DEPLOY_FAILED")
# An exception's own line at the end of a traceback.
_ERROR_LINE = re.compile(r"^\s*(?:[\w.]+\.)?(\w*(?:Error|Exception)): (.+)$", re.MULTILINE)


class ReplicaCounts(Reference):
    """How many replicas a system has."""

    wanted: int
    """As many as there are to be now."""
    up_to_date: int
    """That live and hold the versions that are to be served."""
    ready: int
    """That Ray Serve has found started and well, whatever they hold."""
    port: int | None = None
    """That they listen on."""
    host: str | None = None
    """Address that they listen on."""
    error: str | None = None
    """What the last one that could not start said, where none is ready."""


class Control:
    """The part of the Ray dashboard that takes the Serve configuration.

    Args:
        dashboard: Its URL.
        token: What it asks for.
        timeout_s: How long one answer may take.
    """

    def __init__(
        self, dashboard: str, token: str | None, timeout_s: float = _REQUEST_TIMEOUT_S
    ) -> None:
        self._timeout_s = timeout_s
        self._url = f"{dashboard}/api/serve/applications/"
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def details(self) -> dict[str, Any]:
        """What is served now.

        Raises:
            StackError: The dashboard does not answer or refuses.
        """
        answer = self._send("GET")
        content: dict[str, Any] = answer.json()
        return content

    def wait(self, timeout_s: float) -> dict[str, Any]:
        """The details, once the dashboard has started; Ray itself is up a few seconds earlier.

        Raises:
            StackError: It did not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self.details()
            except StackError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)

    def put(self, applications: list[dict[str, Any]]) -> None:
        """Serve these applications and no other.

        Raises:
            StackError: Serve refuses.
        """
        content = {
            # Replicas take requests themselves.
            "proxy_location": "Disabled",
            "logging_config": {"enable_access_log": False},
            "applications": applications,
        }
        self._send("PUT", content)

    def _send(self, method: str, content: dict[str, Any] | None = None) -> httpx.Response:
        try:
            answer = httpx.request(
                method,
                self._url,
                json=content,
                headers=self._headers,
                timeout=self._timeout_s,
                trust_env=False,
            )
        except httpx.HTTPError as err:
            message = f"Ray Serve does not answer at {self._url}: {str(err) or type(err).__name__}"
            raise StackError(message, hint="see `holdtrue status`") from err
        if answer.is_error:
            reason = last_error(answer.text) or answer.text.strip()[:300]
            message = f"Ray Serve refused its configuration ({answer.status_code}): {reason}"
            raise StackError(message)
        return answer


def deploy(
    stack: Stack, declaration: Declaration, slate: Slate, timeout_s: float | None = None
) -> str:
    """Serve a slate, in place of the one that is served; no request fails meanwhile.

    Where the new one cannot be served, the old one stays.

    Args:
        stack: Its Ray cluster is used, and must be up.
        declaration: Names the system, its port and replicas.
        slate: What to serve; by `slate_of`.
        timeout_s: How long it may take until every replica answers with it; left out, as long as
            its models may take to be read, and two minutes.

    Returns:
        URL that predictions are posted to.

    Raises:
        ConfigError: Another system on the same Ray is served on that port.
        ServingError: A model cannot be served.
        StackError: Ray Serve does not answer, the port is in use, or it took too long.
    """
    if timeout_s is None:
        timeout_s = _START_S + len(slate.arms) * slate.limits.load_s
    deadline = time.monotonic() + timeout_s
    url = f"{declaration.serve.origin}/{declaration.name}/predict"
    with stack.lock("serve"):
        control = _control(stack)
        before = control.wait(timeout_s)
        old = _applications(before)
        _check_port(old, declaration)
        if slate.keys is not None:
            own_key(stack.store)
        new = _application(declaration, slate)
        others = [app for app in old if app["name"] != declaration.name]
        try:
            if any(_is_moved(app, new) for app in old) or _is_stuck(before, slate):
                control.put(others)
                _wait_until_gone(control, declaration.name, deadline)
            control.put([*others, new])
            _wait(control, url, slate, deadline)
        except BaseException:  # also Ctrl-C: Serve must not be left trying
            control.put(old)
            _settle(old, slate)
            raise
    return url


def check_place(stack: Stack, declaration: Declaration) -> None:
    """Refuse to serve where nothing can listen. Instant.

    Raises:
        ConfigError: The host is no address of this machine, or another system is served on the
            port.
        StackError: Another program listens on the port.
    """
    serve = declaration.serve
    if not port_is_free(0, serve.host):
        message = f"{serve.host} is no address of this machine"
        hint = "leave it out, or use 0.0.0.0 for all addresses"
        raise ConfigError(message, hint=hint, key=("serve", "host"))
    if stack.state().ray_address is not None:
        try:
            details = _control(stack).details()
        except StackError:
            return  # Serve has not started yet: `deploy` looks again
        _check_port(_applications(details), declaration)
    elif not port_is_free(serve.port, serve.host):
        message = f"port {serve.port} is in use by another program"
        raise StackError(message, hint="end it, or declare another port", key=("serve", "port"))


def start_serve(stack: Stack, timeout_s: float = 60.0) -> None:
    """Start Ray Serve with nothing to serve, so that the first deployment starts a replica only.

    Args:
        stack: Its Ray cluster is used, and must be up.
        timeout_s: How long the dashboard of Ray may take to answer.

    Raises:
        StackError: It does not answer.
    """
    with stack.lock("serve"):
        control = _control(stack)
        if not control.wait(timeout_s).get("controller_info", {}).get("actor_id"):
            control.put([])


def undeploy(stack: Stack, system: str, timeout_s: float = 60.0) -> bool:
    """Stop serving a system; the others go on.

    Returns:
        Whether it was served.

    Raises:
        StackError: Ray Serve does not answer, or it took too long.
    """
    with stack.lock("serve"):
        control = _control(stack)
        before = control.wait(timeout_s)
        old = _applications(before)
        kept = [app for app in old if app["name"] != system]
        if len(kept) == len(old):
            return False
        control.put(kept)
        _wait_until_gone(control, system, time.monotonic() + timeout_s)
    return True


def _wait_until_gone(control: Control, system: str, deadline: float) -> None:
    while system in control.details()["applications"]:
        if time.monotonic() > deadline:
            message = f"{system} takes too long to be taken down"
            raise StackError(message, hint="see `holdtrue status`")
        time.sleep(_POLL_S)


def _is_moved(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a system goes to another address on the same port, which two cannot listen on."""
    (before, after) = ({"host": LOOPBACK} | app.get("args", {}) for app in (old, new))
    same = old["name"] == new["name"] and before.get("port") == after["port"]
    return same and bool(before["host"] != after["host"])


def _is_stuck(details: dict[str, Any], slate: Slate) -> bool:
    """Whether Serve tries in vain to start replicas: what they are told next would come too late.

    Nothing answers then that could be lost.
    """
    app = details["applications"].get(slate.system)
    return app is not None and app.get("status") in _STUCK and not _replicas(slate)


def replicas_of(stack: Stack, system: str, timeout_s: float = 2.0) -> ReplicaCounts | None:
    """How many replicas a system has; None where it is not served, or Ray Serve does not say.

    Args:
        stack: Its Ray cluster is asked.
        system: Its name.
        timeout_s: How long the answer may take.
    """
    dashboard = stack.state().ray_dashboard
    if dashboard is None:
        return None
    try:
        details = Control(dashboard, stack.ray_token(), timeout_s).details()
    except StackError:
        return None
    return replica_counts(details, system)


def replica_counts(details: dict[str, Any], system: str) -> ReplicaCounts | None:
    """The same, from what Ray Serve says of all that it serves."""
    app = details["applications"].get(system, {})
    config = app.get("deployed_app_config")
    if not config:
        return None
    part = app["deployments"].get(DEPLOYMENT, {})
    ready = sum(replica["state"] == _READY for replica in part.get("replicas", ()))
    told = config.get("args", {})
    return ReplicaCounts(
        wanted=part.get("target_num_replicas", 0),
        up_to_date=_up_to_date(config["deployments"][0]["user_config"]),
        ready=ready,
        port=told.get("port"),
        host=told.get("host"),
        error=None if ready else last_error(_said(app)),
    )


def _said(app: dict[str, Any]) -> str:
    """All that Ray Serve says of an application."""
    parts = app.get("deployments", {}).values()
    return "\n".join([app.get("message", ""), *(part.get("message", "") for part in parts)])


def _up_to_date(told: dict[str, Any]) -> int:
    """How many replicas serve what they are told; none where that is of another version of ours."""
    try:
        slate = Slate.model_validate(told)
    except ValidationError:
        return 0
    return sum(replica.slate == slate.name for replica in _replicas(slate))


def last_error(text: str) -> str | None:
    """The message of the last exception in a text with tracebacks."""
    found = _ERROR_LINE.findall(text)
    return f"{found[-1][0]}: {found[-1][1].strip()}" if found else None


def _control(stack: Stack) -> Control:
    dashboard = stack.state().ray_dashboard
    if dashboard is None:
        message = "no Ray is up that could serve"
        raise StackError(message, hint="run `holdtrue up`")
    return Control(dashboard, stack.ray_token())


def _check_port(applications: list[dict[str, Any]], declaration: Declaration) -> None:
    """Refuse a port that somebody else listens on: all replicas of one system share one."""
    system, port, host = declaration.name, declaration.serve.port, declaration.serve.host
    ports = {app["name"]: app.get("args", {}).get("port") for app in applications}
    for name, taken in ports.items():
        if name != system and taken == port:
            message = f"port {port} is taken: {name} is served there"
            raise ConfigError(message, hint="declare another port", key=("serve", "port"))
    if ports.get(system) != port and not port_is_free(port, host):
        message = f"port {port} is in use by another program"
        raise StackError(message, hint="end it, or declare another serve.port")


def _applications(details: dict[str, Any]) -> list[dict[str, Any]]:
    """The configuration of what is served, as it was put."""
    configs = (app.get("deployed_app_config") for app in details["applications"].values())
    return [config for config in configs if config]


def _application(declaration: Declaration, slate: Slate) -> dict[str, Any]:
    replicas = declaration.serve.replicas
    deployment: dict[str, Any] = {
        "name": DEPLOYMENT,
        "user_config": slate.model_dump(mode="json"),
        "graceful_shutdown_timeout_s": STOP_TIMEOUT_S + 5,
        "graceful_shutdown_wait_loop_s": 0.1,
        # A replica that was killed is found missing, and started again, after a second.
        "health_check_period_s": 1,
        "health_check_timeout_s": 10,
        "max_surge_percent": 100,
        # Serving must go on while every core is booked by training, and the other way round. The
        # address that replicas listen on is that of one machine.
        "ray_actor_options": {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}},
    }
    if replicas.min == replicas.max:
        deployment["num_replicas"] = replicas.min
    else:
        deployment["autoscaling_config"] = {
            "min_replicas": replicas.min,
            "max_replicas": replicas.max,
            "target_ongoing_requests": replicas.target_ongoing_requests,
            "upscale_delay_s": replicas.up_after.total_seconds(),
            "downscale_delay_s": replicas.down_after.total_seconds(),
            "look_back_period_s": 3,
            "metrics_interval_s": 1,
            "policy": {"policy_function": POLICY},
        }
    return {
        "name": declaration.name,
        "route_prefix": f"/{declaration.name}",
        "import_path": IMPORT_PATH,
        "args": {"port": declaration.serve.port, "host": declaration.serve.host},
        "deployments": [deployment],
    }


def _settle(old: list[dict[str, Any]], slate: Slate) -> None:
    """Wait a little until what was restored is no longer told that anything was refused."""
    if not any(app["name"] == slate.system for app in old):
        return
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline and any(r.refused for r in _replicas(slate)):
        time.sleep(_POLL_S)


def _replicas(slate: Slate) -> list[ReplicaStatistics]:
    """What the replicas of a system that live say of themselves."""
    folder = Path(slate.statistics)
    return [replica for replica in read_replicas(folder) if is_alive(folder, replica.id)]


def _wait(control: Control, url: str, slate: Slate, deadline: float) -> None:
    said = "nothing yet"
    version = slate.champion.version
    # Until then a failure may be that of what was to be served before.
    heard = time.monotonic() + _HEARD_S
    with Endpoint(url) as endpoint:
        while time.monotonic() < deadline:
            app = control.details()["applications"].get(slate.system, {})
            said = f"{app.get('status', 'not started')} {app.get('message', '')}".strip()
            parts = app.get("deployments", {}).values()
            if app.get("status") == "DEPLOY_FAILED" and time.monotonic() > heard:
                message = f"version {version} cannot be served: {last_error(_said(app)) or said}"
                raise ServingError(message)
            replicas = _replicas(slate)
            for replica in replicas:
                if replica.refused is not None and replica.refused.slate == slate.name:
                    message = f"version {version} cannot be served: {replica.refused.reason}"
                    raise ServingError(message, hint="what was served before goes on serving")
            healthy = app.get("status") == "RUNNING" and all(
                part["status"] == "HEALTHY" for part in parts
            )
            served = bool(replicas) and all(r.slate == slate.name for r in replicas)
            if healthy and served:
                ready = endpoint.ready(_READY_TIMEOUT_S)
                if ready is not None and ready["slate"] == slate.name:
                    return
            time.sleep(_POLL_S)
    message = f"version {version} did not answer at {url} in time; Ray Serve says: {said}"
    raise StackError(message, hint="try again when the machine is less busy")
