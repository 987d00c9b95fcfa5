"""Change what Ray Serve serves, through its configuration, so that no request is lost."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import httpx

from holdtrue.errors import ConfigError, ServingError, StackError
from holdtrue.serving._endpoint import Endpoint
from holdtrue.serving._fold import capture_places
from holdtrue.serving._slate import CaptureSettings, Slate
from holdtrue.stack import port_is_free

if TYPE_CHECKING:
    from pathlib import Path

    from holdtrue.declaration import Declaration
    from holdtrue.stack import Stack
    from holdtrue.store import Store

IMPORT_PATH = "holdtrue.serving:application"
_HOST = "127.0.0.1"
_POLL_S = 0.3
_REQUEST_TIMEOUT_S = 90.0
_READY_TIMEOUT_S = 10.0
# An exception's own line at the end of a traceback.
_ERROR_LINE = re.compile(r"^\s*(?:[\w.]+\.)?(\w*(?:Error|Exception)): (.+)$", re.MULTILINE)


class Control:
    """The part of the Ray dashboard that takes the Serve configuration.

    Args:
        dashboard: Its URL.
        token: What it asks for.
    """

    def __init__(self, dashboard: str, token: str | None) -> None:
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

    def put(self, applications: list[dict[str, Any]], port: int) -> None:
        """Serve these applications and no other.

        Raises:
            StackError: Serve refuses.
        """
        content = {
            "proxy_location": "HeadOnly",
            "http_options": {"host": _HOST, "port": port, "request_timeout_s": 120},
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
                timeout=_REQUEST_TIMEOUT_S,
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
    stack: Stack,
    declaration: Declaration,
    version: int,
    bundle: Path,
    digest: str,
    store: Store,
    timeout_s: float = 180.0,
) -> str:
    """Serve a version, in place of the one that is served; no request fails meanwhile.

    Where the new version cannot be served, the old one stays.

    Args:
        stack: Its Ray cluster is used, and must be up.
        declaration: Names the system and says how it is served.
        version: Number of the version.
        bundle: Folder of its bundle.
        digest: Digest of the bundle's manifest.
        store: Where answers are captured.
        timeout_s: How long it may take until every replica answers with that version.

    Returns:
        URL that predictions are posted to.

    Raises:
        ConfigError: Another system on the same Ray is served on another port.
        ServingError: The bundle cannot be served.
        StackError: Ray Serve does not answer, the port is in use, or it took too long.
    """
    deadline = time.monotonic() + timeout_s
    port = declaration.serve.port
    url = f"http://{_HOST}:{port}/{declaration.name}/predict"
    with stack.lock("serve"):
        control = _control(stack)
        before = control.wait(timeout_s)
        _check_port(before, port)
        old = _applications(before)
        slate = _slate(declaration, version, bundle, digest, store)
        new = _application(declaration, slate)
        control.put([*(app for app in old if app["name"] != declaration.name), new], port)
        try:
            _wait(control, url, slate, deadline)
        except BaseException:  # also Ctrl-C: Serve must not be left trying
            control.put(old, port)
            _settle(url)
            raise
    return url


def start_serve(stack: Stack, port: int, timeout_s: float = 60.0) -> None:
    """Start Ray Serve with nothing to serve, so that the first deployment starts a replica only.

    Args:
        stack: Its Ray cluster is used, and must be up.
        port: Of the endpoint, on the loopback address.
        timeout_s: How long the dashboard of Ray may take to answer.

    Raises:
        StackError: It does not answer, or the port is in use.
    """
    with stack.lock("serve"):
        control = _control(stack)
        before = control.wait(timeout_s)
        if (before.get("http_options") or {}).get("port") is None:
            _check_port(before, port)
            control.put([], port)


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
        control.put(kept, before["http_options"]["port"])
        deadline = time.monotonic() + timeout_s
        while system in control.details()["applications"]:
            if time.monotonic() > deadline:
                message = f"{system} is still being taken down after {timeout_s:g} s"
                raise StackError(message, hint="see `holdtrue status`")
            time.sleep(_POLL_S)
    return True


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


def _check_port(details: dict[str, Any], port: int) -> None:
    current = (details.get("http_options") or {}).get("port")
    if current is None:
        if not port_is_free(port):
            message = f"port {port} is in use by another program"
            raise StackError(message, hint="end it, or declare another serve.port")
    elif current != port:
        message = (
            f"serve.port is {port}, but this Ray already serves on port {current}, "
            "and all systems on one Ray share a port"
        )
        raise ConfigError(message, hint=f"declare serve.port: {current}, or run `holdtrue down`")


def _applications(details: dict[str, Any]) -> list[dict[str, Any]]:
    """The configuration of what is served, as it was put."""
    configs = (app.get("deployed_app_config") for app in details["applications"].values())
    return [config for config in configs if config]


def _slate(
    declaration: Declaration, version: int, bundle: Path, digest: str, store: Store
) -> Slate:
    share = declaration.serve.capture
    folder, _ = capture_places(store, declaration.name)
    return Slate(
        system=declaration.name,
        version=version,
        bundle=str(bundle.resolve()),
        digest=digest,
        capture=CaptureSettings(share=share, folder=str(folder.resolve())) if share else None,
        max_body_bytes=declaration.serve.max_body_bytes,
        key=declaration.data.key,
        time=declaration.data.time,
    )


def _application(declaration: Declaration, slate: Slate) -> dict[str, Any]:
    replicas = declaration.serve.replicas
    deployment: dict[str, Any] = {
        "name": "Replica",
        "user_config": slate.model_dump(mode="json"),
        "max_ongoing_requests": 100,
        "max_queued_requests": 200,
        "backpressure_config": {"status_code": 503, "retry_after_s": 1},
        "graceful_shutdown_timeout_s": 5,
        "graceful_shutdown_wait_loop_s": 0.5,
        "max_surge_percent": 100,
        # Serving must go on while every core is booked by training, and the other way round.
        "ray_actor_options": {"num_cpus": 0},
    }
    if replicas.min == replicas.max:
        deployment["num_replicas"] = replicas.min
    else:
        deployment["autoscaling_config"] = {
            "min_replicas": replicas.min,
            "max_replicas": replicas.max,
            "target_ongoing_requests": replicas.target_ongoing_requests,
            "upscale_delay_s": 2,
            "downscale_delay_s": 60,
            "look_back_period_s": 5,
        }
    return {
        "name": declaration.name,
        "route_prefix": f"/{declaration.name}",
        "import_path": IMPORT_PATH,
        "deployments": [deployment],
    }


def _settle(url: str) -> None:
    """Wait a little until what was restored is no longer told that anything was refused."""
    deadline = time.monotonic() + _READY_TIMEOUT_S
    with Endpoint(url) as endpoint:
        while (ready := endpoint.ready()) and ready["refused"] and time.monotonic() < deadline:
            time.sleep(_POLL_S)


def _wait(control: Control, url: str, slate: Slate, deadline: float) -> None:
    said = "nothing yet"
    with Endpoint(url) as endpoint:
        while time.monotonic() < deadline:
            app = control.details()["applications"].get(slate.system, {})
            said = f"{app.get('status', 'not started')} {app.get('message', '')}".strip()
            parts = app.get("deployments", {}).values()
            if app.get("status") == "DEPLOY_FAILED":
                reasons = "\n".join([said, *(part.get("message", "") for part in parts)])
                message = f"version {slate.version} cannot be served: {last_error(reasons) or said}"
                raise ServingError(message)
            ready = endpoint.ready(_READY_TIMEOUT_S)
            if ready is not None:
                remaining = max(0.0, deadline - time.monotonic())
                refused = ready["refused"] is not None
                if refused:  # raises, unless it is about an earlier slate
                    endpoint.wait(slate.version, slate.digest, remaining)
                served = (ready["version"], ready["digest"]) == (slate.version, slate.digest)
                healthy = app.get("status") == "RUNNING" and all(
                    part["status"] == "HEALTHY" for part in parts
                )
                if served and healthy and not refused:
                    return
            time.sleep(_POLL_S)
    message = f"version {slate.version} did not answer at {url} in time; Ray Serve says: {said}"
    raise StackError(message, hint="try again when the machine is less busy")
