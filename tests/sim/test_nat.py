"""Routers of the virtual network: mapping, filtering, ports, hairpin, time-outs, firewalls."""

from __future__ import annotations

import asyncio
import itertools
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.testing import Link, Nat, VirtualNetwork, simulated
from aioiroh.testing.nat import NatTable
from boxes import Box

DEPENDENCE = ["endpoint-independent", "address-dependent", "address-and-port-dependent"]
LAN = Link(latency=0.001)


def home(network, name="home", nat=None, **options):
    """A router, and a box on a host behind it."""
    router = network.router(name, nat=nat or Nat(), **options)
    host = network.host(f"{name} host", segment=router.inside, link=LAN)
    box = Box(host)
    box.bind(port=5000)
    if not host.addresses[0].startswith("101"):
        assert host.addresses[0].startswith(("192.168.", "10.", "100.64."))
    return router, box


def outside(network, name="outside", *ports):
    """A box on the internet, and its addresses, one for each port."""
    box = Box(network.host(name))
    ports = ports or (7,)
    for port in ports:
        box.bind(port=port)
    return box, [(box.host.addresses[0], port) for port in ports]


async def settle():
    await asyncio.sleep(1)


def sources(box):
    return [entry[2] for entry in box.received]


@pytest.mark.parametrize("mapping", DEPENDENCE)
@simulated()
async def test_mapping(network, mapping):
    router, inner = home(network, nat=Nat(mapping=mapping, ports="sequential"))
    one, (first, second) = outside(network, "one", 7, 8)
    other, (third,) = outside(network, "other")
    for destination in (first, first, second, third):
        inner.send(destination, b"x")
        await settle()
    outer = [*sources(one), *sources(other)]
    assert {ip for ip, _ in outer} == {router.outside.addresses[0]}
    ports = [port for _, port in outer]
    assert ports[0] == ports[1]
    assert len(set(ports)) == {DEPENDENCE[0]: 1, DEPENDENCE[1]: 2, DEPENDENCE[2]: 3}[mapping]


@pytest.mark.parametrize("filtering", DEPENDENCE)
@simulated()
async def test_filtering(network, filtering):
    _, inner = home(network, nat=Nat(filtering=filtering))
    one, (first, _) = outside(network, "one", 7, 8)
    other, _ = outside(network, "other")
    inner.send(first, b"x")
    await settle()
    outer = sources(one)[0]
    one.send(outer, b"same address and port")
    one.send(outer, b"same address", slot=1)
    other.send(outer, b"another address")
    await settle()
    allowed = {DEPENDENCE[0]: 3, DEPENDENCE[1]: 2, DEPENDENCE[2]: 1}[filtering]
    assert len(inner.received) == allowed
    assert network.log.totals().get("filtered", 0) == 3 - allowed
    assert all(entry[3] == inner.host.addresses[0] for entry in inner.received)


@simulated()
async def test_a_port_is_kept_when_it_is_free(network):
    router, first = home(network)
    second = Box(network.host("second", segment=router.inside))
    second.bind(port=5000)
    peer, (address,) = outside(network)
    first.send(address, b"x")
    second.send(address, b"x")
    await settle()
    ports = [port for _, port in sources(peer)]
    assert ports[0] == 5000
    assert ports[1] != 5000


@simulated()
async def test_ports_in_order_and_at_random(network):
    _, ordered = home(network, "a", nat=Nat.kind("strict").replace(ports="sequential"))
    _, random = home(network, "b", nat=Nat.kind("strict"))
    peer, addresses = outside(network, "peer", *range(100, 120))
    for box in (ordered, random):
        for address in addresses:
            box.send(address, b"x")
    await settle()
    ports = [port for _, port in sources(peer)]
    assert [after - before for before, after in itertools.pairwise(ports[:20])] == [1] * 19
    assert len(set(ports[20:])) == 20
    steps = {after - before for before, after in itertools.pairwise(ports[20:])}
    assert len(steps) == 19


@simulated()
async def test_hairpin(network):
    for number, hairpin in enumerate((False, True)):
        router, first = home(network, str(number), nat=Nat(hairpin=hairpin))
        second = Box(network.host(f"{number} second", segment=router.inside))
        second.bind(port=6000)
        peer, (address,) = outside(network, f"{number} peer")
        first.send(address, b"x")
        second.send(address, b"x")
        await settle()
        to_first, to_second = sources(peer)
        first.send(to_second, b"hello")
        second.send(to_first, b"hello")
        await settle()
        # The first is not permitted yet, and its own packet is what permits the other.
        assert sources(first) == ([to_second] if hairpin else [])


@simulated()
async def test_neighbours_reach_each_other_without_the_router(network):
    router, first = home(network)
    second = Box(network.host("second", segment=router.inside))
    second.bind(port=6000)
    router.up = False
    first.send((second.host.addresses[0], 6000), b"x")
    await settle()
    assert sources(second) == [(first.host.addresses[0], 5000)]


