"""How soon two endpoints reach each other, and how soon directly, behind each pair of NATs."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from aioiroh import Connection, Endpoint, EndpointAddr
from aioiroh.testing import Host, Link, Nat, VirtualNetwork, simulated
from flows import Flow
from worlds import CERTIFICATE, KINDS, behind, connected, direct, is_direct, relays

LINK = Link(latency=0.02)
RTT = 0.083
"""Directly, and by way of the relay, whose own link takes no time. Hosts are 0.5 ms from their routers."""
PAIRS = list(itertools.product(KINDS, KINDS))
GUESSED = {("moderate", "strict"), ("strict", "moderate")}
HOPELESS = {("strict", "strict")}


def place(network: VirtualNetwork, pair: tuple[str, str]) -> tuple[Host, Host]:
    first, second = pair
    return behind(network, first, "near", LINK), behind(network, second, "far", LINK)


@pytest.mark.parametrize("pair", [*PAIRS], ids="-".join)
@simulated(seeds=3)
async def test_pairs(network, pair):
    async with (
        relays(network, link=Link(latency=0.0)) as urls,
        connected(*place(network, pair), relays=urls, by_relay=True) as ends,
    ):
        # The end of the handshake is a round trip away from its beginning.
        began, packets = network.loop.time(), network.log.count
        if pair in HOPELESS:
            await Flow(ends.client, ends.server, rate=10_000, size=200_000).done
            assert not is_direct(ends.client)
            assert not is_direct(ends.server)
            return
        await direct(ends.client)
        took = network.loop.time() - began
        if pair in GUESSED:
            assert took < 10
            assert small_datagrams(network, packets) <= 3000
        else:
            assert took <= 3 * RTT + 0.1
        await direct(ends.server)
        await Flow(ends.client, ends.server, size=100_000).done


def small_datagrams(network: VirtualNetwork, since: int) -> int:
    """How many were sent after the log had `since` records."""
    kept = itertools.islice(
        network.log, max(len(network.log) - (network.log.count - since), 0), None
    )
    return sum(
        record.event == "sent" and record.protocol == "udp" and record.size < 100 for record in kept
    )


async def echo(endpoint: Endpoint) -> Connection:
    connection = await (await endpoint.accept()).accept()
    async with await connection.accept_bi() as stream:
        await stream.write(await stream.read(100))
    return connection


@pytest.mark.parametrize("pair", [("none", "none"), ("moderate", "moderate"), ("strict", "strict")])
@simulated(seeds=2)
async def test_the_first_byte_comes_after_two_round_trips(network, pair):
    near, far = place(network, pair)
    async with (
        relays(network, link=Link(latency=0.0)) as urls,
        connected(near, far, relays=urls, by_relay=True) as ends,
    ):
        # Both are online; another pair of endpoints would be the same. Connections know nothing of each other.
        ends.client.close()
        await asyncio.sleep(70)  # the way to the peer is forgotten
        began = network.loop.time()
        answering = asyncio.ensure_future(echo(ends.server_endpoint))
        home = ends.server_endpoint.addr.relay_urls[0]
        address = EndpointAddr(ends.server_endpoint.id).with_relay(home)
        connection = await ends.client_endpoint.connect(address, alpn=b"worlds")
        async with connection.open_bi() as stream:
            await stream.write(b"hello")
            assert await stream.read(5) == b"hello"
        assert network.loop.time() - began <= 2 * RTT
        await answering


@simulated(seeds=2)
async def test_what_is_sent_first_waits_for_a_relay_that_has_to_be_dialled(network):
    near, far = place(network, ("strict", "strict"))
    async with (
        relays(network, link=Link(latency=0.0)) as (url, other),
        Endpoint.bind(network=far, alpns=[b"x"], relays=[url], relay_ca=CERTIFICATE) as server,
        Endpoint.bind(network=near, relays=[other], relay_ca=CERTIFICATE) as client,
    ):
        await server.online()
        await client.online()
        answering = asyncio.ensure_future(echo(server))
        began = network.loop.time()
        address = EndpointAddr(server.id).with_relay(url)
        connection = await client.connect(address, alpn=b"x")
        # TCP, TLS and the relay's own handshake come before QUIC's. What is lost is sent again only after a second.
        assert network.loop.time() - began <= 3 * RTT
        async with connection.open_bi() as stream:
            await stream.write(b"hello")
            assert await stream.read(5) == b"hello"
        await answering


@pytest.mark.parametrize("hairpin", [True, False])
@simulated(seeds=2)
async def test_two_behind_the_same_router(network, hairpin):
    """They are neighbours, and need neither the router nor the relay."""
    home = network.router("home", nat=Nat(hairpin=hairpin), link=LINK)
    near, far = (network.host(name, segment=home.inside) for name in ("near", "far"))
    async with (
        relays(network) as urls,
        connected(near, far, relays=urls, by_relay=True) as ends,
    ):
        await direct(ends.client)
        await asyncio.sleep(2)
        home.up = False
        await Flow(ends.client, ends.server, size=100_000).done


@pytest.mark.parametrize("peer", ["none", "open", "moderate"])
@simulated(seeds=2)
async def test_behind_a_carrier_and_a_home_router(network, peer):
    carrier = network.router("carrier", ipv4="100.64.0.0/16", link=LINK)
    home = network.router("home", behind=carrier, link=Link(latency=0.001))
    near, far = network.host("near", segment=home.inside), behind(network, peer, "far", LINK)
    async with (
        relays(network) as urls,
        connected(near, far, relays=urls, by_relay=True) as ends,
    ):
        async with asyncio.timeout(3):
            await direct(ends.client)
        await Flow(ends.client, ends.server, size=100_000).done


@pytest.mark.parametrize(
    "nat",
    [
        Nat(ports="sequential"),
        Nat(ports="random"),
        Nat(filtering="address-dependent"),
        Nat(timeout=6),
        Nat(timeout=20, inbound_refresh=False),
    ],
    ids=repr,
)
@simulated(seeds=2)
async def test_unusual_routers(network, nat):
    home = network.router("home", nat=nat, link=LINK)
    near, far = network.host("near", segment=home.inside), behind(network, "moderate", "far", LINK)
    async with (
        relays(network) as urls,
        connected(near, far, relays=urls, by_relay=True) as ends,
    ):
        async with asyncio.timeout(5):
            await direct(ends.client)
        # Keep-alives hold a mapping open, however short its time.
        await asyncio.sleep(120)
        assert is_direct(ends.client)
        await Flow(ends.client, ends.server, size=100_000).done


@simulated(seeds=2)
async def test_a_router_that_forgets(network):
    near, far = place(network, ("moderate", "moderate"))
    async with (
        relays(network) as urls,
        connected(near, far, relays=urls, by_relay=True) as ends,
    ):
        await direct(ends.client)
        flow = Flow(ends.client, ends.server, rate=50_000)
        await asyncio.sleep(2)
        flow.watch_again()
        for router in network.routers.values():
            router.flush()
            await asyncio.sleep(10)
        assert flow.longest < 6  # who only receives notices by his next keep-alive
        await direct(ends.client)
        await flow.stop()
