"""Where running trials report to, and hear whether they must end: one actor, asked by a thread."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from holdtrue.tuning._prune import Table, stops

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdtrue.declaration import Pruner
    from holdtrue.tuning._prune import Direction
    from holdtrue.tuning._types import Outcome, Report, Watch

# The thread gives an answer up after this; the trial goes on meanwhile.
_ANSWER_TIMEOUT_S = 10.0


class Hub:
    """Holds what all trials reported, and judges each report. A Ray actor: see `start_hub`."""

    def __init__(
        self, rule: Pruner, direction: Direction, history: Iterable[tuple[int, Outcome]]
    ) -> None:
        """Start with the finished trials; after a crash of its process it starts with these again.

        Args:
            rule: Which trials are ended.
            direction: Which values are better.
            history: Number and outcome of each trial that is finished already.
        """
        self._rule = rule
        self._direction = direction
        known = tuple(history)
        self._table = Table.of(known)
        self._finished = {number for number, _ in known}
        self._own: dict[int, list[Report]] = {}

    def report(self, number: int, report: Report) -> bool:
        """Add a report of a running trial; returns whether the trial must end."""
        if number in self._finished:  # late: a failed trial would be a standard again
            return False
        own = self._own.setdefault(number, [])
        if own and own[-1].ladder == report.ladder and report.step <= own[-1].step:
            own.clear()  # its worker died, and it runs again from the start
        own.append(report)
        self._table.report(number, report)
        return stops(self._rule, self._direction, self._table, number, own)

    def finish(self, number: int, outcome: Outcome) -> None:
        """Add how a trial ended."""
        self._own.pop(number, None)
        self._finished.add(number)
        self._table.finish(number, outcome)


def start_hub(
    rule: Pruner | None, direction: Direction, history: Iterable[tuple[int, Outcome]] = ()
) -> Any:
    """Start the actor, near the driver. Ray must be connected.

    Call ``hub.finish.remote(number, outcome)`` for each trial that ends, without waiting for it.
    The actor ends with the last handle to it.

    Args:
        rule: Which trials are ended.
        direction: Which values are better.
        history: Number and outcome of each trial that is finished already, when a search goes on.

    Returns:
        Its handle; None where no trial is ever ended.
    """
    if rule is None:
        return None
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor = ray.remote(Hub).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here)
    return actor.remote(rule, direction, tuple(history))


def make_watch(
    hub: Any,
    number: int,
    *,
    rule: Pruner | None,
    direction: Direction,
    frozen: Table | None = None,
) -> Watch:
    """What a trial reports to; made in the worker, one for each run of a trial.

    Args:
        hub: Handle of the actor; None where there is none.
        number: Of the trial.
        rule: Which trials are ended; None: nobody listens.
        direction: Which values are better.
        frozen: Decide by these trials alone, at once and the same in every run, instead of asking
            the hub. It is not changed.
    """
    if rule is not None and frozen is not None:
        return _Frozen(number, rule, direction, frozen)
    if rule is not None and hub is not None:
        return _Asking(hub, number)
    return _Deaf()


class _Deaf:
    """Nobody listens."""

    wanted = False

    def report(self, report: Report) -> bool:
        return False

    def ended(self, wait_s: float = 0.0) -> bool:
        return False


@dataclass
class _Frozen:
    """Decides by what was known when the trial was asked for."""

    number: int
    rule: Pruner
    direction: Direction
    table: Table
    own: list[Report] = field(default_factory=list)
    wanted = True
    _ended: bool = False

    def report(self, report: Report) -> bool:
        self.own.append(report)
        self._ended = self._ended or stops(
            self.rule, self.direction, self.table, self.number, self.own
        )
        return self._ended

    def ended(self, wait_s: float = 0.0) -> bool:
        return self._ended


class _Asking:
    """Hands reports to the process's thread, and knows the answers that have come so far."""

    wanted = True

    def __init__(self, hub: Any, number: int) -> None:
        self._hub = hub
        self._number = number
        self._ended = False
        self._sent = 0
        self._quiet = threading.Event()  # no answer is on its way
        self._quiet.set()

    def report(self, report: Report) -> bool:
        self._sent += 1
        self._quiet.clear()
        _post(self, report)
        return self._ended

    def ended(self, wait_s: float = 0.0) -> bool:
        if wait_s > 0 and not self._ended:
            self._quiet.wait(wait_s)
        return self._ended

    def ask(self, count: int, report: Report) -> None:
        """Ask the hub; in the thread. A hub that is dead or slow ends no trial."""
        import ray

        try:
            answer = self._hub.report.remote(self._number, report)
            self._ended = bool(ray.get(answer, timeout=_ANSWER_TIMEOUT_S)) or self._ended
        except Exception:  # noqa: BLE001, S110 - of many kinds; the trial goes on without an answer
            pass
        finally:
            if count == self._sent:
                self._quiet.set()


# One thread for all trials of this process, one after the other.
_QUEUE: SimpleQueue[tuple[_Asking, int, Report]] = SimpleQueue()
_STARTING = threading.Lock()
_thread: threading.Thread | None = None


def _post(watch: _Asking, report: Report) -> None:
    global _thread  # noqa: PLW0603 - the process's own
    if _thread is None or not _thread.is_alive():
        with _STARTING:
            if _thread is None or not _thread.is_alive():
                _thread = threading.Thread(target=_deliver, name="reports", daemon=True)
                _thread.start()
    _QUEUE.put((watch, watch._sent, report))


def _deliver() -> None:
    while True:
        watch, count, report = _QUEUE.get()
        watch.ask(count, report)