@simulated()
async def test_mappings_time_out_and_are_flushed(network):
    router, inner = home(network, nat=Nat.kind("open").replace(timeout=30, ports="random"))
    peer, (address,) = outside(network)
    inner.send(address, b"x")
    await settle()
    outer = sources(peer)[0]
    for _ in range(5):  # what comes in keeps it
        await asyncio.sleep(20)
        peer.send(outer, b"x")
    await settle()
    assert len(inner.received) == 5
    await asyncio.sleep(40)
    peer.send(outer, b"x")
    await settle()
    assert len(inner.received) == 5
    inner.send(address, b"x")
    await settle()
    assert sources(peer)[1] != outer
    router.flush()
    peer.send(sources(peer)[1], b"x")
    await settle()
    assert len(inner.received) == 5


@simulated()
async def test_without_refresh_by_what_comes_in(network):
    _, inner = home(network, nat=Nat(timeout=30, inbound_refresh=False))
    peer, (address,) = outside(network)
    inner.send(address, b"x")
    for _ in range(5):
        await asyncio.sleep(20)
        peer.send(sources(peer)[0], b"x")
    await settle()
    assert len(inner.received) == 1


@simulated()
async def test_another_address_of_the_router_ends_all_mappings(network):
    router, inner = home(network)
    peer, (address,) = outside(network)
    inner.send(address, b"x")
    await settle()
    before = sources(peer)[0]
    router.outside.renumber()
    peer.send(before, b"x")
    peer.send((router.outside.addresses[0], before[1]), b"x")
    await settle()
    assert not inner.received
    inner.send(address, b"x")
    await settle()
    assert sources(peer)[1] == (router.outside.addresses[0], 5000) != before


@simulated()
async def test_a_home_behind_a_carrier(network):
    carrier = network.router("carrier", nat=Nat.kind("strict"), ipv4="100.64.0.0/16")
    router, inner = home(network, behind=carrier)
    peer, (address,) = outside(network)
    inner.send(address, b"x")
    await settle()
    assert sources(peer)[0][0] == carrier.outside.addresses[0]
    assert router.outside.addresses[0].startswith("100.64.")
    peer.send(sources(peer)[0], b"back")
    await settle()
    assert sources(inner) == [address]


@simulated()
async def test_a_forwarded_port(network):
    router, inner = home(network)
    router.forward_port("udp", 80, (inner.host.addresses[0], 5000))
    router.flush()
    peer, (address,) = outside(network)
    peer.send((router.outside.addresses[0], 80), b"x")
    await settle()
    assert sources(inner) == [address]
    inner.send(address, b"x")
    await settle()
    assert sources(peer) == [(router.outside.addresses[0], 80)]
    with pytest.raises(ValueError):
        network.router("plain", nat=None).forward_port("udp", 80, address)


@pytest.mark.parametrize("firewall", [True, False])
@simulated()
async def test_ipv6_passes_untranslated(network, firewall):
    router = network.router("home", ipv6=True, firewall=firewall)
    host = network.host("host", segment=router.inside)
    inner = Box(host)
    inner.bind("::", 5000)
    peer = Box(network.host("peer"))
    peer.bind("::", 7)
    inner_address, address = (host.addresses[1], 5000), (peer.host.addresses[1], 7)
    peer.send(inner_address, b"unasked")
    await settle()
    assert len(inner.received) == (0 if firewall else 1)
    inner.send(address, b"x")
    await settle()
    assert sources(peer) == [inner_address]
    peer.send(inner_address, b"asked")
    await settle()
    assert inner.data[-1] == b"asked"
    await asyncio.sleep(200)
    peer.send(inner_address, b"late")
    await settle()
    assert inner.data[-1] == (b"asked" if firewall else b"late")


@simulated()
async def test_ipv6_behind_two_routers(network):
    carrier = network.router("carrier", ipv4="100.64.0.0/16", ipv6=True)
    router = network.router("home", behind=carrier, ipv6=True)
    inner = Box(network.host("host", segment=router.inside))
    inner.bind("::", 5000)
    peer = Box(network.host("peer"))
    peer.bind("::", 7)
    inner.send((peer.host.addresses[1], 7), b"x")
    await settle()
    peer.send(sources(peer)[0], b"back")
    await settle()
    assert inner.data == [b"back"]


@simulated()
async def test_public_addresses_behind_a_firewall(network):
    router = network.router("office", nat=None)
    inner = Box(network.host("host", segment=router.inside))
    inner.bind(port=5000)
    peer, (address,) = outside(network)
    own = inner.host.addresses[0], 5000
    peer.send(own, b"unasked")
    await settle()
    inner.send(address, b"x")
    await settle()
    assert sources(peer) == [own]
    peer.send(own, b"asked")
    await settle()
    assert inner.data == [b"asked"]


