"""What a tree of processes takes of the machine, and what others take meanwhile."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_LOOK_EVERY_S = 0.25
# Adding up the pages of a large process takes it 10 ms.
_MEMORY_EVERY_S = 2.0


@dataclass(frozen=True)
class Load:
    """What happened on the machine between two moments."""

    wall_s: float
    own_cpu_s: float
    """CPU time of the tree, with what its ended processes had taken."""
    foreign: float
    """Share of the machine that others took, 0..1."""
    peak_bytes: int
    """Largest memory of the tree: each page divided by the number of processes that share it."""


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    started: int
    cpu_s: float

    @property
    def key(self) -> tuple[int, int]:
        # A number is given again once its process has ended.
        return self.pid, self.started


class Tree:
    """A process and all that came of it, also what its parents have outlived.

    Args:
        root: Process id.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._cpu: dict[tuple[int, int], float] = {}
        self._alive: set[int] = set()

    def look(self) -> float:
        """Look at the tree as it is now.

        Returns:
            CPU seconds that it has taken since it began, those of ended processes included as far
            as they were seen.
        """
        processes = _processes()
        inside = {
            process.pid
            for process in processes
            if process.pid == self._root or process.key in self._cpu
        }
        grown = True
        while grown:
            found = {process.pid for process in processes if process.parent in inside} - inside
            inside |= found
            grown = bool(found)
        self._alive = inside
        for process in processes:
            if process.pid in inside:
                self._cpu[process.key] = process.cpu_s
        return sum(self._cpu.values())

    @property
    def alive(self) -> set[int]:
        """Process ids at the last look."""
        return self._alive

    def memory(self) -> int:
        """Bytes: each page divided by the number of processes that share it."""
        return sum(map(_memory, self._alive))


class Meter:
    """Watches a tree between two moments. Its own work counts neither as own nor as foreign.

    Args:
        root: Process id.
    """

    def __init__(self, root: int) -> None:
        self.tree = Tree(root)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._peak = 0

    def begin(self) -> None:
        """Start to measure."""
        self._own = self.tree.look()
        self._peak = self.tree.memory()
        self._busy, self._meter = _busy(), time.process_time()
        self._started = time.perf_counter()
        self._thread.start()

    def end(self) -> Load:
        """Stop, and say what there was."""
        wall = time.perf_counter() - self._started
        with self._lock:
            busy = _busy() - self._busy
            own = self.tree.look() - self._own
            meter = time.process_time() - self._meter
            peak = max(self._peak, self.tree.memory())
        self.stop()
        room = (os.cpu_count() or 1) * wall
        foreign = min(max(busy - own - meter, 0.0) / room, 1.0)
        return Load(wall, own, foreign, peak)

    def stop(self) -> None:
        """End the watching, whether it has begun or not."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        rested = 0.0
        while not self._over.wait(_LOOK_EVERY_S):
            rested += _LOOK_EVERY_S
            with self._lock:
                if self._over.is_set():
                    return
                self.tree.look()
                if rested >= _MEMORY_EVERY_S:
                    self._peak = max(self._peak, self.tree.memory())
                    rested = 0.0


def _processes() -> list[_Process]:
    found = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text()
        except OSError:  # it has just ended
            continue
        # The name, in brackets, may hold anything: what follows the last bracket is regular.
        rest = text[text.rindex(")") + 2 :].split()
        ticks = int(rest[11]) + int(rest[12])
        found.append(_Process(int(entry.name), int(rest[1]), int(rest[19]), ticks / _TICKS_PER_S))
    return found


def _memory(pid: int) -> int:
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return 0
    line = next((line for line in text.splitlines() if line.startswith("Pss:")), "Pss: 0 kB")
    return int(line.split()[1]) * 1024


def _busy() -> float:
    """CPU seconds of the whole machine that were neither idle nor waiting, since it started."""
    numbers = [int(word) for word in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _, _, *rest = numbers
    # What a guest takes is in user already; stolen time is time of others.
    return (user + nice + system + sum(rest[:3])) / _TICKS_PER_S
