from __future__ import annotations

import asyncio

import pytest

from holdtrue.serving import Limits
from holdtrue.serving._limits import BusyError, Rates, Turns


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
