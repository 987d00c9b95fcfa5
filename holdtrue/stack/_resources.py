"""Which nodes there are to work on, and whether the work fits one of them."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdtrue.errors import ConfigError, Key, spell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    from holdtrue.declaration import Declaration
    from holdtrue.stack._stack import Stack

_NVIDIA = Path("/proc/driver/nvidia/gpus")
# Ray keeps a worker's CPUs for about a second after its last task.
_SETTLE_S = 3.0
_POLL_S = 0.25
_SAY_EVERY_S = 5.0


@dataclass(frozen=True)
class Node:
    """A machine of a cluster, as far as Ray may use it."""

    cpus: int
    gpus: float = 0.0
    free_cpus: int = 0
    """CPUs that nobody has asked for now."""


def check_trial_fits(declaration: Declaration, stack: Stack) -> None:
    """Refuse trials and steps that no node can hold. Instant for those of one CPU and no GPU.

    Asks the declared cluster, else the stack's running one, else looks at this machine.

    Raises:
        ConfigError: No node is large enough; says which key, and what the largest node has.
        StackError: The cluster does not answer.
    """
    cpus, gpus = declaration.tune.cpus, declaration.tune.gpus
    asked: dict[Key, tuple[int, float]] = {("tune",): (cpus, gpus)}
    asked |= {("steps", name): (step.cpus, 0.0) for name, step in declaration.steps.items()}
    asked = {place: (c, g) for place, (c, g) in asked.items() if c > 1 or g > 0}
    if asked:
        nodes = nodes_of(stack, declaration.ray.address)
        for place, (c, g) in asked.items():
            check_fits(c, g, nodes, place)


def check_fits(cpus: int, gpus: float, nodes: Sequence[Node], place: Key = ("tune",)) -> None:
    """Refuse work that no node can hold.

    Args:
        cpus: CPUs that it asks for.
        gpus: GPUs that it asks for.
        nodes: The cluster; at least one.
        place: Of the declaration that asks, for messages.

    Raises:
        ConfigError: None is large enough.
    """
    if any(node.cpus >= cpus and node.gpus >= gpus for node in nodes):
        return
    largest = max(nodes, key=lambda node: (node.gpus, node.cpus) if gpus else (node.cpus,))
    has = f"the largest has {_said(largest.cpus, 'CPU')} and {_said(largest.gpus, 'GPU')}"
    if not any(node.cpus >= cpus for node in nodes):
        name, what = "cpus", f"no node has {cpus}"
    elif not any(node.gpus >= gpus for node in nodes):
        name, what = "gpus", f"no node has {gpus:g}"
    else:
        name, what = "gpus", f"no node has {gpus:g} beside {spell(place)}.cpus: {cpus}"
    hint = "ask for less, or give the address of a larger cluster in ray.address"
    message = f"{what}; {has}"
    raise ConfigError(message, hint=hint, key=(*place, name))


def nodes_of(stack: Stack, address: str | None) -> tuple[Node, ...]:
    """The nodes of the cluster in use.

    Args:
        stack: Whose Ray is used where no address is given; where none runs, the only node is this
            machine, on which one would be started.
        address: Host and port of a cluster.

    Raises:
        StackError: The cluster does not answer.
    """
    if address is None and stack.state().ray_address is None:
        return (this_machine(),)
    from holdtrue.stack._session import ray_session

    with ray_session(stack, address):
        return alive_nodes()


def this_machine() -> Node:
    """What Ray would find here."""
    from ray._private.utils import get_num_cpus

    cpus = int(get_num_cpus(override_docker_cpu_warning=True))
    return Node(cpus, float(_gpus()), cpus)


def _gpus() -> int:
    """NVIDIA devices that this process may use."""
    try:
        there = len(list(_NVIDIA.iterdir()))
    except OSError:
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return there
    names = [name.strip() for name in visible.split(",")]
    return min(there, len([name for name in names if name not in ("", "-1", "NoDevFiles")]))


def alive_nodes() -> tuple[Node, ...]:
    """The nodes of the cluster that this process is connected to, in no particular order."""
    import ray
    from ray._private.state import available_resources_per_node

    free: dict[str, dict[str, float]] = available_resources_per_node()  # type: ignore[no-untyped-call]
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return tuple(
        Node(
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=float(node["Resources"].get("GPU", 0.0)),
            free_cpus=int(free.get(node["NodeID"], {}).get("CPU", 0)),
        )
        for node in nodes
        if node["Alive"]
    )


def free_cpus(settle_s: float = _SETTLE_S) -> int:
    """How many CPUs of the whole cluster nobody uses.

    Args:
        settle_s: How long to wait for the first, as where this program's own work has just ended.

    Returns:
        0 where other work has all of them.
    """
    deadline = time.monotonic() + settle_s
    while True:
        free = sum(node.free_cpus for node in alive_nodes())
        if free > 0 or time.monotonic() > deadline:
            return free
        time.sleep(_POLL_S)


def fit_cpus(settle_s: float = _SETTLE_S) -> int:
    """How many CPUs to ask for to fit a model on one node, so that it need not wait.

    Args:
        settle_s: How long to wait for the largest node to become wholly free, as it does where
            this program's own work has just ended.

    Returns:
        The most that are free on one node, at least 1. Where all are in use, 1: the first that
        becomes free is taken.
    """
    deadline = time.monotonic() + settle_s
    while True:
        nodes = alive_nodes()
        free = max(node.free_cpus for node in nodes)
        if free >= max(node.cpus for node in nodes) or time.monotonic() > deadline:
            return max(1, free)
        time.sleep(_POLL_S)


def cpus_each(workers: int, nodes: Sequence[Node]) -> int:
    """The most CPUs that each of some workers can have, all at the same time.

    Returns:
        0 where there are more workers than CPUs.
    """
    for cpus in range(max(node.cpus for node in nodes), 0, -1):
        if sum(node.cpus // cpus for node in nodes) >= workers:
            return cpus
    return 0


@contextmanager
def reserved(
    cpus: int, count: int, say: Callable[[str], None], *, gpus: float = 0.0
) -> Iterator[Sequence[PlacementGroupSchedulingStrategy]]:
    """Keep room for processes that work at the same time; waits until there is enough for all.

    Args:
        cpus: CPUs of each process; at most what the largest node has, or it waits for ever.
        count: Processes.
        say: Told every few seconds what is waited for.
        gpus: GPUs of each process.

    Yields:
        For each process the ``scheduling_strategy`` that puts it there; spread over the nodes.
    """
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    bundle = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    group = placement_group([bundle] * count, strategy="SPREAD")
    try:
        while not group.wait(timeout_seconds=_SAY_EVERY_S):
            what = " and ".join(_said(each * count, kind) for kind, each in bundle.items())
            say(f"waiting for {what}: the cluster is busy with other work")
        yield [PlacementGroupSchedulingStrategy(group, index) for index in range(count)]
    finally:
        remove_placement_group(group)


def _said(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}"
