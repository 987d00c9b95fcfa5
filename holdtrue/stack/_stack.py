"""One object for all that runs on this machine for one store."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import holdtrue
from holdtrue.errors import StackError
from holdtrue.stack import _prefect, _ray
from holdtrue.stack._processes import end, how_it_ended, is_alive
from holdtrue.stack._state import Private, StackState
from holdtrue.store import HOME_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from holdtrue.store import Store

_QUIET = {
    "DO_NOT_TRACK": "1",
    "WHYLOGS_NO_ANALYTICS": "True",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Its second user interface reports to an analytics service from the browser all the same.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}
# Prefect itself keeps events for a week, and the runs of flows for ever.
_RUNS_KEPT = {
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(90 * 86_400),
}
_WORDS = {"ray": "Ray", "prefect": "Prefect server", "worker": "Prefect worker"}


class Stack:
    """Ray, a Prefect server and a worker for one store; at most one of each.

    All methods may be called from several threads and processes at once.

    Args:
        store: Whose flows and models run there.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._private = Private(store.root)

    @property
    def store(self) -> Store:
        """Whose flows and models run there."""
        return self._store

    def state(self) -> StackState:
        """What really runs now: remembered processes that have ended are left out."""
        known = self._private.read()
        alive = tuple(info for info in known.processes if is_alive(info))
        names = {info.name for info in alive}
        gone: dict[str, object] = {"processes": alive, "logs": str(self._logs)}
        if known.ray_owned and "ray" not in names:
            gone |= {"ray_address": None, "ray_dashboard": None, "ray_owned": False}
        if "prefect" not in names:
            gone |= {"prefect_api": None, "prefect_ui": None}
        return known.model_copy(update=gone)

    def gone(self) -> tuple[str, ...]:
        """Names of what was started here, was not ended by `down`, and runs no more."""
        known = self._private.read().processes
        return tuple(info.name for info in known if not is_alive(info))

    def missing(self) -> dict[str, str] | None:
        """Of ray, prefect and worker those that do not run, with a sentence about each.

        Returns:
            None where nothing is known of any, as after `down`, and while that is under way.
        """
        if not (self._private.path / "state.json").exists() or self._ending.exists():
            return None
        known, state = self._private.read(), self.state()
        runs = {
            "ray": state.ray_address is not None,
            "prefect": state.prefect_api is not None,
            "worker": state.process("worker") is not None,
        }
        found = {}
        for name in (name for name, running in runs.items() if not running):
            info = known.process(name)
            title = _WORDS[name] if name == "ray" else f"the {_WORDS[name]}"
            found[name] = (
                f"{title} does not run"
                if info is None
                else f"{title} (pid {info.pid}) {how_it_ended(info)}"
            )
        return found

    def up_ray(
        self, address: str | None = None, progress: Callable[[str], None] | None = None
    ) -> StackState:
        """Make sure that a Ray cluster is there; does nothing where it is.

        Args:
            address: Host and port of a cluster to use; a head is started here where left out.
            progress: Told in words what takes time.

        Raises:
            StackError: It did not start or answer, or the stack uses another cluster already.
        """
        self._store.prepare()
        with self._private.lock("ray"):
            self._ending.unlink(missing_ok=True)  # of a `down` that was killed
            state = self.state()
            if state.ray_address is not None:
                if address not in (None, state.ray_address):
                    message = f"the stack already uses Ray at {state.ray_address}, not {address}"
                    raise StackError(message, hint="run `holdtrue down` first")
                return state
            if address is not None:
                dashboard = _ray.find_dashboard(
                    address, {**os.environ, **self.ray_settings(address)}, self._store.root
                )
                found = {"ray_address": address, "ray_dashboard": dashboard, "ray_owned": False}
                return self._private.update(lambda s: s.model_copy(update=found))
            if progress is not None:
                progress("starting Ray")
            self._clear_ray()
            env = self.ray_settings(None) | self._python_path()
            _ray.start_head(self._private, self._logs, self._store.root, env)
        return self.state()

    def up_prefect(self, progress: Callable[[str], None] | None = None) -> StackState:
        """Make sure that a Prefect server with the work pool ``holdtrue`` is there.

        Raises:
            StackError: It did not start.
        """
        self._store.prepare()
        with self._private.lock("prefect"):
            self._ending.unlink(missing_ok=True)
            state = self.state()
            if state.prefect_api is None:
                if progress is not None:
                    progress("starting the Prefect server")
                port = self._private.read().prefect_port
                self._clear("worker", "prefect")
                kept = {name: os.environ.get(name, value) for name, value in _RUNS_KEPT.items()}
                env = _QUIET | kept | self._prefect_settings() | self._temporary()
                _prefect.start_server(self._private, self._logs, self._store.root, env, port)
        return self.state()

    def up_worker(self, project: Path, progress: Callable[[str], None] | None = None) -> StackState:
        """Make sure that a worker runs the flows that the Prefect server hands out.

        Args:
            project: Folder with the flows; the worker's working folder.
            progress: Told in words what takes time.

        Raises:
            StackError: It did not start.
        """
        state = self.up_prefect(progress)
        with self._private.lock("prefect"):
            if self.state().process("worker") is None and state.prefect_api is not None:
                if progress is not None:
                    progress("starting the Prefect worker")
                self._clear("worker")
                env = (
                    self.environment()
                    | self._python_path(project)
                    | self._temporary()
                    | {HOME_VARIABLE: str(self._store.root)}
                )
                _prefect.start_worker(self._private, self._logs, project, state.prefect_api, env)
        return self.state()

    def down(self) -> list[str]:
        """End everything that was started here, and remove its temporary folders and tokens.

        Returns:
            What was ended, in words. A Ray cluster that was only used goes on.
        """
        if not self._private.path.exists():
            return []
        with ExitStack() as locks:
            lock: Callable[[str], AbstractContextManager[None]] = self._private.lock
            for name in ("prefect", "ray"):
                locks.enter_context(lock(name))
            self._ending.touch()  # what ends from here on is not to be started again
            ended = [
                f"{_WORDS[info.name]} (pid {info.pid})" for info in self.state().processes[::-1]
            ]
            end(self._private.read().processes)
            self._clear_ray()
            self._private.remove()
        return ended

    def environment(self) -> dict[str, str]:
        """Variables for this process and its children to reach what runs, and to keep it quiet."""
        state = self.state()
        variables = self.ray_settings(state.ray_address)
        if state.prefect_api is not None:
            variables |= self._prefect_settings() | {"PREFECT_API_URL": state.prefect_api}
        return variables

    def ray_settings(self, address: str | None) -> dict[str, str]:
        """Variables for a connection to Ray at an address; None is a cluster of our own."""
        state = self._private.read()
        variables = _QUIET | _ray.SETTINGS
        if address is None or (state.ray_owned and address == state.ray_address):
            token = self._private.token("ray")
            variables |= _ray.LOOPBACK_ONLY | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        return variables

    def brief_ray_settings(self) -> dict[str, str]:
        """Variables for a Ray that ends with this process: its token is written nowhere."""
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        return _QUIET | _ray.SETTINGS | _ray.UNWATCHED | _ray.LOOPBACK_ONLY | token

    def ray_token(self) -> str | None:
        """The token that the Ray cluster in use asks for, as far as it is known."""
        own = self.ray_settings(self.state().ray_address).get("RAY_AUTH_TOKEN")
        if own or (own := os.environ.get("RAY_AUTH_TOKEN")):
            return own
        default = str(Path.home() / ".ray" / "auth_token")
        path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", default))
        return path.read_text().strip() if path.is_file() else None

    @contextmanager
    def looked_after(self) -> Iterator[None]:
        """Be the one who starts again what ends.

        Raises:
            StackError: Somebody else is.
        """
        self._store.prepare()
        try:
            held = ExitStack()
            held.enter_context(self._private.lock("looked-after", timeout_s=0.0))
        except StackError as err:
            message = "another `holdtrue up --stay` looks after this project already"
            raise StackError(message, hint="end it first, by Ctrl-C or SIGTERM") from err
        with held:
            yield

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Keep everybody else out of one kind of change to the stack, such as a deployment."""
        return self._private.lock(name)

    @property
    def _logs(self) -> Path:
        return self._store.root / "logs"

    @property
    def _ending(self) -> Path:
        return self._private.path / "ending"

    def _temporary(self) -> dict[str, str]:
        # Prefect leaves folders behind in the temporary folder; this one goes with `down`.
        folder = self._private.path / "tmp"
        folder.mkdir(exist_ok=True)
        return {"TMPDIR": str(folder)}

    def _prefect_settings(self) -> dict[str, str]:
        return {
            "PREFECT_HOME": str(self._store.root / "prefect"),
            "PREFECT_API_AUTH_STRING": f"holdtrue:{self._private.token('prefect')}",
        }

    def _python_path(self, *folders: Path) -> dict[str, str]:
        # Workers must find this very package, also when it runs from a checkout.
        package = Path(holdtrue.__path__[0]).parent
        parts = [*map(str, (*folders, package)), os.environ.get("PYTHONPATH", "")]
        return {"PYTHONPATH": os.pathsep.join(part for part in parts if part)}

    def _clear(self, *names: str) -> None:
        known = [info for info in self._private.read().processes if info.name in names]
        if known:
            end(known)
        _prefect.forget(self._private, *names)

    def _clear_ray(self) -> None:
        known = self._private.read()
        end([info for info in known.processes if info.name == "ray"])
        for folder in known.folders:
            shutil.rmtree(folder, ignore_errors=True)
        _ray.forget(self._private, *map(Path, known.folders))
