"""Stay beside what `holdtrue up` starts, and start again what ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LOOK_S = 5.0
"""How often it is looked whether all runs."""
SETTLED_S = 120.0
"""How long all must have run for an incident to be over."""
LONGEST_PAUSE_S = 300.0
WATCH_S = 60.0
"""How often it is looked whether something is late."""
_TAKEN_DOWN = "all was taken down, so nothing is left to look after"


def supervise(
    missing: Callable[[], Sequence[str] | None],
    start: Callable[[], None],
    *,
    say: Callable[[str], None],
    tell: Callable[[str | None], None],
    watch: Callable[[], None] = lambda: None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Start again what ends, until somebody takes everything down.

    What ends is started at once. What ends again, or does not start, before all has run for
    `SETTLED_S` waits for 5 s, 10 s, and so on up to `LONGEST_PAUSE_S`, so that what cannot run
    does not take the machine.

    Args:
        missing: What ought to run and does not, a sentence each; None where all was taken down.
        start: Starts what does not run; what it raises is told.
        say: Told what happens.
        tell: Told why something does not run, for those who are notified; None once all does again.
        watch: Looks whether something is late; what it raises is told.
        sleep: Waits so many seconds.
        clock: Seconds, from any moment.
    """
    attempts, since, watched = 0, 0.0, clock()
    while True:
        sleep(LOOK_S)
        found = missing()
        if found is None:
            say(_TAKEN_DOWN)
            return
        if clock() - watched >= WATCH_S:
            watched = clock()
            try:
                watch()
            except Exception as err:  # noqa: BLE001 - what ends is to be started again all the same
                say(f"what is late is not known: {str(err) or type(err).__name__}")
        if found:
            reason, pause = "; ".join(found), pause_s(attempts)
            tell(reason)
            say(f"{reason}; starting again{f' in {pause:g} s' if pause else ''}")
            sleep(pause)
            if missing() is None:  # meanwhile
                say(_TAKEN_DOWN)
                return
            attempts += 1
            try:
                start()
            except Exception as err:  # noqa: BLE001 - the next attempt may go better
                say(str(err) or type(err).__name__)
            else:
                if not missing():
                    say("all runs again")
            since = clock()
        elif attempts and clock() - since >= SETTLED_S:
            attempts = 0
            tell(None)
            say(f"all has run for {SETTLED_S:g} s")


def pause_s(attempts: int) -> float:
    """How long to wait before the next attempt, after so many of them within one incident."""
    return 0.0 if attempts == 0 else min(LONGEST_PAUSE_S, 5.0 * 2.0 ** (attempts - 1))
