"""Direct paths that hole punching alone does not find, between whole endpoints."""

from __future__ import annotations

import asyncio

import pytest

from aioiroh.paths.guessing.rules import RESTS, SOCKETS
from aioiroh.paths.guessing.sweep import Sweep
from aioiroh.testing import Host, Link, Nat, PacketRecord, VirtualNetwork, simulated
from worlds import (
    OTHER_RELAY,
    RELAY,
    RELAY_URL,
    Ends,
    behind,
    connected,
    direct,
    is_direct,
    relay,
    relays,
    router_of,
)

LINK = Link(latency=0.02, loss=0.01)
HARD = [("moderate", "strict"), ("strict", "moderate")]
PROBE = 10
"""Bytes of a datagram that is not QUIC."""
SMALL = 100
ORDINARY = 2
"""Sockets of an endpoint that does not guess."""
LIMIT, DATAGRAMS = 10.0, 3_000
"""Seconds and small datagrams within which there has to be a direct path."""


def homes(network: VirtualNetwork, *kinds: str) -> list[Host]:
    """Hosts behind such routers, with different addresses, so that their packets can be told apart."""
    return [
        behind(network, kind, f"{kind} {n}", LINK, inside=f"192.168.{n}.0/24")
        for n, kind in enumerate(kinds)
    ]


def pair(client: Host, server: Host, urls: tuple[str, ...], **options):
    """A connection that begins at a relay."""
    return connected(client, server, relays=urls, by_relay=True, **options)


def sent_by(network: VirtualNetwork, *hosts: Host, since: float = 0.0) -> list[PacketRecord]:
    """What the hosts have sent to anybody but relays."""
    ours = {ip for host in hosts for ip in host.addresses}
    known = [network.hosts[name] for name in (RELAY, OTHER_RELAY) if name in network.hosts]
    others = {*ours, *(ip for host in known for ip in host.addresses)}
    return [
        record
        for record in network.log
        if record.event == "sent"
        and record.time >= since
        and record.source[0] in ours
        and record.destination[0] not in others
    ]


def sizes(records: list[PacketRecord], limit: int) -> int:
    """How many of them have at most so many bytes."""
    return sum(record.size <= limit for record in records)


async def soon_direct(ends: Ends, within: float = LIMIT) -> None:
    async with asyncio.timeout(within):
        await asyncio.gather(direct(ends.client), direct(ends.server))


async def echo(ends: Ends) -> None:
    """Some data there and back."""
    data = bytes(range(256)) * 200
    near = await ends.client.open_bi()
    await near.write(data)
    await near.finish()
    far = await ends.server.accept_bi()
    await far.write(await far.read_all(limit=len(data)))
    await far.finish()
    assert await near.read_all(limit=len(data)) == data


@pytest.mark.parametrize("kinds", HARD, ids="-".join)
@simulated(seeds=2)
async def test_moderate_and_strict(network, kinds):
    hosts = homes(network, *kinds)
    async with relays(network) as urls, pair(*hosts, urls) as ends:
        await soon_direct(ends)
        assert sizes(sent_by(network, *hosts), SMALL) <= DATAGRAMS
        now = asyncio.get_running_loop().time()
        await echo(ends)
        # All but one of the sockets are closed, and what is left of the traffic uses that one.
        strict = hosts[kinds.index("strict")]
        assert len(strict.bound_udp) == ORDINARY + 1
        later = [r for r in sent_by(network, strict, since=now) if r.size > SMALL]
        assert len({record.source for record in later}) == 1
        spread, swept = (
            (ends.server_endpoint, ends.client_endpoint)
            if kinds[1] == "strict"
            else (ends.client_endpoint, ends.server_endpoint)
        )
        assert (spread.metrics.guessing.spreads, spread.metrics.guessing.paths) == (1, 1)
        assert spread.metrics.guessing.probes == SOCKETS
        assert swept.metrics.guessing.sweeps == 1


