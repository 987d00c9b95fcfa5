"""One listening socket for all replicas of a system, so that none takes connections with it.

The connections that nobody has taken yet wait in the socket, which the system closes when the
last replica that holds it ends. With a socket of its own for each replica on the same port, they
would be lost with the replica that they happen to wait at.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from holdtrue.errors import ServingError

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK = "127.0.0.1"
BACKLOG = 1_024
_SUFFIX = ".sock"
_ASK_TIMEOUT_S = 2.0
_POLL_S = 0.1


def obtain(port: int, folder: Path, timeout_s: float = 10.0, host: str = LOOPBACK) -> socket.socket:
    """The socket that the replicas of a system listen on: another one's, else a new one.

    Args:
        port: Of the address.
        folder: Where replicas share theirs.
        timeout_s: How long to try: a replica that was just bound is shared a moment later.
        host: IPv4 address.

    Raises:
        ServingError: Another program listens on the port.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            found = _ask(path)
            if found is not None and found.getsockname() == (host, port):
                return found
            if found is not None:
                found.close()
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(BACKLOG)
        except OSError as err:
            listener.close()
            if time.monotonic() > deadline:
                message = f"port {port} is in use by another program: {err.strerror}"
                hint = "end it, or declare another serve.port"
                raise ServingError(message, hint=hint) from err
            time.sleep(_POLL_S)
        else:
            listener.setblocking(False)
            return listener


class Sharing:
    """Gives a replica's socket to others that ask for it; they are of the same user.

    Args:
        listener: The socket.
        folder: Where others look; made, for the user only.
        name: Of the replica.
    """

    def __init__(self, listener: socket.socket, folder: Path, name: str) -> None:
        self._listener = listener
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._path = folder / f"{name}{_SUFFIX}"
        self.socket = socket.socket(socket.AF_UNIX)
        self._path.unlink(missing_ok=True)
        with _Short(folder) as short:
            self.socket.bind(f"{short}/{self._path.name}")
        self.socket.listen(8)
        self.socket.setblocking(False)

    def give(self) -> None:
        """Serve who asks; to be called when the socket can be read."""
        try:
            asker, _ = self.socket.accept()
        except OSError:
            return
        with asker, suppress(OSError):
            socket.send_fds(asker, [b"1"], [self._listener.fileno()])

    def close(self) -> None:
        """Give no more."""
        self._path.unlink(missing_ok=True)
        self.socket.close()


def _ask(path: Path) -> socket.socket | None:
    """A replica's socket; None where it has ended."""
    with socket.socket(socket.AF_UNIX) as asking, _Short(path.parent) as short:
        asking.settimeout(_ASK_TIMEOUT_S)
        try:
            asking.connect(f"{short}/{path.name}")
            _, descriptors, _, _ = socket.recv_fds(asking, 1, 1, socket.MSG_CMSG_CLOEXEC)
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return None
        except OSError:
            return None
    if not descriptors:
        return None
    found = socket.socket(fileno=descriptors[0])
    found.setblocking(False)
    return found


class _Short:
    """A short name of a folder: the path of a Unix socket has at most 107 bytes."""

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> str:
        return f"/proc/self/fd/{self._descriptor}"

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
