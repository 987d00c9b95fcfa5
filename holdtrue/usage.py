"""What a stretch of work takes of the machine, as far as that can be told at next to no cost."""

from __future__ import annotations

import re
import resource
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_PROCESS = Path("/proc/self")
# Has the kernel forget the most memory that the process has had (proc_pid_clear_refs(5)).
_FORGET_PEAK = "5"
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Usage:
    """What was taken by some processes."""

    cpu_seconds: float
    """Of all their threads."""
    peak_memory_bytes: int | None
    """Most memory that they had at a moment; None where the system does not say it by stretches."""


class Meter:
    """Measures this process, and the CPU time of its children that have ended.

    It does so from when it is made; one at a time in a process, or the peaks are those of both.
    """

    def __init__(self) -> None:
        self._cpu = _cpu_seconds()
        self._fresh = _forget_peak()

    def read(self) -> Usage:
        """What was taken until now."""
        return Usage(_cpu_seconds() - self._cpu, _peak_bytes() if self._fresh else None)


# Processes of Ray's that are no workers of a task, and those that answer requests, by their titles.
_OTHERS = re.compile(r"ray::(DashboardAgent|RuntimeEnvAgent|Serve|Proxy|HAProxy)")
# How often workers are looked at: 5 to 10 ms of CPU time each.
_EVERY_S = 0.5


class WorkerMeter:
    """Measures the workers of a Ray on this machine that serve nothing, from when it is made.

    They are looked at twice a second: a shorter peak is missed, and so is the CPU time of a worker
    since the last look before it ended. What else this Ray runs meanwhile counts, too.

    Args:
        ray: Process that has started Ray: its child is Ray's own, and the workers are that one's.
    """

    def __init__(self, ray: int) -> None:
        self._ray = ray
        self._before: dict[tuple[int, float], float] = {}
        self._now: dict[tuple[int, float], float] = {}
        self._peak = 0
        self._look()
        self._before = dict(self._now)
        self._peak = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker-meter", daemon=True)
        self._thread.start()

    def read(self) -> Usage:
        """What was taken until now; it measures no more. Memory that workers share is left out."""
        self._ending.set()
        self._thread.join()
        self._look()
        spent = sum(cpu_s - self._before.get(key, 0.0) for key, cpu_s in self._now.items())
        return Usage(spent, self._peak)

    def _run(self) -> None:
        while not self._ending.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        together = 0
        with suppress(psutil.Error):
            for raylet in psutil.Process(self._ray).children():
                for worker in raylet.children():
                    with suppress(psutil.Error):
                        if not worker.name().startswith("ray::") or _OTHERS.match(worker.name()):
                            continue
                        times, memory = worker.cpu_times(), worker.memory_info()
                        self._now[worker.pid, worker.create_time()] = times.user + times.system
                        # Not everywhere is it known what is shared.
                        together += memory.rss - getattr(memory, "shared", 0)
        self._peak = max(self._peak, together)


def _cpu_seconds() -> float:
    # os.times() counts in hundredths of a second, and some steps take less.
    taken = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in taken)


def _forget_peak() -> bool:
    try:
        (_PROCESS / "clear_refs").write_text(_FORGET_PEAK)
    except OSError:  # no Linux, or a container that does not allow it
        return False
    return True


def _peak_bytes() -> int | None:
    found = _PEAK.search((_PROCESS / "status").read_text())
    return None if found is None else int(found[1]) * 1024
