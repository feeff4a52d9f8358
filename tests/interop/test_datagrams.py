"""Datagrams between ours and upstream's endpoints, in both roles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aioiroh import Connection, DatagramError, TransportConfig
from meeting import ALPN, Link, Meet, meeting, pattern

MAX_SIZE = 1414
"""With a path MTU of 1452, the largest that is probed for."""


async def grown(connection: Connection) -> None:
    """Waits until the path MTU has been discovered."""
    async with asyncio.timeout(10):
        while connection.max_datagram_size != MAX_SIZE:
            await asyncio.sleep(0.05)


async def they_have_grown(link: Link) -> None:
    async with asyncio.timeout(10):
        while (await link.theirs("info"))["max_datagram_size"] != MAX_SIZE:
            await asyncio.sleep(0.05)


async def test_both_ways(make_peer: Callable[..., Any], meet: Meet) -> None:
    async with meet(make_peer) as link:
        for size in (0, 1, 100, 1100):
            link.ours.send_datagram(pattern(size))
            assert await link.theirs("read_datagram") == {"hex": pattern(size).hex()}
            await link.theirs("send_datagram", pattern=size)
            assert await link.ours.read_datagram() == pattern(size)


async def test_the_largest_and_one_byte_more(make_peer: Callable[..., Any], meet: Meet) -> None:
    async with meet(make_peer) as link:
        await grown(link.ours)
        link.ours.send_datagram(pattern(MAX_SIZE))
        assert await link.theirs("read_datagram") == {"hex": pattern(MAX_SIZE).hex()}
        with pytest.raises(DatagramError) as refused:
            link.ours.send_datagram(pattern(MAX_SIZE + 1))
        assert refused.value.kind == "too_large"

        await they_have_grown(link)
        await link.theirs("send_datagram", pattern=MAX_SIZE)
        assert await link.ours.read_datagram() == pattern(MAX_SIZE)
        with pytest.raises(Exception, match=r"(?i)too.?large"):
            await link.theirs("send_datagram", pattern=MAX_SIZE + 1)


async def test_the_same_room_to_send(make_peer: Callable[..., Any], meet: Meet) -> None:
    async with meet(make_peer) as link:
        told = await link.theirs("info")
        assert link.ours.datagram_send_buffer_space == told["datagram_send_buffer_space"]


async def test_many(make_peer: Callable[..., Any]) -> None:
    count = 1000
    async with meeting(True)(make_peer, alpns={ALPN.decode(): "echo"}) as link:
        seen = set()

        async def hear() -> None:
            async for data in link.ours.datagrams():
                assert data[2:] == pattern(998)
                seen.add(data[:2])
                if len(seen) == count:
                    return

        hearing = asyncio.create_task(hear())
        for number in range(count):
            await link.ours.send_datagram_wait(number.to_bytes(2, "big") + pattern(998))
            if number % 50 == 49:
                await asyncio.sleep(0.005)
        await asyncio.wait([hearing], timeout=5)
        if hearing.done():
            await hearing
        else:
            # Nothing is promised, but on loopback nearly all should come back.
            assert len(seen) > count * 0.8
            hearing.cancel()


async def test_a_peer_without_datagrams(iroh_peer: Callable[..., Any], meet: Meet) -> None:
    async with meet(iroh_peer, transport_of_peer={"datagrams": False}) as link:
        assert link.ours.max_datagram_size is None
        with pytest.raises(DatagramError) as refused:
            link.ours.send_datagram(b"x")
        assert refused.value.kind == "unsupported"


async def test_ours_without_datagrams(make_peer: Callable[..., Any], meet: Meet) -> None:
    transport = TransportConfig(datagram_receive_buffer=None)
    async with meet(make_peer, transport=transport) as link:
        assert (await link.theirs("info"))["max_datagram_size"] is None
        with pytest.raises(Exception, match=r"(?i)unsupported|not supported"):
            await link.theirs("send_datagram", text="x")
        with pytest.raises(DatagramError) as refused:
            link.ours.send_datagram(b"x")
        assert refused.value.kind == "disabled"
