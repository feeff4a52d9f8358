"""Turns of the driver: who goes on when, and how little leaves for it."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from aioiroh._native import Turns, Waiter


async def waiting(turns, log, name):
    waiter = Waiter(turns)

    async def wait():
        try:
            await waiter
            log.append((name, waiter.value))
        except asyncio.CancelledError:
            log.append((name, "cancelled"))
            raise

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    return waiter, task


def turn(turns, *waiters):
    turns.active = True
    for waiter in waiters:
        waiter.complete(1)
    turns.proceed(100)
    turns.active = False


async def in_callback(function, *arguments):
    """Outside any task, as a driver's turn is."""
    done = asyncio.get_running_loop().create_future()

    def call():
        try:
            function(*arguments)
        except AssertionError as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    asyncio.get_running_loop().call_soon(call)
    await done


@pytest.mark.loops
async def test_tasks_go_on_within_the_turn_in_order(loop_kind):
    turns, log = Turns(asyncio.get_running_loop(), print), []
    first, one = await waiting(turns, log, "first")
    second, two = await waiting(turns, log, "second")

    def check():
        turn(turns, second, first)
        assert log == [("second", 1), ("first", 1)]

    await in_callback(check)
    await asyncio.gather(one, two)


@pytest.mark.loops
async def test_outside_a_turn_tasks_go_on_soon(loop_kind):
    turns, log = Turns(asyncio.get_running_loop(), print), []
    waiter, task = await waiting(turns, log, "only")
    waiter.complete(2)
    waiter.complete(3)
    assert log == []
    await task
    assert log == [("only", 2)]


@pytest.mark.loops
async def test_cancelled_tasks_see_nothing_else(loop_kind):
    turns, log = Turns(asyncio.get_running_loop(), print), []
    waiter, task = await waiting(turns, log, "only")
    task.cancel()
    assert waiter.cancelled()
    await in_callback(turn, turns, waiter)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == [("only", "cancelled")]


async def test_who_is_cancelled_within_the_turn_is_cancelled_although_completed():
    turns, log = Turns(asyncio.get_running_loop(), print), []
    waiter, victim = await waiting(turns, log, "victim")
    before = Waiter(turns)

    async def strike():
        await before
        assert waiter.done()
        victim.cancel()

    striker = asyncio.create_task(strike())
    await asyncio.sleep(0)
    await in_callback(turn, turns, before, waiter)
    with pytest.raises(asyncio.CancelledError):
        await victim
    await striker
    assert log == [("victim", "cancelled")]


async def test_who_asks_after_the_completion_does_not_wait():
    turns = Turns(asyncio.get_running_loop(), print)
    waiter = Waiter(turns)
    waiter.complete("early")
    await waiter
    assert waiter.value == "early"


async def test_one_task_waits_at_a_time():
    turns = Turns(asyncio.get_running_loop(), print)
    waiter, task = await waiting(turns, [], "first")
    with pytest.raises(RuntimeError, match="another task"):
        await waiter
    with pytest.raises(RuntimeError, match="completed"):
        print(waiter.value)
    waiter.complete(None)
    await task


async def test_what_ends_the_loop_is_raised_and_others_go_on():
    turns, log = Turns(asyncio.get_running_loop(), print), []
    last, task = await waiting(turns, log, "last")

    def leave():
        raise SystemExit

    def check():
        turns.active = True
        turns.call(leave)
        last.complete(1)
        with pytest.raises(SystemExit):
            turns.proceed(100)
        assert turns.pending
        turns.proceed(100)
        turns.active = False
        assert log == [("last", 1)]

    await in_callback(check)
    await task


async def test_a_waiting_task_that_nobody_holds_is_collected():
    turns = Turns(asyncio.get_running_loop(), print)
    gone = []

    async def wait(marker):
        waiter = Waiter(turns)
        waiter_of.append(weakref.ref(marker))
        await waiter

    class Marker:
        def __del__(self):
            gone.append(True)

    waiter_of = []
    task = asyncio.create_task(wait(Marker()))
    await asyncio.sleep(0)
    assert waiter_of[0]() is not None
    task.get_coro().close()
    del task
    gc.collect()
    assert gone


async def test_some_go_on_at_a_time():
    turns, log = Turns(asyncio.get_running_loop(), print), []
    three = [await waiting(turns, log, name) for name in ("one", "two", "three")]

    def check():
        turns.active = True
        for waiter, _ in three:
            waiter.complete(1)
        assert turns.proceed(2)
        assert [name for name, _ in log] == ["one", "two"]
        assert not turns.proceed(2)
        turns.active = False

    await in_callback(check)
    await asyncio.gather(*(task for _, task in three))
    assert [name for name, _ in log] == ["one", "two", "three"]
