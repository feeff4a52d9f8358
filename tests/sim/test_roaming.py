"""The network of a machine changes while a connection lasts."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from aioiroh import Endpoint
from aioiroh.testing import Link, simulated
from flows import Flow
from worlds import (
    RELAY,
    RELAY_URL,
    behind,
    connected,
    direct,
    is_direct,
    relay,
    router_of,
)

ALPN = b"roaming"


@asynccontextmanager
async def meeting(network, *, roamer_dials=True):
    """A laptop on two networks, a server, and the two ends of a connection: the laptop's first."""
    async with AsyncExitStack() as stack:
        server = network.host("server")
        laptop = network.host("laptop")
        laptop.add_interface("wlan0", link=Link(latency=0.02))
        still = await stack.enter_async_context(Endpoint.bind(network=server, alpns=[ALPN]))
        roamer = await stack.enter_async_context(Endpoint.bind(network=laptop, alpns=[ALPN]))
        dialler, dialled = (roamer, still) if roamer_dials else (still, roamer)
        accepting = asyncio.ensure_future(accept_one(dialled))
        ours, theirs = await dialler.connect(dialled.addr, alpn=ALPN), await accepting
        yield (laptop, roamer, *((ours, theirs) if roamer_dials else (theirs, ours)))


async def accept_one(endpoint):
    return await (await endpoint.accept()).accept()


@simulated(seeds=3)
@pytest.mark.parametrize("upload", [True, False])
async def test_a_dialler_moves_to_the_interface_that_is_left(network, upload):
    async with meeting(network) as (laptop, _, ours, theirs):
        # A byte each 20 ms.
        beat = Flow(*((ours, theirs) if upload else (theirs, ours)), rate=50, tick=0.02)
        await asyncio.sleep(1)
        for name, other in (("eth0", "wlan0"), ("wlan0", "eth0")):
            beat.watch_again()
            before = beat.received
            laptop.interfaces[name].up = False
            laptop.changed()
            await asyncio.sleep(5)
            assert beat.longest < 0.7
            assert beat.received - before > 150
            left = set(laptop.interfaces[other].addresses)
            assert {path.local for path in ours.paths.value if path.status == "available"} <= left
            laptop.interfaces[name].up = True
            laptop.changed()
            await asyncio.sleep(5)
        await beat.stop()


@simulated(seeds=3)
async def test_a_path_that_does_not_answer_is_noticed_and_so_is_its_return(network):
    """By a policy that looks on: paths stay as they are."""
    told: list[tuple[float, bool]] = []

    def look(paths, _selected):
        silent = any(path.is_silent for path in paths)
        if len(paths) > 1 and (not told or told[-1][1] != silent):
            told.append((network.loop.time(), silent))

    async with AsyncExitStack() as stack:
        server = network.host("server", link=Link(latency=0.01))
        still = await stack.enter_async_context(Endpoint.bind(network=server, alpns=[ALPN]))
        laptop = network.host("laptop")
        wlan = laptop.add_interface("wlan0", link=Link(latency=0.01))
        roamer = await stack.enter_async_context(
            Endpoint.bind(network=laptop, alpns=[ALPN], path_selector=look)
        )
        accepting = asyncio.ensure_future(accept_one(still))
        connection = await roamer.connect(still.addr, alpn=ALPN)
        await accepting
        await asyncio.sleep(0.5)
        connection.state.native.open_path(
            (server.addresses[0], still.bound_sockets[0].port),
            wlan.addresses[0],
            "available",
        )
        await asyncio.sleep(0.5)
        assert [silent for _, silent in told] == [False]
        # Quiet as the connection is, its keep-alives ought to be answered.
        begun = network.loop.time()
        for link in (Link(loss=1), Link(latency=0.01)):
            wlan.uplink = wlan.downlink = link
            await asyncio.sleep(8)
        assert [silent for _, silent in told] == [False, True, False]
        (_, (lost, _), (back, _)) = told
        # A keep-alive within 5 s, then a second of patience at most.
        assert lost - begun < 6.2
        assert 8 < back - begun < 13.2


SLOW = Link(latency=0.01, bandwidth=8e6, queue=64 * 1024)
SLOWER = replace(SLOW, bandwidth=2e6)


@simulated()
@pytest.mark.parametrize("link", [SLOW, SLOWER])
@pytest.mark.parametrize("upload", [True, False])
async def test_a_transfer_goes_on_through_the_relay_and_comes_back(network, upload, link):
    """The direct path dies without a word: UDP does not pass any more."""
    near, far = behind(network, "open", "near", link), behind(network, "none", "far", link)
    async with relay(network), connected(near, far) as ends:
        await direct(ends.client)
        source, target = ends.client, ends.server
        bulk = Flow(*((source, target) if upload else (target, source)))
        await asyncio.sleep(3)
        for outage in (1.5, 5.0):
            bulk.watch_again()
            router_of(near).carries_udp = False
            await asyncio.sleep(outage)
            assert bulk.longest < (1.5 if link is SLOW else 2.5)
            router_of(near).carries_udp = True
            await asyncio.sleep(5)
            # What waits at the relay has to share the line with what goes directly now.
            assert bulk.longest < (2.0 if link is SLOW else 4.0)
            assert is_direct(source) and is_direct(target)
        await bulk.stop()


@simulated()
@pytest.mark.parametrize("upload", [True, False])
async def test_a_transfer_moves_to_the_direct_path_without_a_pause(network, upload):
    near, far = behind(network, "moderate", "near", SLOW), behind(network, "none", "far", SLOW)
    async with relay(network), connected(near, far, by_relay=True) as ends:
        source, target = ends.client, ends.server
        bulk = Flow(*((source, target) if upload else (target, source)))
        await direct(source)
        await asyncio.sleep(1)
        assert is_direct(target)
        assert bulk.longest < 0.5
        await bulk.stop()


@simulated()
async def test_a_relay_that_restarts_is_left_alone_for_as_long_as_it_says(network):
    loop = network.loop
    machine = network.host(RELAY)
    async with Endpoint.bind(network=network.host("near"), relays=[RELAY_URL]) as endpoint:
        async with relay(network):
            await endpoint.online()
            (client, _) = endpoint._where._relays._clients[RELAY_URL]
            # What a relay says that will take longer; ours says 100 ms.
            client._heard(("restarting", 5000, 30_000))
        begun = loop.time()
        assert machine is network.hosts[RELAY]
        async with relay(network):
            await endpoint.watch_home_relay.wait_for(lambda status: not status.is_connected)
            await endpoint.online()
            assert 4.9 < loop.time() - begun < 6
        # One that has just vanished is asked at once, and again and again.
        begun = loop.time()
        async with relay(network):
            await endpoint.watch_home_relay.wait_for(lambda status: not status.is_connected)
            await endpoint.online()
            assert loop.time() - begun < 1
