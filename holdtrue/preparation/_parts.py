"""The runs of a step, side by side on Ray."""

from __future__ import annotations

import heapq
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from holdtrue.errors import StackError
from holdtrue.preparation._call import Call, Outcome, run_call
from holdtrue.priority import later

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Beside those that run: so many wait for a CPU, so that none idles.
_AHEAD = 2
_LOOK_S = 1.0


class Failure(NamedTuple):
    """A run that failed, as often as it was tried."""

    number: int
    outcome: Outcome
    tries: int


class _Tried(NamedTuple):
    since: float
    """When it was handed to Ray, or may be again: by `time.monotonic`."""
    number: int
    tries: int


def run_calls(
    calls: Sequence[Call],
    given: Mapping[str, Any],
    *,
    at_once: int | None,
    cpus: int,
    retries: int,
    done: Callable[[int, Outcome], None],
) -> list[Failure]:
    """Run calls on the Ray that is connected. After a failure none begins any more.

    Args:
        calls: What is run.
        given: Rows, or paths of files, that each run is given, by name.
        at_once: Most of them at a time; as many as there are CPUs where left out.
        cpus: That each asks for.
        retries: How often a run that failed is tried again, after 1, 2, 4, ... seconds.
        done: Told of each that went well, as it ends, with its number.

    Returns:
        Those that failed, in the order of their numbers; empty where all went well.
    """
    import ray

    from holdtrue.stack._cancel import cancel
    from holdtrue.stack._resources import alive_nodes

    names = tuple(given)
    rows = [value if isinstance(value, tuple) else ray.put(value) for value in given.values()]
    room = sum(node.cpus for node in alive_nodes()) // cpus
    most = at_once or max(1, room) + _AHEAD
    task: Any = ray.remote(later(run_call)).options(
        num_cpus=cpus, max_retries=0, scheduling_strategy="SPREAD"
    )
    # By the moment from which on they may begin, then by their numbers.
    waiting = [_Tried(0.0, number, 0) for number in range(len(calls))]
    running: dict[Any, _Tried] = {}
    failed: list[Failure] = []
    try:
        while running or (waiting and not failed):
            now = time.monotonic()
            while waiting and waiting[0].since <= now and len(running) < most and not failed:
                one = heapq.heappop(waiting)
                reference = task.remote(calls[one.number], names, *rows)
                running[reference] = one._replace(since=now, tries=one.tries + 1)
            if not running:
                time.sleep(min(_LOOK_S, max(0.0, waiting[0].since - now)))
                continue
            ready, _ = ray.wait([*running], timeout=_LOOK_S)
            for reference in ready:
                tried = running.pop(reference)
                outcome = _outcome(reference, calls[tried.number], time.monotonic() - tried.since)
                if not outcome.error:
                    done(tried.number, outcome)
                elif tried.tries <= retries:
                    again = time.monotonic() + 2 ** (tried.tries - 1)
                    heapq.heappush(waiting, tried._replace(since=again))
                else:
                    failed.append(Failure(tried.number, outcome, tried.tries))
    finally:
        # Code can only be ended with its process; a command ends what it has started by itself.
        cancel(running, force=all(isinstance(call.run, str) for call in calls))
    return sorted(failed)


def _outcome(reference: Any, call: Call, seconds: float) -> Outcome:
    import ray
    from ray.exceptions import RayError, WorkerCrashedError

    try:
        found: Outcome = ray.get(reference)
    except WorkerCrashedError as err:
        if seconds >= call.timeout_s:
            said = f"{call.says} took longer than {call.timeout_s:g} s, and was ended"
            return Outcome(None, "", f"{said}\n  give it a longer timeout")
        said = f"{call.says}: its process ended, as where memory runs out"
        return Outcome(None, str(err), said, away=True)
    except RayError as err:
        lines = str(err).strip().splitlines()
        message = f"{call.says} was lost: {lines[0] if lines else type(err).__name__}"
        raise StackError(message, hint="run this again: what was done is kept") from err
    return found
