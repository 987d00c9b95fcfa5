from __future__ import annotations

import pytest

from holdtrue.errors import StackError
from holdtrue.supervisor import LONGEST_PAUSE_S, LOOK_S, SETTLED_S, WATCH_S, pause_s, supervise


class Life:
    """Processes that end when they are said to, under a clock of their own.

    Args:
        ends: Seconds at which the process ends, if it runs then.
        starts: What each attempt to start it comes to: True, False, or what it raises. After the
            last one it starts.
        down: When somebody takes everything down.
    """

    def __init__(self, ends=(), starts=(), down=1e6):
        self.now = 0.0
        self.ends, self.starts, self.down = list(ends), list(starts), down
        self.runs = True
        self.attempts, self.said, self.told = [], [], []

    def watch(self):
        """Look whether something is late."""

    def live(self):
        supervise(
            self.missing,
            self.start,
            say=self.said.append,
            tell=lambda reason: self.told.append((self.now, reason)),
            watch=self.watch,
            sleep=self.sleep,
            clock=lambda: self.now,
        )
        return self

    def sleep(self, seconds):
        self.now += seconds

    def missing(self):
        if self.now >= self.down:
            return None
        while self.ends and self.ends[0] <= self.now:
            self.ends.pop(0)
            self.runs = False
        return [] if self.runs else ["Ray (pid 7) was ended by SIGKILL"]

    def start(self):
        self.attempts.append(self.now)
        outcome = self.starts.pop(0) if self.starts else True
        if isinstance(outcome, Exception):
            raise outcome
        self.runs = outcome


def test_while_all_runs_nothing_is_done_or_said():
    life = Life(down=1000.0).live()
    assert (life.attempts, life.told) == ([], [])
    assert life.said == ["all was taken down, so nothing is left to look after"]
    assert life.now == 1000.0


def test_what_ends_is_started_at_once_and_told_once_it_has_lasted():
    life = Life(ends=[12.0], down=1000.0).live()
    (at,) = life.attempts
    assert at == 15.0
    reason = "Ray (pid 7) was ended by SIGKILL"
    assert life.told == [(15.0, reason), (15.0 + SETTLED_S, None)]
    assert life.said[:3] == [
        f"{reason}; starting again",
        "all runs again",
        f"all has run for {SETTLED_S:g} s",
    ]


def test_what_ends_again_and_again_waits_longer_each_time():
    life = Life(ends=[float(second) for second in range(1, 4000)], down=4000.0).live()
    waits = [b - a for a, b in zip(life.attempts, life.attempts[1:], strict=False)]
    assert waits[:6] == [LOOK_S + pause for pause in (5, 10, 20, 40, 80, 160)]
    assert waits[6:] == [LOOK_S + LONGEST_PAUSE_S] * len(waits[6:])
    assert len(waits) > 12
    assert None not in [reason for _, reason in life.told]
    assert "; starting again in 300 s" in life.said[-2]


def test_an_incident_that_is_over_is_not_held_against_the_next_one():
    life = Life(ends=[10.0, 30.0, 500.0], down=1000.0).live()
    first, second, third = life.attempts
    assert (first, second, third) == (10.0, 35.0, 500.0)
    assert [reason is None for _, reason in life.told] == [False, False, True, False, True]


@pytest.mark.parametrize("problem", [StackError("no port is free"), OSError("disk full"), False])
def test_what_does_not_start_is_tried_again_whatever_goes_wrong(problem):
    life = Life(ends=[10.0], starts=[problem, problem], down=1000.0).live()
    assert life.attempts == [10.0, 20.0, 35.0]
    assert life.runs
    assert [text for text in life.said if text == str(problem)] == [str(problem)] * (
        2 if problem else 0
    )
    assert life.told[-1][1] is None


def test_the_pauses():
    assert [pause_s(attempts) for attempts in (0, 1, 2, 3, 7, 99)] == [0, 5, 10, 20, 300, 300]


def test_what_was_taken_down_while_it_waited_is_not_started():
    # The second attempt would come 5 s after the look at 10 s.
    life = Life(ends=[1.0], starts=[False], down=12.0).live()
    assert life.attempts == [LOOK_S]
    assert life.said[-1] == "all was taken down, so nothing is left to look after"


def test_it_is_looked_every_minute_whether_something_is_late_whatever_comes_of_it():
    life, watched = Life(ends=[10.0], down=1000.0), []

    def watch():
        watched.append(life.now)
        if len(watched) == 2:
            raise StackError("the registry is away")  # noqa: EM101

    life.watch = watch
    life.live()
    assert watched == [WATCH_S * n for n in range(1, int(999 / WATCH_S) + 1)]
    assert life.said.count("what is late is not known: the registry is away") == 1
    assert life.attempts == [10.0]
