"""Tasks of Ray that are ended early."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_TRY_AGAIN_S = 0.2
_GIVE_UP_S = 10.0


def cancel(tasks: Iterable[Any], *, force: bool = False) -> None:
    """Cancel tasks, also ones that finish at this moment. Ray must be connected.

    With Ray 2.60 ``ray.cancel`` aborts the whole process ("Tried to complete task that was not
    pending") if the answer of the task comes in at the same time: with tasks of a few milliseconds
    within 50 rounds. The thread that takes in the answers also runs the callbacks of futures, and
    does one thing at a time: so this is done there.

    Args:
        tasks: Their references.
        force: End the worker's process, rather than raise KeyboardInterrupt in it.
    """
    import ray

    todo, done = [*tasks], threading.Event()
    caller = threading.get_ident()

    def run(_: object) -> None:
        # A future that is ready too early calls back at once, in the thread of its caller.
        if threading.get_ident() == caller or done.is_set():
            return
        try:
            for task in todo:
                ray.cancel(task, force=force)
        finally:
            done.set()

    until = time.monotonic() + _GIVE_UP_S
    while todo and not done.is_set() and time.monotonic() < until:
        ray.put(None).future().add_done_callback(run)
        done.wait(_TRY_AGAIN_S)
