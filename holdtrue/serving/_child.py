"""A process of its own for a shadow that is not compiled: how it starts, is asked, and ends."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from holdtrue.errors import ServingError
from holdtrue.serving import _beside
from holdtrue.serving._scoring import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdtrue.serving._beside import Request
    from holdtrue.serving._slate import Slate

RESTART_S = 30.0
"""A process that has ended is started again at most so often."""
# What a model may need to be imported and to run; keys and tokens are not among it.
_VARIABLES = (
    *("PATH", "HOME", "USER", "TMPDIR", "TZ", "LANG", "VIRTUAL_ENV", "CONDA_PREFIX"),
    *("LD_LIBRARY_PATH", "LD_PRELOAD", "CUDA_VISIBLE_DEVICES"),
)
_PREFIXES = ("LC_", "PYTHON")
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT"), "1"
)
_LEAST = 19  # what `nice` has for it
# How long a process that ends by itself may take from closing its socket on, where nobody leaves it
# much time.
_ENDS_S = 30.0


class Scored(NamedTuple):
    """What a shadow says to a request."""

    seconds: float
    """That encoding and scoring took."""
    scores: np.ndarray
    """shape (n_rows, n_classes), or (n_rows,) for regression; finite."""
    unknown: dict[str, int]
    """By column: values that are no known category."""
    lines: Sequence[bytes]
    """To be captured."""


class Child:
    """The process of the shadow of a slate.

    It takes no time of a processor that anybody else wants, and ends with this process, however
    that ends. For one thread at a time, but for `close`.

    Args:
        slate: With that shadow.
    """

    def __init__(self, slate: Slate) -> None:
        self.closed = False
        self._slate = slate
        self._guard = threading.Lock()
        self._process: _Process | None = None
        self._began = 0.0
        self._why: str | None = None

    def start(self, *, idle: bool = False) -> None:
        """Start it, and have it read its model and ask it its sample; waits for that.

        Args:
            idle: Whether it takes only time that nobody wants while it does that, too.

        Raises:
            ServingError: It cannot be started, the model cannot be read or answers otherwise than
                when it was written, or the process ended over it.
        """
        process = self._begun()
        if idle:
            process.give_way()
        reply, _ = self._exchange(process, {"slate": self._slate.model_dump_json()})
        if reply["refused"] is not None:
            process.end()
            raise self._down(reply["refused"], reply["hint"])
        process.give_way()
        self._why = None

    def score(self, slate: Slate, request: Request, ids: Sequence[str]) -> Scored | ModelError:
        """Have a request scored; waits as long as that takes.

        Args:
            slate: What was served then, with the same shadow.
            request: As it came.
            ids: Of its answer.

        Returns:
            Or why there is no score.

        Raises:
            ServingError: The process has ended, or could not be started again.
        """
        if self._why is not None:
            if monotonic() - self._began < RESTART_S:
                raise ServingError(self._why)
            self.start(idle=True)
        head = request.head | {"ids": ids}
        if slate is not self._slate:
            self._slate = slate
            head["slate"] = slate.model_dump_json()
        assert self._process is not None  # noqa: S101 - it was started
        reply, content = self._exchange(self._process, head, request.body)
        if reply["reason"] is not None:
            return ModelError(str(reply["reason"]), str(reply["detail"]))
        count = math.prod(reply["shape"])
        scores = np.frombuffer(content, np.float64, count)
        lines = content[scores.nbytes :]
        return Scored(
            *(reply["seconds"], scores.reshape(reply["shape"]), reply["unknown"]),
            lines.split(b"\n") if lines else (),
        )

    def close(self) -> None:
        """Kill it, whatever it does; in any thread."""
        with self._guard:
            self.closed = True
            process = self._process
        if process is not None:
            process.kill()
            threading.Thread(target=process.end, name="reaping", daemon=True).start()

    def _begun(self) -> _Process:
        with self._guard:
            if self.closed:
                message = "the shadow is served no more"
                raise ServingError(message)
            self._began = monotonic()
            try:
                self._process = _Process()
            except OSError as err:
                message = f"the process of the shadow cannot be started: {err.strerror or err}"
                raise self._down(message) from err
            return self._process

    def _exchange(
        self, process: _Process, head: Mapping[str, Any], body: bytes = b""
    ) -> tuple[dict[str, Any], bytes]:
        try:
            return process.exchange(head, body)
        except (OSError, EOFError, ValueError) as err:
            message = f"the process of the shadow has ended: {process.end(_ENDS_S)}"
            raise self._down(message) from err

    def _down(self, message: str, hint: str | None = None) -> ServingError:
        self._why = message
        return ServingError(message, hint=hint)


class _Process:
    """One that runs, or has ended.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self) -> None:
        ours, its = socket.socketpair()
        with ours, its:
            place = its.fileno()
            self._popen = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-P", "-m", _beside.__name__, str(place)],
                stdin=subprocess.PIPE,  # nothing is written to it: its end is ours
                pass_fds=(place,),
                env=_environment(),
            )
            self._stream = ours.makefile("rwb")

    def exchange(self, head: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """Send and wait for the reply.

        Raises:
            OSError, EOFError, ValueError: It has ended, or is being ended.
        """
        _beside.send(self._stream, head, body)
        return _beside.receive(self._stream)

    def give_way(self) -> None:
        """Have it run only where nobody else wants to."""
        with suppress(OSError):  # it has ended
            for thread in Path(f"/proc/{self._popen.pid}/task").iterdir():
                _give_way(int(thread.name))

    def kill(self) -> None:
        """End it now."""
        self._popen.kill()

    def end(self, within_s: float = 0.0) -> str:
        """Kill it where it still runs after a while, and wait for that; says how it ended."""
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(within_s)
        self.kill()
        code = self._popen.wait()
        with suppress(OSError):  # what it was sent and did not read
            self._stream.close()
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        return f"exit status {code}" if code >= 0 else f"signal {-code}, {signal.strsignal(-code)}"


def _give_way(thread: int) -> None:
    try:
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    except PermissionError:
        os.setpriority(os.PRIO_PROCESS, thread, _LEAST)


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _VARIABLES or name.startswith(_PREFIXES)
    }
    # A model is made of the modules that it is made of here.
    return kept | _ONE_THREAD | {"PYTHONPATH": os.pathsep.join(sys.path)}
