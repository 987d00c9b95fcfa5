"""How many trials of a search there is room for at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.tuning._asker import LAG

if TYPE_CHECKING:
    from holdtrue.tuning._types import Search

_ROUNDING = 1e-6


def room(search: Search) -> tuple[int, int]:
    """How many trials run at a time, and how many tasks to have with Ray.

    One task more than run, so that no worker waits for the driver; not where ``search.parallel``
    is less than what the cluster has room for, for Ray would then run it.

    Raises:
        ConfigError: Not even one.
    """
    from holdtrue.stack._resources import alive_nodes, check_fits

    nodes = alive_nodes()
    check_fits(search.cpus, search.gpus, nodes)
    slots = 0
    for node in nodes:
        fits = node.cpus // search.cpus
        # 1 // 0.1 is 9: a tenth is a little more than that in binary.
        slots += min(fits, int(node.gpus / search.gpus + _ROUNDING)) if search.gpus else fits
    most = min(search.parallel or slots, LAG if search.deterministic else slots)
    return (most, most) if most < slots else (slots, slots + 1)
