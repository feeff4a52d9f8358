"""Keeping transfers to a rate, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import pytest

from aioiroh.blobs.transfer.pacing import Pacer, rate_limit
from aioiroh.testing import VirtualLoop

SECONDS = 10


class Flow:
    """Takes `speed` bytes per second as far as it is allowed."""

    def __init__(self, speed: float = float("inf")) -> None:
        self.speed = speed
        self.left = 0
        self.moved = 0

    def allow(self, bytes: int) -> int:
        self.left += bytes
        return self.left

    def move(self, seconds: float) -> None:
        now = int(min(self.left, self.speed * seconds))
        self.left -= now
        self.moved += now


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(test())


async def run(*flows: Flow, seconds: float = SECONDS) -> None:
    for _ in range(round(seconds * 100)):
        await asyncio.sleep(0.01)
        for flow in flows:
            flow.move(0.01)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_one_flow_gets_its_rate() -> None:
    async def test() -> None:
        pacer, flow = Pacer(), Flow()
        with pacer.paced(flow, [rate_limit(100_000, now=now())]):
            await run(flow)
        assert flow.moved == pytest.approx(SECONDS * 100_000, rel=0.02)

    virtual(test)


def test_even_shares_and_what_one_leaves_is_for_the_others() -> None:
    async def test() -> None:
        pacer, limit = Pacer(), rate_limit(900_000, now=now())
        slow, a, b = Flow(speed=100_000), Flow(), Flow()
        with ExitStack() as stack:
            for flow in (a, slow, b):
                stack.enter_context(pacer.paced(flow, [limit]))
            await run(slow, a, b)
        assert slow.moved == pytest.approx(SECONDS * 100_000, rel=0.03)
        assert a.moved == pytest.approx(SECONDS * 400_000, rel=0.05)
        assert b.moved == pytest.approx(SECONDS * 400_000, rel=0.05)

    virtual(test)


def test_all_limits_hold() -> None:
    async def test() -> None:
        pacer, total, own = Pacer(), rate_limit(500_000, now=now()), rate_limit(50_000, now=now())
        limited, free = Flow(), Flow()
        with pacer.paced(limited, [total, own]), pacer.paced(free, [total]):
            await run(limited, free)
        assert limited.moved == pytest.approx(SECONDS * 50_000, rel=0.03)
        assert free.moved == pytest.approx(SECONDS * 450_000, rel=0.03)

    virtual(test)


def test_the_higher_priority_goes_first() -> None:
    async def test() -> None:
        pacer, limit = Pacer(), rate_limit(500_000, now=now())
        high, low = Flow(speed=300_000), Flow()
        with pacer.paced(low, [limit]), pacer.paced(high, [limit], priority=5):
            await run(high, low)
        assert high.moved == pytest.approx(SECONDS * 300_000, rel=0.03)
        assert low.moved == pytest.approx(SECONDS * 200_000, rel=0.05)

    virtual(test)


def test_what_was_not_used_is_given_back_and_nothing_runs_on() -> None:
    async def test() -> None:
        pacer, limit = Pacer(), rate_limit(100_000, now=now())
        idle = Flow(speed=0)
        with pacer.paced(idle, [limit]):
            # It stood still until it was given its first portion.
            assert pacer.was_held(idle) and not pacer.was_held(idle)
            assert idle.left and limit.level(now()) < limit.burst
        assert limit.level(now()) == limit.burst
        used = Flow()
        with pacer.paced(used, [limit]):
            used.move(1)
            assert pacer.was_held(used)
        with pacer.paced(used, []):
            assert not pacer.was_held(used)
        await asyncio.sleep(1)
        assert pacer._timer is None

    virtual(test)
