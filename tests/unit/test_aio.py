"""Tasks, watches, backoff and bounded fan-out, on both event loops."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest

from aioiroh.aio import Backoff, Job, Tasks, TokenBucket, Watch, fan_out, within
from aioiroh.errors import AioirohError, EndpointClosedError

loops = pytest.mark.loops


async def forever(log=None):
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        if log is not None:
            log.append("ended")


async def fail(error, after=0):
    for _ in range(after):
        await asyncio.sleep(0)
    raise error


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


# --- Tasks ----------------------------------------------------------------------------------------


@loops
async def test_aclose_cancels_and_waits():
    log = []
    tasks = Tasks("owner")
    spawned = [tasks.spawn(forever(log), name=f"t{n}") for n in range(3)]
    await turns()
    assert len(tasks) == 3 and not tasks.closed
    assert spawned[0].get_name() == "owner: t0"
    await tasks.aclose()
    assert log == ["ended"] * 3 and len(tasks) == 0 and tasks.closed
    assert all(task.cancelled() for task in spawned)
    await tasks.aclose()
    tasks.raise_if_failed()
    with pytest.raises(RuntimeError, match="owner is closed"):
        tasks.spawn(forever())


@loops
async def test_aclose_waits_for_slow_cleanup():
    done = []

    async def slow():
        try:
            await forever()
        finally:
            await asyncio.sleep(0.01)
            done.append(True)

    async with Tasks("owner") as tasks:
        tasks.spawn(slow())
        await turns()
    assert done


@loops
async def test_first_failure_is_kept_and_logged(caplog):
    tasks = Tasks("owner")
    tasks.spawn(fail(ValueError("first")), name="one")
    tasks.spawn(fail(KeyError("second"), after=3))
    with caplog.at_level(logging.ERROR, "aioiroh.tasks"):
        await tasks.join()
    for _ in range(2):
        with pytest.raises(ValueError, match="first"):
            tasks.raise_if_failed()
    assert "owner: one" in caplog.messages[0]
    assert [record.exc_info[0] for record in caplog.records] == [ValueError, KeyError]
    await tasks.aclose()


@loops
async def test_a_block_raises_the_failure_of_its_tasks():
    with pytest.raises(ValueError, match="background"):
        async with Tasks("owner") as tasks:
            tasks.spawn(fail(ValueError("background")))
            await turns()
    with pytest.raises(KeyError):  # the block's own failure comes first
        async with Tasks("owner") as tasks:
            tasks.spawn(fail(ValueError("background")))
            await turns()
            raise KeyError


@loops
async def test_on_error_takes_failures_over(caplog):
    seen = []
    async with Tasks("owner", lambda task, error: seen.append((task.get_name(), error))) as tasks:
        tasks.spawn(fail(ValueError("handled")), name="one")
        cancelled = tasks.spawn(forever())
        await turns()
        cancelled.cancel()
        await turns()
    assert [(name, str(error)) for name, error in seen] == [("owner: one", "handled")]
    assert not caplog.records


@loops
async def test_failing_on_error_is_a_failure():
    def broken(task, error):
        raise RuntimeError("broken handler")

    tasks = Tasks("owner", broken)
    tasks.spawn(fail(ValueError("cause")))
    await tasks.join()
    with pytest.raises(RuntimeError, match="broken handler") as caught:
        tasks.raise_if_failed()
    assert isinstance(caught.value.__context__, ValueError)


@loops
async def test_limit_and_room():
    tasks = Tasks("owner", limit=2)
    first = tasks.spawn(forever())
    assert not tasks.full
    tasks.spawn(forever())
    assert tasks.full
    with pytest.raises(RuntimeError, match="full"):
        tasks.spawn(forever())
    waiter = asyncio.create_task(tasks.room())
    await turns()
    assert not waiter.done()
    first.cancel()
    await waiter
    tasks.spawn(forever())
    waiter = asyncio.create_task(tasks.room())
    await turns()
    await tasks.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await waiter


@loops
async def test_cancelled_waiters_leave_nothing_behind():
    tasks = Tasks("owner", limit=1)
    tasks.spawn(forever())
    for _ in range(10):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await tasks.room()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await tasks.join()
    assert not tasks._waiting
    await tasks.aclose()


@loops
async def test_a_task_may_close_its_owner():
    tasks = Tasks("owner")
    tasks.spawn(forever())

    async def closer():
        await tasks.aclose()
        return "closed"

    assert await tasks.spawn(closer()) == "closed"
    await tasks.join()
    assert len(tasks) == 0


@loops
async def test_two_tasks_may_close_their_owner_at_once():
    tasks = Tasks("owner")
    async with asyncio.timeout(5):
        both = [tasks.spawn(tasks.aclose()) for _ in range(2)]
        await asyncio.gather(*both, return_exceptions=True)
        await tasks.aclose()
    assert len(tasks) == 0


@loops
async def test_cancelled_aclose_still_cancels_the_tasks():
    log = []

    async def slow():
        try:
            await forever()
        finally:
            await asyncio.sleep(0.05)
            log.append("ended")

    tasks = Tasks("owner")
    tasks.spawn(slow())
    await turns()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await tasks.aclose()
    await tasks.join()
    assert log == ["ended"]


# --- Watch ----------------------------------------------------------------------------------------


@loops
async def test_watch_coalesces():
    watch = Watch(0)
    seen = []

    async def follow():
        async for value in watch:
            seen.append(value)

    follower = asyncio.create_task(follow())
    await turns()
    for value in (1, 2, 3):
        watch.set(value)
    await turns()
    watch.set(3)
    watch.set(4)
    await turns()
    watch.set(5)
    watch.close()
    await follower
    assert seen == [0, 3, 4, 5]
    watch.set(6)
    assert watch.value == 5 and watch.closed


@loops
async def test_watch_does_not_wake_for_equal_values():
    watch = Watch([1])
    waiter = asyncio.create_task(watch.changed(watch.version))
    await turns()
    watch.set([1])
    await turns()
    assert not waiter.done() and watch.version == 0
    watch.set([2])
    assert await waiter == [2]
    assert await watch.changed(0) == [2]  # already newer


@loops
async def test_watch_tells_of_a_change_during_the_first_value():
    watch = Watch(0)
    following = aiter(watch)
    assert await anext(following) == 0
    watch.set(1)
    assert await anext(following) == 1
    watch.set(2)
    assert await anext(following) == 2


@loops
async def test_watch_wait_for():
    watch = Watch(0)
    assert await watch.wait_for(lambda value: value == 0) == 0
    waiter = asyncio.create_task(watch.wait_for(lambda value: value > 2))
    for value in (1, 2, 3):
        await turns()
        assert not waiter.done()
        watch.set(value)
    assert await waiter == 3


@loops
async def test_watch_close_wakes_all():
    watch = Watch(0)
    waiters = [asyncio.create_task(watch.changed(0)) for _ in range(2)]
    waiters.append(asyncio.create_task(watch.wait_for(bool)))
    await turns()
    watch.close(EndpointClosedError())
    watch.close()
    for waiter in waiters:
        with pytest.raises(EndpointClosedError):
            await waiter
    assert [value async for value in watch] == [0]
    other = Watch(1)
    other.close()
    with pytest.raises(AioirohError):
        await other.changed(other.version)


@loops
async def test_cancelled_watchers_leave_nothing_behind():
    watch = Watch(0)
    for _ in range(10):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await watch.changed(0)
    assert not watch._waiting
    assert repr(watch) == "Watch(0)"


@loops
async def test_one_cancelled_watcher_does_not_disturb_another():
    watch = Watch(0)
    first, second = (asyncio.create_task(watch.changed(0)) for _ in range(2))
    await turns()
    first.cancel()
    watch.set(1)
    assert await second == 1
    with pytest.raises(asyncio.CancelledError):
        await first


# --- Backoff --------------------------------------------------------------------------------------


def test_backoff_grows_to_its_cap():
    backoff = Backoff(0.01, 16.0, jitter=0, random=lambda: 0.0)
    delays = [backoff.next() for _ in range(13)]
    assert delays[:3] == [0.01, 0.02, 0.04]
    assert delays[-2:] == [16.0, 16.0]
    backoff.reset()
    assert backoff.next() == 0.01


def test_backoff_jitter_stays_in_its_band():
    chance = random.Random(1)
    backoff = Backoff(1.0, 8.0, 2.0, jitter=0.5, random=chance.random)
    full = Backoff(1.0, 8.0, 2.0, jitter=0, random=chance.random)
    for _ in range(100):
        top = full.next()
        assert top / 2 < backoff.next() <= top


@pytest.mark.parametrize("bad", [(0, 1), (2, 1), (1, 2, 0.5)])
def test_backoff_rejects_nonsense(bad):
    with pytest.raises(ValueError):
        Backoff(*bad, random=random.random)
    with pytest.raises(ValueError):
        Backoff(1, 2, jitter=1.5, random=random.random)


# --- Job ------------------------------------------------------------------------------------------


class Counting(Job[str, int]):
    def __init__(self, gate=None, error=None):
        super().__init__("counting", 0)
        self.gate, self.error = gate, error

    async def _run(self):
        for number in range(1, 4):
            self._progress.set(number)
            await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return "done"


@loops
async def test_a_job_has_an_outcome_and_progress():
    job = Counting()
    assert job.progress == 0
    assert [n async for n in job] == [0, 1, 2, 3]
    assert await job == await job == "done"
    failing = Counting(error=OSError("full"))
    with pytest.raises(OSError, match="full"):
        async for _ in failing:
            pass
    async with Counting(error=OSError("full")):
        await turns(10)


@loops
async def test_who_waits_for_a_job_and_is_cancelled_cancels_it():
    async def iterate(job):
        async for _ in job:
            pass

    async def wait(job):
        await job

    for use in (iterate, wait):
        job = Counting(asyncio.Event())
        user = asyncio.create_task(use(job))
        await turns(10)
        assert job.progress == 3 and not job.start().done()
        user.cancel()
        with pytest.raises(asyncio.CancelledError):
            await user
        assert job.start().cancelled()


@loops
async def test_leaving_the_block_of_a_job_cancels_it_and_leaving_the_iteration_does_not():
    async with Counting(asyncio.Event()) as job:
        async for n in job:
            if n == 2:
                break
        await turns()
        assert not job.start().done()
    assert job.start().cancelled()


# --- TokenBucket ----------------------------------------------------------------------------------


def test_a_bucket_fills_at_its_rate_and_not_over():
    bucket = TokenBucket(10.0, 5.0, now=100.0)
    assert bucket.level(100.0) == 5.0
    bucket.take(100.0, 5)
    assert bucket.delay(100.0) == 0.0
    assert bucket.delay(100.0, 2) == pytest.approx(0.2)
    assert bucket.level(100.2) == pytest.approx(2.0)
    assert bucket.level(1000.0) == 5.0


def test_a_bucket_remembers_debts_and_takes_back():
    bucket = TokenBucket(10.0, 5.0, now=0.0)
    bucket.take(0.0, 25)
    assert bucket.level(0.0) == -20.0
    assert bucket.delay(0.0) == pytest.approx(2.0)
    assert bucket.delay(1.0, 5) == pytest.approx(1.5)
    bucket.take(1.0, -100)
    assert bucket.level(1.0) == 5.0


def test_more_than_a_bucket_holds_is_not_waited_for():
    bucket = TokenBucket(1.0, 2.0, now=0.0)
    bucket.take(0.0, 2)
    assert bucket.delay(0.0, 1000) == pytest.approx(2.0)


def test_a_clock_that_stands_gives_nothing():
    bucket = TokenBucket(1.0, 1.0, now=5.0)
    bucket.take(5.0, 1)
    assert bucket.level(4.0) == bucket.level(5.0) == 0.0


@pytest.mark.parametrize("bad", [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0)])
def test_a_bucket_refuses_nonsense(bad):
    with pytest.raises(ValueError, match="positive"):
        TokenBucket(*bad, now=0.0)


# --- fan_out --------------------------------------------------------------------------------------


@loops
async def test_fan_out_is_bounded_and_ordered():
    running, most = 0, 0
    drawn = []

    def items():
        for n in range(20):
            drawn.append(n)
            yield n

    async def work(n):
        nonlocal running, most
        running += 1
        most = max(most, running)
        assert len(drawn) - n <= 4
        await asyncio.sleep(0.001 * (n % 3))
        running -= 1
        return n * n

    assert await fan_out(4, items(), work) == [n * n for n in range(20)]
    assert most == 4
    assert await fan_out(4, [], work) == []
    with pytest.raises(ValueError):
        await fan_out(0, [1], work)


@loops
async def test_fan_out_raises_the_first_failure_and_cancels_the_rest():
    log = []

    async def work(n):
        if n == 2:
            await turns()
            raise KeyError(n)
        await forever(log)

    with pytest.raises(KeyError, match="2"):
        await fan_out(3, range(10), work)
    assert log == ["ended"] * 2


@loops
async def test_fan_out_can_be_cancelled():
    log = []
    whole = asyncio.create_task(fan_out(3, range(10), lambda n: forever(log)))
    await turns()
    whole.cancel()
    with pytest.raises(asyncio.CancelledError):
        await whole
    assert log == ["ended"] * 3


@loops
async def test_fan_out_loses_no_cancelled_item():
    async def work(n):
        if n == 1:
            raise asyncio.CancelledError
        return n

    with pytest.raises(asyncio.CancelledError):
        await fan_out(2, range(5), work)


@loops
async def test_fan_out_raises_what_the_items_raise():
    def items():
        yield 1
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        await fan_out(2, items(), lambda n: asyncio.sleep(0, n))


# --- within ---------------------------------------------------------------------------------------


async def test_what_need_not_wait_has_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> str:
        return "done"

    async def fail() -> None:
        raise KeyError("no")

    monkeypatch.setattr(asyncio, "timeout", None)
    assert await within(0.0, work()) == "done"
    with pytest.raises(KeyError):
        await within(1.0, fail())


async def test_what_waits_goes_on_where_it_was() -> None:
    futures = [asyncio.get_running_loop().create_future() for _ in range(3)]
    heard: list[int] = []

    async def work() -> int:
        for future in futures:
            await asyncio.sleep(0)
            heard.append(await future)
        return sum(heard)

    task = asyncio.create_task(within(60, work()))
    for number, future in enumerate(futures):
        await asyncio.sleep(0)
        future.set_result(number)
    assert await task == 3
    assert heard == [0, 1, 2]


async def test_what_takes_too_long_is_cancelled_inside() -> None:
    log: list[str] = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    with pytest.raises(TimeoutError):
        await within(0.0, work())
    assert log == ["cancelled"]
    task = asyncio.create_task(within(60, work()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["cancelled"] * 2


async def test_an_error_after_waiting_is_raised() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise KeyError("late")

    with pytest.raises(KeyError, match="late"):
        await within(60, work())
