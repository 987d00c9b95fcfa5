"""Connect this process to Ray for as long as some work takes."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdtrue.errors import StackError
from holdtrue.stack import _ray
from holdtrue.stack._processes import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdtrue.stack._stack import Stack

_ATTEMPTS = 3
# Methods of Ray's node that start them.
_WATCHERS = ("start_monitor", "start_log_monitor", "start_api_server")
_CALM: dict[str, Any] = {
    "log_to_driver": False,
    "logging_level": "ERROR",
    "ignore_reinit_error": False,
}


@contextmanager
def ray_session(stack: Stack, address: str | None, *, keep: bool = False) -> Iterator[None]:
    """Connect to Ray at `address`, else to the stack's, else to one for this time only.

    A connection that exists already is used and left alone.

    Args:
        stack: Whose Ray is used where no address is given.
        address: Host and port of a cluster.
        keep: Start the stack's Ray where there is none, so that it goes on afterwards.

    Raises:
        StackError: Ray does not answer (15 s; 30 s where something else listens there), or does
            not start.
    """
    state = stack.state()
    if address is None and state.ray_address is None and keep:
        state = stack.up_ray()
    target = address or state.ray_address
    settings = stack.ray_settings(target) if target else stack.brief_ray_settings()
    os.environ.update(settings)  # before the import: Ray reads them there
    import ray

    if ray.is_initialized():
        yield
        return
    _read_again()
    if target is None:
        with own_ray():
            yield
        return
    if target == state.ray_address:
        _ray.check_answers(target)
    else:
        _ray.probe(target, os.environ, Path.cwd())
    try:
        ray.init(address=target, **_CALM)
    except Exception as err:  # Ray has no common class for what may go wrong here
        ray.shutdown()
        reason = str(err).strip().splitlines() or [type(err).__name__]
        message = f"no connection to Ray at {target}: {reason[0]}"
        raise StackError(message, hint="see `holdtrue status`, or check ray.address") from err
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def own_ray(num_cpus: int | None = None) -> Iterator[Path]:
    """Run a Ray on this machine for as long as some work takes.

    Args:
        num_cpus: That it may give to tasks; left out, as many as the machine has.

    Yields:
        Its temporary folder.

    Raises:
        StackError: It does not start, several times.
    """
    import ray

    folder = _ray.new_folder()
    try:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with _unwatched():
                    ray.init(
                        address="local",
                        num_cpus=num_cpus,
                        include_dashboard=False,
                        _temp_dir=str(folder),
                        _node_ip_address=LOOPBACK,
                        **_CALM,
                    )
                break
            except Exception as err:  # a plain Exception says that 30 s were not enough
                ray.shutdown()
                if attempt == _ATTEMPTS:
                    message = f"Ray did not start on this machine: {err}"
                    raise StackError(message, hint="try again when it is less busy") from err
        yield folder
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _unwatched() -> Iterator[None]:
    """Have Ray start no process that only watches it.

    They add machines, of which there are no more, send on what workers print, which nobody reads,
    and answer for a dashboard that is not there. Each takes a second of the processor to start.
    """
    from ray._private.node import Node

    kept = {name: vars(Node)[name] for name in _WATCHERS if name in vars(Node)}
    try:
        for name in kept:
            setattr(Node, name, _nothing)
        yield
    finally:
        for name, method in kept.items():
            setattr(Node, name, method)


def _nothing(*_: object, **__: object) -> None:
    pass


def _read_again() -> None:
    """Make Ray forget what it read from the environment when it was imported.

    A notebook may have imported it before, or may outlive one stack and meet the next.
    """
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    AuthenticationTokenLoader.instance().reset_cache()
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    ray_constants.ENABLE_RAY_CLUSTER = os.environ.get(name) != _ray.LOOPBACK_ONLY[name]
