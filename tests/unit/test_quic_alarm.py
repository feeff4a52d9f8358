"""How long a loop stays awake for an engine."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from aioiroh import Endpoint
from aioiroh.quic.alarm import DescriptorAlarm

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such descriptor")


class Loop:
    """Each look at the clock takes a hundred microseconds."""

    def __init__(self):
        self.looks = 0
        self.ring = None

    def time(self):
        self.looks += 1
        return self.looks * 0.0001

    def add_reader(self, _descriptor, callback):
        self.ring = callback

    def remove_reader(self, _descriptor):
        self.ring = None


class Driver:
    def __init__(self, then=lambda: None):
        self.turns = 0
        self.then = then

    def on_ready(self):
        self.turns += 1
        self.then()


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def alarm(descriptor, busy_poll, driver):
    loop = Loop()
    engine = type("Engine", (), {"fileno": lambda _self: descriptor})()
    return loop, DescriptorAlarm(loop, engine, driver, busy_poll)


def test_it_waits_awake_for_the_time_it_was_given(pipe):
    driver = Driver()
    loop, _ = alarm(pipe[0], 0.001, driver)
    loop.ring()
    assert driver.turns == 1
    assert loop.looks == pytest.approx(11, abs=1)


def test_what_comes_is_left_to_the_loop_at_once(pipe):
    driver = Driver(lambda: os.write(pipe[1], b"x"))
    loop, _ = alarm(pipe[0], 0.001, driver)
    loop.ring()
    assert (driver.turns, loop.looks) == (1, 1)


def test_without_it_nothing_is_waited_for(pipe):
    driver = Driver()
    loop, _ = alarm(pipe[0], 0.0, driver)
    loop.ring()
    assert (driver.turns, loop.looks) == (1, 0)


def test_once_stopped_the_descriptor_is_not_looked_at(pipe):
    loop, watching = alarm(pipe[0], 0.001, driver := Driver())
    ring, driver.then = loop.ring, watching.stop
    ring()
    assert (driver.turns, loop.looks) == (1, 0)


@pytest.mark.loops
async def test_endpoints_that_wait_awake(loop_kind):
    async with (
        Endpoint.bind(bind="127.0.0.1:0", alpns=[b"x"], busy_poll=0.0001) as server,
        Endpoint.bind(bind="127.0.0.1:0", busy_poll=0.0001) as client,
    ):

        async def serve():
            connection = await server.accept()
            connection = await connection.accept()

            async def answer(stream):
                await stream.write(await stream.read_all(limit=10))

            await connection.serve(answer)

        serving = asyncio.create_task(serve())
        connection = await client.connect(server.addr, alpn=b"x")
        for _ in range(5):
            async with connection.open_bi() as stream:
                await stream.write(b"?")
                await stream.finish()
                assert await stream.read_all(limit=10) == b"?"
        connection.close()
        await serving


@pytest.mark.parametrize("seconds", [-1e-6, 0.1])
async def test_the_time_is_bounded(seconds):
    with pytest.raises(ValueError, match="busy_poll"):
        await Endpoint.bind(bind="127.0.0.1:0", busy_poll=seconds)
