"""Networks change under a connection, and data go on."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from aioiroh.testing import Link, simulated
from flows import Flow
from worlds import RELAY, RELAY_URL, behind, connected, direct, relay, router_of

LINK = Link(latency=0.02, bandwidth=20e6)
HELD = 3.0
"""Seconds of silence where a path died: half of them would do."""
FAMILIES = {"4": {"ipv6": False}, "6": {"ipv4": False}, "both": {}}


@asynccontextmanager
async def traffic(ends, rate=20_000):
    """A flow each way, which must come to its end."""
    flows = (
        Flow(ends.client, ends.server, rate=rate, name="up"),
        Flow(ends.server, ends.client, rate=rate, name="down"),
    )
    await asyncio.sleep(2)
    for flow in flows:
        flow.watch_again()
    try:
        yield flows
        await asyncio.gather(*(flow.stop() for flow in flows))
    finally:
        for flow in flows:
            flow.done.cancel()


def longest(flows):
    return max(flow.longest for flow in flows)


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("after", FAMILIES)
@pytest.mark.parametrize("before", FAMILIES)
@simulated()
async def test_another_uplink(network, before, after, who):
    """One interface goes away, and after a second another one comes."""
    hosts = {
        name: network.host(name, link=LINK, **(FAMILIES[before] if name == who else {}))
        for name in ("client", "server")
    }
    async with relay(network), connected(hosts["client"], hosts["server"]) as ends:
        await direct(ends.client)
        async with traffic(ends) as flows:
            hosts[who].remove_interface("eth0")
            await asyncio.sleep(1)
            hosts[who].add_interface("wlan0", link=LINK, **FAMILIES[after])
            await asyncio.sleep(12)
            assert longest(flows) <= HELD
            await direct(ends.client)


@pytest.mark.parametrize("who", ["client", "server"])
@simulated(seeds=3)
async def test_a_path_that_dies_unnoticed_and_comes_back(network, who):
    """Meanwhile only the relay is left."""
    hosts = {name: behind(network, "moderate", name, LINK) for name in ("client", "server")}
    async with relay(network, link=LINK), connected(hosts["client"], hosts["server"]) as ends:
        await direct(ends.client)
        async with traffic(ends) as flows:
            router_of(hosts[who]).carries_udp = False
            await asyncio.sleep(10)
            assert longest(flows) <= 3
            router_of(hosts[who]).carries_udp = True
            for flow in flows:
                flow.watch_again()
            await direct(ends.client)
            assert longest(flows) <= 0.5


@pytest.mark.parametrize("who", ["client", "server"])
@simulated(seeds=3)
async def test_the_interface_in_use_goes_away_and_another_one_is_there(network, who):
    hosts = {name: network.host(name, link=LINK) for name in ("client", "server")}
    async with relay(network, link=LINK), connected(hosts["client"], hosts["server"]) as ends:
        await direct(ends.client)
        async with traffic(ends) as flows:
            hosts[who].add_interface("wlan0", link=LINK)
            await asyncio.sleep(5)
            hosts[who].remove_interface("eth0")
            await asyncio.sleep(10)
            assert longest(flows) <= HELD
            await direct(ends.client)


@pytest.mark.parametrize("who", ["client", "server", "both"])
@simulated(seeds=3)
async def test_every_address_replaced(network, who):
    hosts = {name: network.host(name, link=LINK) for name in ("client", "server")}
    async with relay(network), connected(hosts["client"], hosts["server"]) as ends:
        await direct(ends.client)
        async with traffic(ends) as flows:
            for _ in range(2):
                for name, host in hosts.items():
                    if who in (name, "both"):
                        host.interfaces["eth0"].renumber()
                await asyncio.sleep(12)
            assert longest(flows) <= HELD
            await direct(ends.client)


@pytest.mark.parametrize("death", ["killed", "vanished"])
@simulated(seeds=3)
async def test_a_relay_dies_and_comes_back(network, death):
    """Killed: its connections are reset. Vanished: its machine answers nobody for five seconds."""
    near, far = behind(network, "moderate", "near"), behind(network, "strict", "far")
    router_of(near).carries_udp = False
    machine = network.host(RELAY)
    first = relay(network)
    await first.__aenter__()
    async with connected(near, far) as ends, traffic(ends) as flows:
        if death == "vanished":
            machine.up = False
        machine.crash()
        await first.__aexit__(None, None, None)
        await asyncio.sleep(5)
        machine.up = True
        async with relay(network):
            await asyncio.sleep(20)
            # Data wait for it: it is dialled each second, or each 2.5 s if it does not answer.
            assert longest(flows) <= (7 if death == "killed" else 9)
            await asyncio.gather(*(flow.stop() for flow in flows))


@simulated(seeds=3)
async def test_a_relay_that_ends_does_not_matter_to_direct_paths(network):
    near, far = network.host(), network.host()
    async with relay(network) as server, connected(near, far) as ends:
        await direct(ends.client)
        async with traffic(ends) as flows:
            await server.aclose()
            await asyncio.sleep(30)
            assert longest(flows) < 0.3


@pytest.mark.parametrize(
    "families",
    [
        ("4", "6", "both"),
        ("6", "4", "both"),
        ("4", "both", "4"),
        ("both", "6", "6"),
        ("4", "both", "both"),
    ],
)
@simulated()
async def test_a_relay_of_one_ip_version(network, families):
    near, far, middle = (FAMILIES[family] for family in families)
    async with (
        relay(network, **middle),
        connected(network.host(**near), network.host(**far), by_relay=True) as ends,
        traffic(ends),
    ):
        relays = {str(path.relay) for path in ends.client.paths.value}
        assert RELAY_URL in relays


@simulated()
async def test_udp_is_blocked(network):
    near, far = behind(network, "moderate", "near"), behind(network, "moderate", "far")
    for router in network.routers.values():
        router.carries_udp = False
    async with relay(network), connected(near, far) as ends, traffic(ends) as flows:
        await asyncio.sleep(20)
        assert {str(path.relay) for path in ends.client.paths.value} == {RELAY_URL}
        assert longest(flows) < 0.3


@simulated()
async def test_many_addresses(network):
    near, far = network.host(), network.host()
    for host in (near, far):
        for number in range(1, 20):
            host.add_interface(f"eth{number}")
    async with relay(network), connected(near, far, by_relay=True) as ends, traffic(ends):
        await direct(ends.client)
        await asyncio.sleep(20)


@pytest.mark.parametrize("jump", [-86_400, 3600])
@simulated()
async def test_the_clock_jumps(network, jump):
    near, far = network.host(), network.host()
    async with relay(network), connected(near, far) as ends, traffic(ends) as flows:
        for host in (near, far, network.hosts[RELAY]):
            host.clock_ahead += jump
            host.changed()
            await asyncio.sleep(20)
        assert longest(flows) < 0.5


@pytest.mark.parametrize("way", ["direct", "relayed"])
@pytest.mark.parametrize("rate", [0, 20_000])
@simulated(seeds=3)
async def test_a_silent_outage(network, way, rate):
    """Nobody is told that the network is gone, or that it is back."""
    near, far = behind(network, "moderate", "near"), behind(network, "moderate", "far")
    router_of(near).carries_udp = way == "direct"
    async with relay(network), connected(near, far) as ends:
        if way == "direct":
            await direct(ends.client)
        async with traffic(ends, rate or 1_000) as flows:
            if not rate:
                await asyncio.sleep(3)
            router_of(near).up = False
            await asyncio.sleep(28)
            router_of(near).up = True
            await asyncio.sleep(30)
            assert longest(flows) <= 28 + 5
