"""Threads for calls: clients take turns, and no client has all of them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from alula.gateway.workers import ByteBudget, OverloadedError, Workers, share
from tests.waiting import wait_until


def running(work):
    return asyncio.run(work)


@pytest.mark.parametrize(("places", "expected"), [(0, 0), (1, 1), (2, 1), (3, 2), (4, 3), (16, 12), (256, 192)])
def test_the_share_of_one_client(places, expected):
    assert share(places) == expected


def test_a_client_that_takes_what_it_can_leaves_room_for_others():
    """Of 4 threads and 8 places one client's calls run in 3 and wait in 6; another's run at once."""

    async def scene():
        workers, gate, started = Workers(4, 8), threading.Event(), []

        def hold():
            started.append(1)
            assert gate.wait(30)
            return "held"

        greedy = [asyncio.ensure_future(workers.run("greedy", hold)) for _ in range(9)]
        await asyncio.to_thread(wait_until, lambda: len(started) == 3, "the client's share of threads")
        with pytest.raises(OverloadedError):
            await workers.run("greedy", hold)
        assert await workers.run("other", lambda: "quick") == "quick"
        assert len(started) == 3
        gate.set()
        assert await asyncio.gather(*greedy) == ["held"] * 9
        workers.close()

    running(scene())


def test_clients_that_wait_take_turns():
    async def scene():
        workers, gate, order = Workers(1, 100), threading.Event(), []
        first = asyncio.ensure_future(workers.run("a", lambda: gate.wait(30)))
        await asyncio.sleep(0)
        calls = [("a", i) for i in range(5)] + [("b", i) for i in range(2)]
        waiting = [asyncio.ensure_future(workers.run(one[0], lambda one=one: order.append(one))) for one in calls]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *waiting)
        assert order == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("a", 3), ("a", 4)]
        workers.close()

    running(scene())


def test_light_calls_do_not_wait_for_heavy_ones():
    """Of 32 threads a client's heavy calls have 2; its light calls start at once, and so do another's heavy ones."""

    async def scene():
        workers, gate, order = Workers(32, 100), threading.Event(), []

        def hold(number):
            order.append(number)
            assert gate.wait(30)

        heavy = [asyncio.ensure_future(workers.run("a", lambda i=i: hold(i), heavy=True)) for i in range(6)]
        await asyncio.to_thread(wait_until, lambda: len(order) == 2, "the first heavy calls")
        assert await workers.run("a", lambda: "light") == "light"
        assert await workers.run("b", lambda: "other", heavy=True) == "other"
        assert order == [0, 1]
        heavy[2].cancel()
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*heavy[:2], *heavy[3:])
        assert order == [0, 1, 3, 4, 5], "in their order, without the cancelled one"
        assert not workers._running
        assert not workers._heavy
        workers.close()

    running(scene())


def test_a_cancelled_call_frees_its_place_and_errors_are_raised():
    async def scene():
        workers, gate = Workers(1, 1), threading.Event()
        first = asyncio.ensure_future(workers.run("a", lambda: gate.wait(30)))
        second = asyncio.ensure_future(workers.run("a", lambda: "never"))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await workers.run("a", lambda: None)
        second.cancel()
        await asyncio.sleep(0)
        third = asyncio.ensure_future(workers.run("a", lambda: 1 / 0))
        await asyncio.sleep(0)
        gate.set()
        assert await first
        with pytest.raises(ZeroDivisionError):
            await third
        assert second.cancelled()
        workers.close()

    running(scene())


def test_bytes_are_shared():
    budget = ByteBudget(100)
    assert budget.take("a", 70)
    assert not budget.take("a", 6), "three quarters are 75"
    assert budget.take("b", 30)
    assert not budget.take("c", 1)
    budget.give_back("a", 70)
    assert budget.take("a", 70)
