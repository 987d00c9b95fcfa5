"""What runs in each Ray Serve replica: an HTTP server of its own, and the slate that it serves."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdtrue.errors import ServingError
from holdtrue.serving._app import Application
from holdtrue.serving._capture import new_ids
from holdtrue.serving._deploy import DEPLOYMENT, STOP_TIMEOUT_S
from holdtrue.serving._http import HttpServer
from holdtrue.serving._listener import LOOPBACK, Sharing, obtain
from holdtrue.serving._live import LAST_GOOD, Tallies, keep_last_good, last_good, load
from holdtrue.serving._slate import Slate
from holdtrue.serving._statistics import (
    Refused,
    ReplicaStatistics,
    fold_ended,
    hold,
    is_alive,
    read_replicas,
    write_replica,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from holdtrue.serving._live import Live

logger = logging.getLogger("ray.serve")

LINGER_S = 3.0
"""How long a replica that goes answers on connections that are open, before it closes them."""
_HEALTH_TIMEOUT_S = 5.0
# How long a thread that works keeps the interpreter while the one that answers waits for it.
_SWITCH_S = 0.0005
_FOLD_EVERY = 60
# Of Python's collector: how many objects more there are before it looks through them, and how often
# it does so before it looks through older ones. At its own 700, the hundreds of requests that wait
# under an overload have it look twenty times a second, for up to 9 ms.
_GARBAGE = (20_000, 10, 1_000)


class Replica:
    """The Ray Serve deployment.

    Serve starts, configures, watches, scales and ends it; requests come by its own HTTP server,
    on a socket that all replicas of the system share. (Serve's proxy takes 8 ms of CPU time for a
    request, and more threads than this machine has cores.)

    Args:
        port: That the system is served on.
        host: The address that it is served on.
    """

    def __init__(self, port: int, host: str = LOOPBACK) -> None:
        keep_on_loopback()
        sys.setswitchinterval(_SWITCH_S)
        self.name = new_ids(1)[0]
        self.tallies = Tallies()
        self.application = Application(self.name, self.tallies)
        self._port, self._host = port, host
        self._guard = asyncio.Lock()
        self._server: HttpServer | None = None
        self._listener: socket.socket | None = None
        self._sharing: Sharing | None = None
        self._alive = -1
        self._ticks = 0
        self._written: ReplicaStatistics | None = None
        self._writing = threading.Lock()

    async def reconfigure(self, config: dict[str, Any]) -> None:
        """Serve another slate from the next request on; called by Serve.

        A slate that cannot be served does not replace one that is: `ready` tells why. A replica
        that serves nothing yet takes the one that was served last instead.

        Raises:
            ServingError: It cannot be served, and there is none to go back to.
        """
        async with self._guard:
            live, refused = await asyncio.to_thread(self._load, config)
            if self._server is None:
                self.application.serve(live)
                await asyncio.to_thread(self._start, live.slate)
            elif live is not self.application.live:
                await asyncio.wrap_future(self._server.call(self.application.serve, live))
            self.application.refused = refused
            await asyncio.to_thread(self._write)

    async def check_health(self) -> None:
        """Say whether the event loop that answers turns; called by Serve.

        Raises:
            ServingError: It does not.
        """
        server = self._server
        if server is None:
            return
        if not await asyncio.to_thread(server.is_responsive, _HEALTH_TIMEOUT_S):
            message = f"the HTTP server has not moved for {_HEALTH_TIMEOUT_S:g} s"
            raise ServingError(message)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `wanted_replicas` decides by; called by Serve."""
        return {"ongoing": self.application.load}

    def __del__(self) -> None:
        """Answer what is open, and end; called by Serve when the replica is stopped in order."""
        self.stop()

    def stop(self, linger_s: float = LINGER_S) -> None:
        """Take no more connections, answer what comes on open ones, then close everything."""
        self.application.draining = True
        server, self._server = self._server, None
        if self._sharing is not None:
            self._sharing.close()
        if server is not None:
            server.stop(linger_s, STOP_TIMEOUT_S)
        self.application.close()
        if self._listener is not None:
            self._listener.close()
        if self._alive >= 0:
            self._write()
            os.close(self._alive)
            self._alive = -1

    def _load(self, config: dict[str, Any]) -> tuple[Live, Refused | None]:
        now = self.application.live
        try:
            slate = Slate.model_validate(config)
            live = load(slate, now, self.tallies)
        except Exception as err:
            # Whatever is wrong with it, a good one must stay.
            refused = _refused(config, err)
            earlier = now or self._earlier(config)
            if earlier is None:
                raise
            logger.exception("a slate was refused")
            self.application.log.say(
                "a slate was refused", error=refused.reason, version=refused.version
            )
            return earlier, refused
        try:
            keep_last_good(slate)
        except OSError as err:  # a full disk is no reason not to answer
            self.application.log.not_written(slate.folder / LAST_GOOD, err)
        return live, None

    def _earlier(self, config: dict[str, Any]) -> Live | None:
        """The slate that was served last by any replica."""
        with suppress(Exception):
            slate = last_good(Slate.model_validate(config))
            if slate is not None:
                return load(slate, None, self.tallies)
        return None

    def _start(self, slate: Slate) -> None:
        """Begin to answer."""
        # What was imported is here to stay, 200,000 objects: to look through them for garbage holds
        # up all answers for 100 ms. To look through those of 4,000 connections takes 40 ms, which
        # must not be each time that some hundred requests have waited.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GARBAGE)
        statistics = Path(slate.statistics)
        self._alive = hold(statistics, self.name)
        folder = slate.folder / "listeners"
        folder.mkdir(parents=True, exist_ok=True)
        self._listener = obtain(self._port, folder, host=self._host)
        application = self.application
        server = HttpServer(
            application, self._listener, self._tick, application.gate, application.busy
        )
        application.connections = lambda: server.connections
        server.start()
        sharing = self._sharing = Sharing(self._listener, folder, self.name)
        server.watch(sharing.socket, sharing.give)
        self._server = server

    async def _tick(self) -> None:
        """What is to be done each second, in the server's event loop."""
        try:
            await self.application.tick()
            await asyncio.to_thread(self._share_and_count)
        except Exception:  # the next second may go better
            logger.exception("a replica could not write its statistics")

    def _share_and_count(self) -> None:
        live = self.application.live
        if live is None:
            return
        folder = Path(live.slate.statistics)
        self._write()
        others = [
            replica.gauges.connections
            for replica in read_replicas(folder)
            if replica.id != self.name and is_alive(folder, replica.id)
        ]
        mine = self.application
        mine.close_share = surplus(mine.connections(), others, mine.answers_per_s)
        self._ticks += 1
        if self._ticks % _FOLD_EVERY == 1:
            fold_ended(folder)

    def _write(self) -> None:
        live = self.application.live
        if live is None:
            return
        with self._writing:
            now = self.application.statistics()
            last = self._written
            if last is None or now.model_copy(update={"at": last.at}) != last:
                folder = Path(live.slate.statistics)
                try:
                    write_replica(folder, now)
                except OSError as err:  # what was counted is kept, and written when there is room
                    self.application.log.not_written(folder, err)
                else:
                    self._written = now


