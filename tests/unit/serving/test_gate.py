"""What is begun when, and who is refused, where many requests come to one event loop."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from holdtrue.serving._gate import MAX_TURN, Gate

WAIT_S = 0.25
COST_S = 0.0005
REFUSAL_S = COST_S / 10


class Busy:
    """An event loop whose clock moves only by the work that is done in it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.gate = Gate(lambda: self.now)
        self.gate.wait_s = WAIT_S
        self.turns: list[int] = []
        self.waits: list[float] = []
        self.order: list[int] = []
        self._done = 0

    def ask(self, cost_s: float = COST_S, number: int | None = None) -> None:
        came = self.now

        def answer() -> None:
            self.waits.append(self.now - came)
            if self.waits[-1] > self.gate.wait_s:  # refused, as `Application` does
                self.now += cost_s / 10
                return
            self._done += 1
            self.now += cost_s
            if number is not None:
                self.order.append(number)

        self.gate.enter(lambda: asyncio.get_running_loop().call_soon(answer))

    def come(self, cost_s: float = COST_S, refusal_s: float = REFUSAL_S) -> bool:
        """Ask, or be refused, as a connection does."""
        if not self.gate.is_full:
            self.ask(cost_s)
            return True
        self.gate.refuse()
        self.now += refusal_s
        return False

    async def turn(self) -> None:
        """Let the loop turn once, and note how many were answered in it."""
        before = self._done
        await asyncio.sleep(0)
        self.turns.append(self._done - before)

    async def rest(self) -> None:
        while self.gate.waiting or self.turns[-1:] != [0]:
            await self.turn()


def test_a_few_are_begun_at_once():
    async def run():
        busy = Busy()
        for _ in range(10):
            busy.ask()
        assert busy.gate.waiting == 0
        await busy.turn()
        assert busy.turns == [10]

    asyncio.run(run())


def test_many_are_begun_in_their_order_and_no_turn_is_long():
    async def run():
        busy = Busy()
        busy.gate.wait_s = 10
        for number in range(1_000):
            busy.ask(number=number)
        await busy.rest()
        assert busy.order == [*range(1_000)]
        assert max(busy.turns) == MAX_TURN  # the first, of which nothing was known
        known = busy.turns[4:]
        assert max(known) <= 0.004 / COST_S  # the limit, and one that was begun meanwhile
        assert sum(known) > 800

    asyncio.run(run())


def test_a_burst_is_let_in_and_what_comes_on_top_of_a_queue_is_not():
    async def run():
        busy = Busy()
        for _ in range(2_000):  # a whole second of work
            busy.ask()
        assert not busy.gate.is_full
        for _ in range(3):
            await busy.turn()
        assert busy.gate.is_full
        assert busy.gate.retry_after_s() in {1, 2}
        await busy.rest()
        assert not busy.gate.is_full
        # What was measured is forgotten two seconds later: the next burst is let in, too.
        busy.now += 2
        for _ in range(2_000):
            busy.ask()
        assert not busy.gate.is_full

    asyncio.run(run())


@pytest.mark.parametrize("times", [2, 5])
def test_under_a_lasting_overload_those_let_in_are_answered_in_time(times):
    async def run():
        busy = Busy()
        asked = refused = first = 0
        while busy.now < 10:
            if busy.now < 2:
                first = len(busy.waits)
            while asked + refused < times * busy.now / COST_S + 1:
                if busy.come():
                    asked += 1
                else:
                    refused += 1
            await busy.turn()
        await busy.rest()
        assert sum(waited > WAIT_S for waited in busy.waits) < 0.005 * refused
        # The burst at its beginning is let in; then only as many wait as keep the loop busy.
        assert max(busy.waits[:first]) > WAIT_S / 4
        assert max(busy.waits[first:]) < 0.01
        # It does as much as it can: what is left after the refusals.
        assert asked == pytest.approx((10 - refused * REFUSAL_S) / COST_S, rel=0.1)
        assert refused > (times - 1.2) * asked

    asyncio.run(run())


def test_a_load_that_pauses_for_a_moment_is_no_new_burst():
    async def run():
        busy = Busy()
        for _ in range(2_000):
            busy.ask()
        for _ in range(4):
            await busy.turn()
        assert busy.gate.is_full
        await busy.rest()
        for _ in range(20):
            busy.now += 0.02  # they that ask pause
            before = len(busy.waits)
            for _ in range(300):  # and go on with all that they would have asked meanwhile
                busy.come()
            await busy.rest()
            assert 0 < len(busy.waits) - before < 30
            # They wait for those that are refused, too.
            assert max(busy.waits[before:]) < 0.03

    asyncio.run(run())


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_once_the_load_can_be_borne_again_nobody_is_refused_any_more(share):
    # Came by chance: some always come at once, of which a short queue would refuse the last.
    random = np.random.default_rng(7)

    async def run():
        busy = Busy()
        late = []
        due = 0.0
        while busy.now < 12:
            while due <= busy.now:
                due += random.exponential(COST_S / (3 if due < 4 else share))
                if not busy.come():
                    late.append(busy.now)
            before = busy.now
            await busy.turn()
            if busy.now == before and not busy.gate.waiting:
                busy.now = due
        assert 3.5 < max(late) < 7
        assert len(late) > 10_000

    asyncio.run(run())


def test_from_the_first_refusal_on_no_turn_is_long_until_nobody_waits():
    cost_s = 0.00015

    async def run():
        busy = Busy()
        came, turns_before, pause = 0, None, 0.1
        while busy.now < 5:
            while came < 3 * busy.now / cost_s + 1:
                came += 1
                if not busy.come(cost_s, cost_s / 4):
                    turns_before = turns_before or len(busy.turns)
            await busy.turn()
            if busy.now > pause:  # something else has the processor, and room opens after it
                busy.now += 0.01
                pause = busy.now + 0.1
        # The next turn was begun before it.
        assert max(busy.turns[turns_before + 2 :]) <= 0.0005 / cost_s + 1
        await busy.rest()
        busy.now += 2  # nobody comes: the overload is over
        for _ in range(MAX_TURN):
            busy.ask()
        await busy.turn()
        assert busy.turns[-1] == MAX_TURN

    asyncio.run(run())


def test_after_a_turn_that_others_waited_for_in_vain_one_is_begun():
    cost_s = 0.0001

    async def run():
        busy = Busy()
        for _ in range(10_000):
            busy.ask(cost_s)
        for _ in range(8):
            await busy.turn()
        assert busy.gate.is_full
        assert 3 < busy.turns[-1] < 8  # half a millisecond, about
        busy.now += 0.004  # something else has the processor, or many are refused
        for _ in range(3):
            await busy.turn()
        assert busy.turns[-2] == 1
        assert 3 < busy.turns[-1] < 8

    asyncio.run(run())


def test_those_that_are_too_late_anyway_keep_nobody_waiting():
    async def run():
        busy = Busy()
        for _ in range(500):
            busy.ask(0)
        busy.now += 2 * WAIT_S  # something else kept the loop
        busy.ask(0)
        before = busy.gate.waiting
        await busy.turn()
        await busy.turn()
        assert before == 501 - MAX_TURN
        assert busy.gate.waiting == 0

    asyncio.run(run())
