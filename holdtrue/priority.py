"""What gives way to what, where work for later and answers for now share a machine."""

from __future__ import annotations

import os
from functools import wraps
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")

LATER = 15
"""Niceness of searches, fits and batches: what Ray by itself gives to every worker."""


def give_way() -> None:
    """Have this process take the processor only where nothing more urgent wants it; for good.

    Ray is started so that its workers do not by themselves, for replicas are workers too: one that
    answers must not wait for a search on the same machine, nor for Ray's own processes.
    """
    os.nice(max(0, LATER - os.nice(0)))


def later(work: Callable[P, T]) -> Callable[P, T]:
    """The same work, for a Ray worker that gives way to others."""

    @wraps(work)
    def giving_way(*arguments: P.args, **named: P.kwargs) -> T:
        give_way()
        return work(*arguments, **named)

    return giving_way
