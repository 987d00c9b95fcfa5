from __future__ import annotations

import asyncio

import numpy as np
import pytest

from holdtrue.serving import Limits
from holdtrue.serving._limits import BusyError, Rates, Turns


class Skipping(asyncio.SelectorEventLoop):
    """An event loop that does not wait: its clock skips to what is due next."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        select = self._selector.select

        def skip(timeout):
            self.now += timeout or 0
            return select(0)

        self._selector.select = skip

    def time(self):
        return self.now


def offered(*, every_s, for_s, service_s, at_a_time, wait_s, by_chance=False):
    """Requests that come at a rate: for each when it came, how long it waited, if it got a turn."""

    async def run(loop):
        turns, seen = Turns(loop.time), []
        chosen = np.random.default_rng(7)  # a pattern could let only those in that are soon over

        async def one():
            came = loop.time()
            try:
                await turns.wait(limits(ongoing=64, wait_s=wait_s), at_a_time)
            except BusyError:
                seen.append((came, loop.time() - came, False))
                return
            seen.append((came, loop.time() - came, True))
            await asyncio.sleep(service_s * chosen.choice((0.5, 1.0, 1.5)))
            turns.leave()

        asked = []
        while loop.time() < for_s or not asked:
            asked.append(asyncio.create_task(one()))
            every = every_s(loop.time()) if callable(every_s) else every_s
            # By chance, as of many callers that know nothing of each other.
            await asyncio.sleep(chosen.exponential(every) if by_chance else every)
        await asyncio.gather(*asked)
        assert (turns.ongoing, turns.waiting) == (0, 0)
        return seen

    with asyncio.Runner(loop_factory=Skipping) as runner:
        return runner.run(run(runner.get_loop()))


def limits(**changes):
    return Limits(**({"max_body_bytes": 10, "ongoing": 1, "wait_s": 0.05} | changes))


def test_a_turn_is_handed_on_in_order():
    async def run():
        turns, order = Turns(), []
        assert turns.take(1)

        async def one(name):
            await turns.wait(limits(wait_s=20), 1)
            order.append(name)
            turns.leave()

        waiting = [asyncio.create_task(one(name)) for name in "abc"]
        await asyncio.sleep(0)
        assert turns.waiting == 3
        turns.leave()
        await asyncio.gather(*waiting)
        return turns, order

    turns, order = asyncio.run(run())
    assert order == ["a", "b", "c"]
    assert (turns.ongoing, turns.waiting) == (0, 0)


def test_who_waits_too_long_is_refused_and_leaves_nothing_behind():
    async def run():
        turns = Turns()
        assert turns.take(1)
        with pytest.raises(BusyError) as refused:
            await turns.wait(limits(), 1)
        assert turns.waiting == 0
        turns.leave()
        return turns, refused.value

    turns, refused = asyncio.run(run())
    assert (refused.status, refused.retry_after_s) == (503, 1)
    assert turns.ongoing == 0
    assert turns.take(1)


@pytest.mark.parametrize("waited_s", [19.99, 20.0, 25.0])
def test_what_was_waited_for_before_is_part_of_the_wait(waited_s):
    async def run():
        turns = Turns()
        assert turns.take(1)
        async with asyncio.timeout(10):
            with pytest.raises(BusyError):
                await turns.wait(limits(wait_s=20), 1, waited_s)
        assert turns.waiting == 0

    asyncio.run(run())


def test_who_goes_away_while_waiting_takes_no_turn():
    async def run():
        turns = Turns()
        assert turns.take(1)
        gone = asyncio.create_task(turns.wait(limits(wait_s=20), 1))
        await asyncio.sleep(0)
        turns.leave()  # its turn comes, and it goes before it can take it
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return turns

    turns = asyncio.run(run())
    assert (turns.ongoing, turns.waiting) == (0, 0)


def test_at_most_so_many_wait():
    async def run():
        turns = Turns()
        assert turns.take(1)
        waiting = [asyncio.create_task(turns.wait(limits(wait_s=20), 1)) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await turns.wait(limits(wait_s=20), 1)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(run())


def test_at_most_so_many_wait_also_where_turns_are_short_and_an_overload_lasts():
    now = [0.0]

    async def run():
        turns = Turns(lambda: now[0])
        assert turns.take(1)
        waiting = []
        for _ in range(2):  # then it is known that turns are short, and an overload lasts
            while True:
                task = asyncio.create_task(turns.wait(limits(wait_s=20), 1))
                await asyncio.sleep(0)
                if task.done():
                    assert isinstance(task.exception(), BusyError)
                    break
                waiting.append(task)
            assert turns.waiting == 4
            for _ in range(2):
                turns.leave()
                now[0] += 1e-6
                await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(run())


def test_who_would_wait_too_long_is_refused_at_once():
    now = [0.0]

    async def run():
        turns = Turns(lambda: now[0])
        patient = limits(ongoing=10, wait_s=20)
        assert turns.take(1)
        waiting = [asyncio.create_task(turns.wait(patient, 1)) for _ in range(12)]
        await asyncio.sleep(0)
        for _ in range(10):  # each turn takes 15 s
            turns.leave()
            now[0] += 15
            await asyncio.sleep(0)
        with pytest.raises(BusyError) as refused:
            await turns.wait(patient, 1)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return refused.value

    refused = asyncio.run(run())
    assert refused.retry_after_s > 20


@pytest.mark.parametrize("at_a_time", [1, 2, 16])
def test_under_three_times_the_load_those_let_in_wait_for_little_more_than_the_next_turn(at_a_time):
    service_s, able = 0.02, at_a_time / 0.02
    seen = offered(
        every_s=1 / (3 * able), for_s=20, service_s=service_s, at_a_time=at_a_time, wait_s=0.5
    )
    # What comes first is a burst, and waits as long as is declared.
    assert max(waited for came, waited, _ in seen if came < 1) > min(0.3, 200 / able)
    settled = [one for one in seen if one[0] > 2]
    # At most the longest turn, or what is over in 2 ms.
    waits = [waited for _, waited, answered in settled if answered]
    assert max(waits) <= 1.5 * service_s + 1e-6
    assert len(waits) > 0.95 * able * 18
    assert sum(answered for *_, answered in seen) > 0.95 * able * 20


@pytest.mark.parametrize("at_a_time", [1, 2, 16])
def test_once_the_load_can_be_borne_again_nobody_is_refused_any_more(at_a_time):
    able = at_a_time / 0.02
    seen = offered(
        every_s=lambda now: 1 / (3 * able) if now < 5 else 1 / (0.85 * able),
        for_s=15,
        service_s=0.02,
        at_a_time=at_a_time,
        wait_s=0.5,
        by_chance=True,
    )
    refused = [came for came, _, answered in seen if not answered]
    assert 4.5 < max(refused) < 8


def test_under_three_times_the_load_nearly_all_refusals_come_at_once():
    # 100 a second can be answered, 300 come.
    seen = offered(every_s=1 / 300, for_s=20, service_s=0.02, at_a_time=2, wait_s=0.5)
    settled = [one for one in seen if one[0] > 1]
    refused = [waited for _, waited, answered in settled if not answered]
    assert 0.6 < len(refused) / len(settled) < 0.72
    assert sum(waited > 0.01 for waited in refused) < 0.01 * len(refused)
    assert max(waited for _, waited, _ in seen) <= 0.5 + 1e-6
    assert sum(answered for *_, answered in seen) > 0.95 * 100 * 20


@pytest.mark.parametrize("at_a_time", [1, 2, 64])
def test_nobody_is_refused_while_the_load_can_be_borne(at_a_time):
    every_s = 0.02 / at_a_time / 0.8
    seen = offered(every_s=every_s, for_s=5, service_s=0.02, at_a_time=at_a_time, wait_s=0.5)
    assert all(answered for *_, answered in seen)


def test_a_burst_from_idle_waits_also_after_an_overload_by_far_slower_turns():
    now = [0.0]

    async def run():
        turns = Turns(lambda: now[0])
        assert turns.take(1)
        slow = [asyncio.create_task(turns.wait(limits(wait_s=20), 1)) for _ in range(4)]
        await asyncio.sleep(0)
        for _ in range(4):
            turns.leave()
            now[0] += 30
            await asyncio.sleep(0)
        await asyncio.gather(*slow)
        with pytest.raises(BusyError):  # now it is known how slow it is
            await turns.wait(limits(wait_s=20), 1)
        turns.leave()
        now[0] += 2  # nobody asks: the overload is over
        assert turns.take(1)
        burst = [asyncio.create_task(turns.wait(limits(wait_s=20), 1)) for _ in range(4)]
        await asyncio.sleep(0)
        assert turns.waiting == 4
        for _ in range(4):
            turns.leave()
            now[0] += 0.001
            await asyncio.sleep(0)
        await asyncio.gather(*burst)

    asyncio.run(run())


def test_a_key_has_a_second_s_worth_and_gets_it_back_with_time():
    now = [0.0]
    rates = Rates(lambda: now[0])
    for _ in range(3):
        rates.take("a", 3)
    with pytest.raises(BusyError) as refused:
        rates.take("a", 3)
    assert (refused.value.status, refused.value.retry_after_s) == (429, 1)
    rates.take("b", 3)
    now[0] = 0.34
    rates.take("a", 3)
    with pytest.raises(BusyError):
        rates.take("a", 3)


def test_less_than_one_a_second_is_possible():
    now = [0.0]
    rates = Rates(lambda: now[0])
    rates.take("a", 0.1)
    with pytest.raises(BusyError) as refused:
        rates.take("a", 0.1)
    assert refused.value.retry_after_s == 10
    now[0] = 10.0
    rates.take("a", 0.1)