class Echo(asyncio.Protocol):
    def __init__(self):
        self.received = bytearray()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.received += data
        if self.transport.get_extra_info("peername")[1] != 80:
            self.transport.write(data)


@pytest.mark.parametrize("kind", ["open", "moderate", "strict"])
@simulated()
async def test_tcp_passes_also_where_udp_does_not(network, kind):
    router, inner = home(network, nat=Nat.kind(kind))
    router.carries_udp = False
    peer, (address,) = outside(network)
    await peer.host.listen_tcp(Echo, "0.0.0.0", 80)
    protocol = await inner.host.connect_tcp(Echo, peer.host.addresses[0], 80)
    protocol.transport.write(b"hello")
    inner.send(address, b"x")
    await settle()
    assert protocol.received == b"hello"
    assert not peer.received
    router.flush()
    protocol.transport.write(b"again")  # outbound, so the router makes a new mapping
    await settle()
    await inner.host.listen_tcp(Echo, "0.0.0.0", 81)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await peer.host.connect_tcp(Echo, router.outside.addresses[0], 81)


@simulated()
async def test_a_host_on_two_segments_sends_by_the_right_one(network):
    router, neighbour = home(network)
    both = network.host("both", ipv6=False)
    both.add_interface("wlan0", segment=router.inside, ipv6=False)
    box = Box(both)
    box.bind(port=9)
    peer, (address,) = outside(network)
    box.send((neighbour.host.addresses[0], 5000), b"x")
    box.send(address, b"x")
    await settle()
    assert sources(neighbour) == [(both.addresses[1], 9)]
    assert sources(peer) == [(both.addresses[0], 9)]
    both.remove_interface("eth0")
    box.send(address, b"x")
    await settle()
    assert sources(peer)[1][0] == router.outside.addresses[0]
    assert both.outward_addresses() == (both.addresses[0],)


@simulated()
async def test_names_are_taken_once(network):
    network.router("home")
    with pytest.raises(ValueError):
        network.router("home")
    with pytest.raises(ValueError):
        Nat(timeout=0)


ADDRESSES = st.tuples(st.sampled_from(["10.0.0.1", "10.0.0.2"]), st.integers(1, 4))


@given(
    nat=st.builds(
        Nat,
        mapping=st.sampled_from(DEPENDENCE),
        filtering=st.sampled_from(DEPENDENCE),
        ports=st.sampled_from(["preserve", "random", "sequential"]),
        timeout=st.just(10.0),
    ),
    steps=st.lists(st.tuples(st.floats(0, 20), ADDRESSES, ADDRESSES), max_size=30),
)
def test_what_goes_out_may_be_answered(nat, steps):
    table = NatTable(nat, Random(1))
    now = 0.0
    for wait, inner, peer in steps:
        now += wait
        port = table.outbound(now, "udp", inner, peer)
        assert port is not None
        assert table.inbound(now + 9.9, "udp", port, peer) == inner
        assert table.inbound(now, "tcp", port, peer) is None


def test_a_router_without_ports_left_drops(monkeypatch):
    monkeypatch.setattr("aioiroh.testing.nat.LAST_PORT", 1033)
    table = NatTable(Nat.kind("strict"), Random(1))
    ports = [table.outbound(0.0, "udp", ("10.0.0.1", 5), ("1.1.1.1", n)) for n in range(12)]
    assert sorted(ports[:10]) == list(range(1024, 1034))
    assert ports[10:] == [None, None]
    assert table.outbound(121.0, "udp", ("10.0.0.1", 5), ("1.1.1.1", 99)) in range(1024, 1034)


@simulated(seeds=3)
async def test_bursts(network):
    near, far = Box(network.host(link=Link(burst=0.01, burst_length=20))), Box(network.host())
    near.bind()
    far.bind(port=7)
    for number in range(20_000):
        near.send((far.host.addresses[0], 7), number.to_bytes(4, "big"))
    await settle()
    arrived = [int.from_bytes(data, "big") for data in far.data]
    gaps = [after - before - 1 for before, after in itertools.pairwise(arrived)]
    bursts = [gap for gap in gaps if gap]
    assert 0.12 < sum(bursts) / 20_000 < 0.22
    assert 14 < sum(bursts) / len(bursts) < 27


@simulated()
async def test_the_host_tells_of_changes(network: VirtualNetwork):
    host = network.host()
    told = []
    end = host.watch(lambda: told.append(host.addresses))
    first = host.addresses
    host.interfaces["eth0"].renumber()
    assert len(told) == 1 and told[0] != first and len(told[0]) == 2
    host.add_interface("eth1")
    host.up = False
    host.up = False
    assert len(told) == 4
    host.remove_interface("eth1")
    assert len(told) == 5
    end()
    host.up = True
    assert len(told) == 5