def keep_on_loopback() -> None:
    """Have Serve's own gRPC server in this process listen on the loopback address only.

    It is for calls between deployments, which nobody makes here, and is not configurable.
    """
    replica = sys.modules.get("ray.serve._private.replica")
    if replica is None:  # in a process of its own, as in tests
        return
    add = replica.add_port_to_grpc_server

    def add_here(server: Any, address: str) -> Any:
        return add(server, address.replace("[::]", LOOPBACK))

    replica.add_port_to_grpc_server = add_here  # type: ignore[attr-defined]


def surplus(connections: int, others: Sequence[int], answers_per_s: float) -> float:
    """Share of the answers after which to close the connection, so that others get some.

    Connections stay with the replica that has taken them; one that starts later would have none
    until some are opened anew. All of the surplus is, in a second; the replica takes about half of
    them itself again, so that others do not get too many.

    Args:
        connections: That the replica has.
        others: How many each other one has.
        answers_per_s: That it gives.
    """
    fair = (connections + sum(others)) / (1 + len(others))
    if connections <= fair + 1:
        return 0.0
    return min(0.5, (connections - fair) / max(answers_per_s, 1.0))


def _refused(config: dict[str, Any], err: Exception) -> Refused:
    name, version, digest = "", None, None
    with suppress(Exception):
        slate = Slate.model_validate(config)
        name, version, digest = slate.name, slate.champion.version, slate.champion.digest
    reason = err.message if isinstance(err, ServingError) else f"{type(err).__name__}: {err}"
    return Refused(slate=name, version=version, digest=digest, reason=reason)


def application(args: dict[str, Any]) -> Any:
    """Build the Ray Serve application; named by `import_path` in the Serve configuration.

    Args:
        args: ``port`` and ``host``. All else comes by `user_config`, which needs no restart.
    """
    from ray import serve

    build = serve.deployment(name=DEPLOYMENT, max_constructor_retry_count=1)
    return build(Replica).bind(int(args["port"]), str(args.get("host", LOOPBACK)))
