"""Whether a slate can answer, by a real prediction of every version."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

from holdtrue.serving._live import within
from holdtrue.serving._scoring import words

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdtrue.serving._asked import Reply
    from holdtrue.serving._live import Live

    Tell = Callable[[Live, str | None], Reply]

_KEPT_S = 1.0
_VERIFY_TIMEOUT_S = 20.0


class Readiness:
    """Asks the versions at most once a second, however many want to know; for one event loop."""

    def __init__(self) -> None:
        self._last: tuple[float, str, Reply] | None = None
        self._asking: tuple[str, asyncio.Task[Reply]] | None = None

    async def ask(self, live: Live, tell: Tell) -> Reply:
        """What is said of a slate now, or was a moment ago.

        Args:
            live: The slate.
            tell: Makes the answer, given why the slate cannot answer; None where it can.
        """
        last = self._last
        if last is not None and last[1] == live.name and perf_counter() - last[0] <= _KEPT_S:
            return last[2]
        asking = self._asking
        if asking is None or asking[0] != live.name:
            task = asyncio.create_task(self._ask(live, tell))
            asking = self._asking = (live.name, task)
        # Others wait for it too: who goes away must not end it.
        return await asyncio.shield(asking[1])

    async def _ask(self, live: Live, tell: Tell) -> Reply:
        began = perf_counter()
        try:
            reply = tell(live, await asyncio.to_thread(_unready, live))
            self._last = (began, live.name, reply)
        finally:
            if self._asking is not None and self._asking[0] == live.name:
                self._asking = None
        return reply


def _unready(live: Live) -> str | None:
    """Why a slate cannot answer; None where it can."""
    for held in live.held:
        if held.arm.role == "shadow":
            continue
        try:
            within(_VERIFY_TIMEOUT_S, f"version {held.arm.version}", held.model.verify)
        except Exception as err:  # noqa: BLE001 - whatever it is, the replica is not ready
            return words(err)
    return None
