"""The loop in which time is virtual."""

from __future__ import annotations

import asyncio
import gc
import random
import time

import pytest

from aioiroh import testing
from aioiroh.testing import DeadlockError, SimulatedTimeoutError, VirtualLoop


def run(main, **options):
    async def scenario(_network):
        return await main()

    return testing.run(scenario, **options)


def test_time_jumps():
    async def main():
        loop = asyncio.get_running_loop()
        moments = [loop.time()]
        await asyncio.sleep(1e-9)
        moments.append(loop.time())
        await asyncio.sleep(0.25)
        moments.append(loop.time())
        await asyncio.sleep(20 * 86400)
        moments.append(loop.time())
        return moments

    before = time.monotonic()
    assert run(main, time_limit=None) == [0.0, 1e-9, 0.250000001, 1728000.250000001]
    assert time.monotonic() - before < 5


def test_time_ends_where_floats_do():
    async def main():
        await asyncio.sleep(25 * 86400)

    with pytest.raises(SimulatedTimeoutError, match="not done after 2097152 virtual seconds"):
        run(main, time_limit=None)


def test_time_stands_still_while_anything_is_ready():
    async def main():
        for _ in range(1000):
            await asyncio.sleep(0)
        return asyncio.get_running_loop().time()

    assert run(main) == 0.0


def test_primitives_of_asyncio():
    async def main():
        loop = asyncio.get_running_loop()
        queue = asyncio.Queue(2)
        event, lock = asyncio.Event(), asyncio.Lock()
        seen = []

        async def produce():
            for number in range(6):
                await asyncio.sleep(1)
                await queue.put(number)
            event.set()

        async def consume():
            while True:
                async with lock:
                    seen.append((await queue.get(), loop.time()))
                await asyncio.sleep(0.5)

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            consumers = [group.create_task(consume()) for _ in range(2)]
            await event.wait()
            await asyncio.sleep(10)
            for task in consumers:
                task.cancel()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await asyncio.Future()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(100), 2)
        return seen, loop.time()

    seen, end = run(main)
    assert seen == [(number, float(number + 1)) for number in range(6)]
    assert end == 21.0


def test_a_deadlock_says_who_waits_where():
    async def waits_for_ever():
        await asyncio.Event().wait()

    async def main():
        await asyncio.sleep(3)
        async with asyncio.TaskGroup() as group:
            group.create_task(waits_for_ever(), name="the culprit")

    with pytest.raises(DeadlockError) as failure:
        run(main)
    text = str(failure.value)
    assert "after 3.000 virtual seconds" in text
    assert "the culprit" in text
    assert "test_loop.py" in text
    assert "in waits_for_ever" in text
    assert "2 pending tasks" in text


def test_an_endless_program_reaches_the_limit():
    cleaned = []

    async def main():
        try:
            while True:
                await asyncio.sleep(1)
        finally:
            await asyncio.sleep(1)
            cleaned.append(True)

    with pytest.raises(SimulatedTimeoutError, match="not done after 100 virtual seconds"):
        run(main, time_limit=100)
    assert cleaned == [True]


def test_a_failure_names_its_seed():
    async def main():
        raise LookupError("nothing")

    with pytest.raises(LookupError) as failure:
        run(main, seed=17)
    assert failure.value.__notes__ == ["seed=17 (AIOIROH_SEED=17 replays it)"]


@pytest.mark.parametrize(
    "use",
    [
        lambda: asyncio.to_thread(time.sleep, 0),
        lambda: asyncio.open_connection("127.0.0.1", 1),
        lambda: asyncio.start_server(print, "127.0.0.1", 0),
        lambda: asyncio.create_subprocess_exec("true"),
        lambda: asyncio.get_running_loop().getaddrinfo("localhost", 1),
    ],
)
def test_the_outside_world_is_refused(use):
    async def main():
        await use()

    with pytest.raises(RuntimeError, match="does not work in virtual time"):
        run(main)


def test_descriptors_are_refused():
    async def main():
        asyncio.get_running_loop().add_reader(0, print)

    with pytest.raises(RuntimeError, match="add_reader does not work in virtual time"):
        run(main)


def test_the_collector_rests_and_comes_back():
    async def main():
        return gc.isenabled()

    assert gc.isenabled()
    assert run(main) is False
    assert gc.isenabled()


def test_chance_of_the_standard_library_is_seeded_and_given_back():
    async def main():
        return random.random()

    random.seed(5)
    state = random.getstate()
    first = run(main, seed=1)
    assert random.getstate() == state
    assert run(main, seed=1) == first != run(main, seed=2)


def test_tasks_are_cancelled_in_one_order():
    async def main():
        ended = []

        async def wait(number):
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(number)

        ballast = []
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                for number in range(200):
                    group.create_task(wait(number))
                    # Takes memory, so that addresses differ from run to run.
                    ballast.extend(bytearray(random.SystemRandom().randrange(2000)) for _ in "ab")
                await asyncio.sleep(1)
                raise LookupError
        return ended

    assert run(main) == run(main)


def test_many_runs_leave_nothing_behind():
    async def main():
        await asyncio.sleep(1)

    for _ in range(3):
        run(main)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
        runner.run(main())


def test_seeds_from_the_environment(monkeypatch):
    monkeypatch.delenv("AIOIROH_SEED", raising=False)
    monkeypatch.delenv("AIOIROH_SEEDS", raising=False)
    assert list(testing.chosen_seeds(3)) == [0, 1, 2]
    monkeypatch.setenv("AIOIROH_SEEDS", "2")
    assert list(testing.chosen_seeds(3)) == [0, 1]
    monkeypatch.setenv("AIOIROH_SEED", "1234")
    assert list(testing.chosen_seeds(3)) == [1234]


def test_a_failing_seed_is_printed(monkeypatch, capsys):
    monkeypatch.delenv("AIOIROH_SEED", raising=False)
    monkeypatch.delenv("AIOIROH_SEEDS", raising=False)

    async def scenario(network):
        assert network.seed != 3

    with pytest.raises(AssertionError):
        testing.run_seeds(scenario, seeds=10)
    assert capsys.readouterr().err == "failed with seed=3\n"


@pytest.fixture
def seven():
    return 7


@testing.simulated(seeds=2)
async def test_a_simulated_test_may_use_fixtures(network, seven):
    assert seven == 7
    assert network.seed in testing.chosen_seeds(2)
