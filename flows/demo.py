"""The main job on real flights, from raw data to a monitored, retrained model: make demo."""

from __future__ import annotations

import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import holdtrue
from flows._replay import Replay
from flows._summary import print_summary
from holdtrue.errors import HoldtrueError
from holdtrue.progress import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdtrue.references import DriftReport
    from holdtrue.system import System

DECLARATION = Path(__file__).parent.parent / "configs" / "flights.yaml"
FIRST_DAY = datetime(2013, 7, 1, tzinfo=UTC)
LAST_DAY = datetime(2013, 9, 1, tzinfo=UTC)
# In the store: it was filled by the demo, and may be thrown away by the next one.
MARK = "demo"
# In the demo a week passes in a few seconds, and the monitor looks once a week.
WEEK = timedelta(days=7)


def main() -> None:
    """Run the demo; an error ends in one sentence."""
    started = time.monotonic()
    try:
        system = holdtrue.load(DECLARATION)
        begin_anew(system)
        with down_unless_finished(system):
            bring_up(system)
            replay, reports = live_through_summer(system)
    except HoldtrueError as err:
        sys.stderr.write(f"error: {err}\n")
        raise SystemExit(err.exit_code) from None
    except KeyboardInterrupt:
        sys.stderr.write("stopped; nothing is left running\n")
        raise SystemExit(130) from None
    print_summary(system, replay, reports, time.monotonic() - started)


def begin_anew(system: System) -> None:
    """Give the demo an empty store: its own earlier one goes, any other is kept aside."""
    root = system.store.root
    if any(root.glob("*")):
        system.stack.down()
        if (root / MARK).exists():
            shutil.rmtree(root)
        else:
            aside = root.with_name(f"{root.name}-{datetime.now(UTC):%Y%m%dT%H%M%S}")
            root.rename(aside)
            say(f"The store held something already: it is kept in {aside}")
    system.store.prepare()
    (root / MARK).touch()


@contextmanager
def down_unless_finished(system: System) -> Iterator[None]:
    """Leave nothing running behind an error or Ctrl-C."""
    try:
        yield
    except BaseException:
        system.stack.down()
        raise


def bring_up(system: System) -> None:
    """Start Ray and the Prefect server side by side, and point this process to them."""
    system.check()
    with Terminal().step("start") as progress, ThreadPoolExecutor(2) as pool:
        progress(0, 2, "Ray and the Prefect server")
        starts = [pool.submit(system.stack.up_ray), pool.submit(system.stack.up_prefect)]
        for number, start in enumerate(starts, start=1):
            start.result()
            progress(number, 2, "Ray and the Prefect server")
    # Prefect reads these when it is imported, which is why the flows are imported later.
    os.environ.update({"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"} | system.environment())
    state = system.stack.state()
    say(f"Prefect UI: {state.prefect_ui}   (password: {os.environ['PREFECT_API_AUTH_STRING']})")


def live_through_summer(system: System) -> tuple[Replay, list[DriftReport]]:
    """Train as of 1 July, then replay July and August, watched and retrained as declared."""
    from flows.monitor import monitor
    from flows.retrain import retrain
    from flows.train import train

    declaration = str(DECLARATION)
    heading("Train as of 1 July 2013, and serve")
    train(declaration, trigger="first training")
    replay = Replay(system)
    before = len(system.registry.drift_reports(system.declaration.name))
    heading("Replay July and August as HTTP requests; the monitor looks once a week")
    for week in weeks():
        replay.send(*week, Terminal())
        action = monitor(declaration, as_of=week[1])
        report = system.registry.drift_reports(system.declaration.name, last=1)[-1]
        say(f"          {action}: {report.decision.reason}")
        if action == "retrain" and report.decision.held_back is None:
            heading(f"Retrain as of {week[1]:%-d %B}, while the next flights are answered")
            with replay.in_background(*following(week)):
                retrain(declaration, as_of=week[1], trigger=", ".join(report.decision.signals))
            heading("On with the replay")
    replay.close()
    return replay, system.registry.drift_reports(system.declaration.name)[before:]


def weeks() -> Iterator[tuple[datetime, datetime]]:
    """The weeks of the summer; the last one may be shorter."""
    start = FIRST_DAY
    while start < LAST_DAY:
        yield start, min(start + WEEK, LAST_DAY)
        start += WEEK


def following(week: tuple[datetime, datetime]) -> tuple[datetime, datetime]:
    """The week after a week."""
    return week[1], min(week[1] + WEEK, LAST_DAY)


def say(text: str = "") -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def heading(text: str) -> None:
    """Print what comes next."""
    say(f"\n{text}")


if __name__ == "__main__":
    main()
