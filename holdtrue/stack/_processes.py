"""Start processes that outlive the command, and end them with all their children."""

from __future__ import annotations

import functools
import itertools
import os
import random
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from holdtrue.errors import StackError
from holdtrue.stack._state import ProcessInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

LOOPBACK = "127.0.0.1"
# How long each may take to end in order, by name. Prefect takes 2 s; Ray 1 s, but with Serve half
# a minute, for actors that never end. Nothing is lost by force: what they answered is in the
# segments, what they store is transactional.
_GRACE_S = {"ray": 1.5}
_USUAL_GRACE_S = 5.0
_KILL_WAIT_S = 5.0
_FOLLOW_S = 2.0
_POLL_S = 0.2
_END_POLL_S = 0.05
# Linux rounds when the machine was started to a second, by the clock of the moment.
_SAME_S = 1.5
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_EPHEMERAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Above those of Ray's workers (10002 to 19999, where another cluster uses its defaults).
_LOWEST_PORT = 20_000
# Two commands that start at once should not try the same ports: never seeded.
_chance = random.SystemRandom()
# Kept so that a child that ends before this process is reaped, and no warning says otherwise.
_children: dict[int, subprocess.Popen[bytes]] = {}


def port_is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on a port of an address of this machine; 0: on any port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Different ports that nothing listens on now, and that no connection is given if possible.

    Those that the system hands out by itself (32768 to 60999 on Linux, where nobody says otherwise)
    come last: before a server listens on one, it may be the near end of a connection of somebody
    else, and Ray opens hundreds.
    """
    ports = list(range(_LOWEST_PORT, 65_536))
    _chance.shuffle(ports)
    ports.sort(key=_ephemeral_ports().__contains__)
    return list(itertools.islice(filter(port_is_free, ports), count))


@functools.cache
def _ephemeral_ports() -> range:
    """The ports that the system gives to connections."""
    try:
        low, high = map(int, _EPHEMERAL_PORTS.read_text().split())
    except (OSError, ValueError):  # not Linux: what IANA recommends, and most others do
        low, high = 49_152, 65_535
    return range(low, high + 1)


def start(
    name: str, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path
) -> ProcessInfo:
    """Start a process in a session of its own, so that Ctrl-C here does not reach it.

    Args:
        name: What it does.
        command: Program and arguments.
        env: Variables on top of this process's own.
        cwd: Its working folder.
        log: File that its output is written to; an older one is kept as ``.1`` beside it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        log.replace(log.with_name(f"{log.name}.1"))
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - the commands are our own
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            cwd=cwd,
            start_new_session=True,
        )
    _children[process.pid] = process
    return info_of(name, process.pid)


def info_of(name: str, pid: int) -> ProcessInfo:
    """What tells a process from others, later too."""
    try:
        started_s = _started_s(psutil.Process(pid))
    except psutil.NoSuchProcess:
        started_s = 0.0  # already gone; the caller sees it by `is_alive`
    return ProcessInfo(name=name, pid=pid, started_s=started_s, boot=_boot())


def is_alive(info: ProcessInfo) -> bool:
    """Whether this very process still runs."""
    child = _children.get(info.pid)
    if child is not None and child.poll() is not None:
        return False
    try:
        return not _is_reused(info) and _runs(psutil.Process(info.pid))
    except psutil.NoSuchProcess:
        return False


def how_it_ended(info: ProcessInfo) -> str:
    """Of a process that is gone: by which signal, or with which status, as far as that is known."""
    child = _children.get(info.pid)
    code = None if child is None else child.poll()
    if code is None:
        return "has ended"
    if code >= 0:
        return f"has ended with status {code}"
    name = signal.Signals(-code).name
    lacking = " (the machine may have run out of memory)" if -code == signal.SIGKILL else ""
    return f"was ended by {name}{lacking}"


def _is_reused(info: ProcessInfo) -> bool:
    """Whether another process has the pid by now."""
    if info.boot != _boot():
        return True
    try:
        return abs(_started_s(psutil.Process(info.pid)) - info.started_s) > _SAME_S
    except psutil.NoSuchProcess:
        return False


def _boot() -> str:
    """An identifier of the machine's start; empty where the system has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _started_s(process: psutil.Process) -> float:
    """Seconds from the machine's start to the process's.

    Since 1970 would be another number whenever the clock is set, as after a laptop's sleep.
    """
    return float(process.create_time() - psutil.boot_time())


def end(processes: Iterable[ProcessInfo], *, grace_s: float | None = None) -> None:
    """End processes and everything that they started; returns when all of it is gone.

    The leaders are asked first and end their children in order; what is left once they have
    ended, or have taken too long, is ended by force.

    Args:
        processes: The leaders.
        grace_s: How long each of them may take; left out, what it usually needs.
    """
    wanted = [info for info in processes if not _is_reused(info)]
    family = _family(wanted)
    graces = {
        psutil.Process(info.pid): (
            _GRACE_S.get(info.name, _USUAL_GRACE_S) if grace_s is None else grace_s
        )
        for info in wanted
        if is_alive(info)
    }
    for process in graces or family:
        with suppress(psutil.Error):
            process.terminate()
    asked = time.monotonic()
    slow = [p for p, grace in graces.items() if _wait([p], asked + grace - time.monotonic())]
    left = {*_wait(family, 0 if slow else _FOLLOW_S), *_family(wanted)}
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    _wait(left, _KILL_WAIT_S)
    for info in wanted:
        child = _children.pop(info.pid, None)
        if child is not None:
            child.wait(_KILL_WAIT_S)


def _wait(processes: Iterable[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait for processes to end; returns those that have not.

    A zombie has ended. (In a container whose first process reaps nobody, orphans stay zombies.)
    """
    deadline = time.monotonic() + timeout_s
    left = list(processes)
    while (left := [process for process in left if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(_END_POLL_S)
    return left


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _family(wanted: Sequence[ProcessInfo]) -> list[psutil.Process]:
    """The processes, their descendants, and orphans of theirs.

    A process whose parent was killed has no parent to be found by, but stays in the session
    that was opened for the leader. While that is there no other gets the leader's pid.
    """
    found: set[psutil.Process] = set()
    sessions = {info.pid for info in wanted}
    for info in wanted:
        if is_alive(info):
            with suppress(psutil.Error):
                leader = psutil.Process(info.pid)
                found |= {leader, *leader.children(recursive=True)}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) in sessions and _runs(process):
                found.add(process)
    return [process for process in found if process.pid != os.getpid()]


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, indented for an error message."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return ""
    kept = [line for line in text.splitlines() if line.strip()][-lines:]
    return "\n".join(f"    {line}" for line in kept)


def wait_until_ready(
    info: ProcessInfo, log: Path, what: str, ready: Callable[[], bool], timeout_s: float
) -> None:
    """Wait for a process that was started to do its work.

    Args:
        info: The process.
        log: Where it writes; quoted when it fails.
        what: Its name in a message.
        ready: Asked again and again.
        timeout_s: How long to wait.

    Raises:
        StackError: It ended, or was not ready in time.
    """
    deadline = time.monotonic() + timeout_s
    while not ready():
        if not is_alive(info):
            reason = "ended while starting"
        elif time.monotonic() > deadline:
            reason = f"did not answer within {timeout_s:g} s"
        else:
            time.sleep(_POLL_S)
            continue
        message = f"{what} {reason}; the end of {log}:\n{tail(log)}"
        raise StackError(message, hint="try again when the machine is less busy")