@pytest.mark.parametrize("kinds", HARD, ids="-".join)
@simulated()
async def test_a_single_relay_has_to_do(network, kinds):
    hosts = homes(network, *kinds)
    async with relay(network), pair(*hosts, (RELAY_URL,)) as ends:
        await soon_direct(ends)


@simulated()
async def test_a_strict_carrier_of_a_moderate_home(network):
    carrier = network.router("carrier", nat=Nat.kind("strict"), ipv4="100.64.0.0/16", link=LINK)
    home = network.router("home", behind=carrier)
    client, server = network.host("a", segment=home.inside), behind(network, "moderate", "b", LINK)
    async with relays(network) as urls, pair(client, server, urls) as ends:
        await soon_direct(ends)
        await echo(ends)


@simulated()
async def test_a_nat_that_counts_is_predicted(network):
    client, server = homes(network, "strict", "moderate")
    router_of(client).nat = Nat(mapping="address-and-port-dependent", ports="sequential")
    async with relays(network) as urls, pair(client, server, urls) as ends:
        await soon_direct(ends)
        # One of the first probes comes through, a moment after it was sent.
        probes = [record for record in network.log if record.size == PROBE]
        swept = min(r.time for r in probes if r.source[0] in server.addresses)
        hit = min(r.time for r in probes if r.event == "received")
        assert hit - swept < 0.1


@simulated()
async def test_a_peer_that_only_punches_holes(network, monkeypatch):
    # As upstream, which dials here nobody, and so tries at once all that it is told.
    monkeypatch.setattr(Sweep, "decide", lambda *_: [])
    hosts = homes(network, "strict", "moderate")
    async with relays(network) as urls, pair(*hosts, urls) as ends:
        await soon_direct(ends, 15.0)
        await echo(ends)


@simulated()
async def test_a_path_that_breaks_comes_back(network):
    client, server = homes(network, "strict", "moderate")
    async with relays(network) as urls, pair(client, server, urls) as ends:
        await soon_direct(ends)
        router_of(client).flush()
        async for _ in ends.client.paths:
            if not is_direct(ends.client):
                break
        await echo(ends)
        await soon_direct(ends, 60.0)
        await echo(ends)


@simulated()
async def test_it_can_be_switched_off(network):
    hosts = homes(network, "strict", "moderate")
    async with (
        relays(network) as urls,
        pair(*hosts, urls, guess_ports=False) as ends,
    ):
        await asyncio.sleep(30)
        assert not is_direct(ends.client)
        assert sizes(sent_by(network, *hosts), PROBE) == 0


@simulated()
async def test_two_strict_ones_stay_on_the_relay(network):
    hosts = homes(network, "strict", "strict")
    async with relays(network) as urls, pair(*hosts, urls) as ends:
        await asyncio.sleep(RESTS[-1] / 2)
        await echo(ends)
        assert not is_direct(ends.client)
        records = sent_by(network, *hosts)
        # Each has spread at most once, to where the two relays see the other one, and seen then that that one
        # spreads as well.
        assert sizes(records, PROBE) <= 2 * 2 * SOCKETS
        assert all(len(host.bound_udp) == ORDINARY for host in hosts)


@pytest.mark.parametrize("kinds", [("moderate", "moderate"), ("strict", "open")], ids="-".join)
@simulated()
async def test_where_punching_is_enough_nothing_is_guessed(network, kinds):
    hosts = homes(network, *kinds)
    async with relays(network) as urls, pair(*hosts, urls) as ends:
        await soon_direct(ends)
        await asyncio.sleep(30)
        assert sizes(sent_by(network, *hosts), PROBE) == 0


@simulated()
async def test_who_leaves_while_guessing_leaves_nothing(network):
    client, server = homes(network, "strict", "moderate")
    async with relays(network) as urls:
        async with pair(client, server, urls) as ends:
            while len(client.bound_udp) < 100:
                await asyncio.sleep(0.1)
            # Without a connection nobody needs the sockets.
            ends.client.close()
            await asyncio.sleep(1)
            assert len(client.bound_udp) == ORDINARY
        assert not client.bound_udp
