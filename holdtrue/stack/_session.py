"""Connect this process to Ray for as long as some work takes."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from holdtrue.errors import StackError
from holdtrue.stack import _ray
from holdtrue.stack._processes import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdtrue.stack._stack import Stack

_ATTEMPTS = 3
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
        StackError: Ray does not answer within 15 s, or does not start.
    """
    state = stack.state()
    if address is None and state.ray_address is None and keep:
        state = stack.up_ray()
    target = address or state.ray_address
    os.environ.update(stack.ray_settings(target))  # before the import: Ray reads them there
    import ray

    if ray.is_initialized():
        yield
        return
    _reread_token()
    if target is None:
        with _own_ray():
            yield
        return
    _ray.check_answers(target)
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
def _own_ray() -> Iterator[None]:
    import ray

    folder = _ray.new_folder()
    try:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                ray.init(
                    address="local",
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
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _reread_token() -> None:
    # A process that outlives one stack and meets the next has the old token in Ray's cache.
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    AuthenticationTokenLoader.instance().reset_cache()
