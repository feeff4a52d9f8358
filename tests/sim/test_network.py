"""The virtual network: links, interfaces, hosts, the log."""

from __future__ import annotations

import asyncio
import errno
from random import Random

import pytest

from aioiroh.testing import Link, PacketLog, PacketRecord, VirtualNetwork, simulated
from aioiroh.testing.link import Pipe
from boxes import Box


def two(network, **link):
    """Boxes on two hosts; everything passes one such link. The second box is bound to port 7."""
    near = Box(network.host("near", link=Link(**link)))
    far = Box(network.host("far", link=Link(latency=0.0, mtu=65_535)))
    for ip in ("0.0.0.0", "::"):
        near.bind(ip)
        far.bind(ip, 7)
    return near, far, (far.host.addresses[0], 7)


@simulated()
async def test_latency_is_that_of_both_links(network):
    near = Box(network.host("near", link=Link(latency=0.03)))
    far = Box(network.host("far", link=Link(latency=0.01)))
    port = near.bind().port
    far.bind(port=7)
    near.send((far.host.addresses[0], 7), b"there", ecn=2)
    await asyncio.sleep(1)
    source = (near.host.addresses[0], port)
    assert far.received == [(0.04, 0, source, far.host.addresses[0], b"there", 2)]
    far.send(source, b"back")
    await asyncio.sleep(1)
    assert near.received == [
        (1.04, 0, (far.host.addresses[0], 7), near.host.addresses[0], b"back", 0)
    ]


@simulated()
async def test_batches_are_taken_apart(network):
    near, far, address = two(network)
    near.send(address, bytes(2500), segment_size=1200)
    await asyncio.sleep(1)
    assert [len(data) for data in far.data] == [1200, 1200, 100]


@simulated()
async def test_datagrams_of_the_same_moment_keep_their_order(network):
    near, far, address = two(network)
    sent = [number.to_bytes(2, "big") for number in range(500)]
    for data in sent:
        near.send(address, data)
    await asyncio.sleep(1)
    assert far.data == sent


@simulated(seeds=5)
async def test_loss(network):
    near, far, address = two(network, loss=0.2)
    for _ in range(2000):
        near.send(address, b"x")
    await asyncio.sleep(1)
    assert 300 < 2000 - len(far.data) < 500
    assert network.log.totals()["lost"] == 2000 - len(far.data)


@simulated(seeds=5)
async def test_duplicates(network):
    near, far, address = two(network, duplicate=0.1)
    for number in range(1000):
        near.send(address, str(number).encode())
    await asyncio.sleep(1)
    assert 50 < len(far.data) - 1000 < 160
    assert len(set(far.data)) == 1000


@simulated(seeds=5)
async def test_reordering(network):
    near, far, address = two(network, reorder=0.1, reorder_delay=0.05)
    for number in range(500):
        near.send(address, number.to_bytes(2, "big"))
        await asyncio.sleep(0.001)
    await asyncio.sleep(1)
    assert sorted(far.data) == [number.to_bytes(2, "big") for number in range(500)]
    late = sum(after < before for before, after in zip(far.data, far.data[1:], strict=False))
    assert 20 < late < 100


@simulated(seeds=5)
async def test_jitter_keeps_the_order(network):
    near, far, address = two(network, latency=0.01, jitter=0.05)
    for number in range(500):
        near.send(address, number.to_bytes(2, "big"))
        await asyncio.sleep(0.001)
    await asyncio.sleep(1)
    assert far.data == sorted(far.data)
    waits = [arrival - number * 0.001 for number, arrival in enumerate(far.times)]
    assert 0.01 <= min(waits) < 0.03
    assert 0.04 < max(waits) <= 0.06


@simulated()
async def test_bandwidth_and_the_end_of_the_queue(network):
    near, far, address = two(network, latency=0.0, bandwidth=80_000, queue=10_000)
    for _ in range(20):
        near.send(address, bytes(972))
    await asyncio.sleep(60)
    # 1000 bytes with headers are 0.1 s each, and ten of them wait.
    assert far.times == pytest.approx([0.1 * number for number in range(1, 11)])
    assert network.log.totals() == {"sent": 20, "queue full": 10, "received": 10}


@simulated()
async def test_marks_of_congestion(network):
    near, far, address = two(network, bandwidth=80_000, queue=10_000, mark_above=4_500)
    for _ in range(10):
        near.send(address, bytes(972), ecn=2)
    near.send((far.host.addresses[1], 7), bytes(952), ecn=0, slot=1)
    await asyncio.sleep(60)
    assert [entry[5] for entry in far.received] == [2] * 5 + [3] * 5


@simulated()
async def test_the_largest_packet(network):
    near, far, address = two(network, mtu=1500)
    near.send(address, bytes(1472))
    near.send(address, bytes(1473))
    near.send((far.host.addresses[1], 7), bytes(1452), slot=1)
    near.send((far.host.addresses[1], 7), bytes(1453), slot=1)
    await asyncio.sleep(1)
    assert [len(data) for data in far.data] == [1472, 1452]
    assert network.log.totals()["too large"] == 2


@simulated()
async def test_interfaces_go_down_and_up(network):
    near, far, address = two(network, latency=0.1)
    near.send(address, b"arrives")
    await asyncio.sleep(0.05)
    near.host.up = False
    near.send(address, b"unroutable")
    near.send(address, b"not sent", source=near.host.addresses[0])
    await asyncio.sleep(1)
    near.host.up = True
    near.send(address, b"not received")
    await asyncio.sleep(0.05)
    far.host.up = False
    assert not far.host.up
    await asyncio.sleep(1)
    far.host.up = True
    near.send(address, b"again")
    await asyncio.sleep(1)
    assert far.data == [b"arrives", b"again"]
    assert network.log.totals() == {
        "sent": 5,
        "received": 2,
        "unreachable": 1,
        "interface down": 2,
    }


@simulated()
async def test_nobody_there(network):
    near, far, _ = two(network)
    near.send(("101.9.9.9", 7), b"nobody")
    near.send((far.host.addresses[0], 8), b"closed")
    far.close(0)
    near.send((far.host.addresses[0], 7), b"closed too")
    await asyncio.sleep(1)
    assert far.data == []
    assert network.log.totals() == {"sent": 3, "unreachable": 1, "port closed": 2}


@simulated()
async def test_a_host_reaches_itself(network):
    host = network.host()
    box = Box(host)
    port = box.bind().port
    other = Box(host)
    other.bind("127.0.0.1", 7)
    box.send(("127.0.0.1", 7), b"loopback")
    box.send((host.addresses[0], port), b"own address")
    await asyncio.sleep(1)
    assert other.received == [(0.00001, 0, ("127.0.0.1", port), "127.0.0.1", b"loopback", 0)]
    assert box.data == [b"own address"]


@simulated()
async def test_several_interfaces(network):
    host = network.host("phone", addresses=["101.1.1.1"], link=Link(latency=0.01))
    mobile = host.add_interface("mobile", addresses=["101.2.2.2"], link=Link(latency=0.2))
    far = Box(network.host("far", link=Link(latency=0.0)))
    far.bind(port=7)
    address = (far.host.addresses[0], 7)
    box = Box(host)
    box.bind()
    box.send(address, b"first that is up")
    box.send(address, b"wanted source", source="101.2.2.2")
    host.interfaces["eth0"].up = False
    await asyncio.sleep(1)
    box.send(address, b"the other")
    mobile.uplink = Link(latency=0.5)
    box.send(address, b"the other, slower")
    assert mobile.uplink == Link(latency=0.5) != mobile.downlink
    await asyncio.sleep(1)
    assert [(entry[0], entry[2][0]) for entry in far.received] == [
        (0.01, "101.1.1.1"),
        (0.2, "101.2.2.2"),
        (1.2, "101.2.2.2"),
        (1.5, "101.2.2.2"),
    ]


@simulated()
async def test_addresses_that_a_host_reports(network):
    host = network.host("both")
    host.add_interface("six", ipv4=False)
    assert [(a.interface, a.ip, a.is_loopback) for a in host.local_addresses()] == [
        ("lo", "127.0.0.1", True),
        ("lo", "::1", True),
        ("eth0", "101.0.1.1", False),
        ("eth0", "2a0a:101:0:1::1", False),
        ("six", "2a0a:101:0:2::1", False),
    ]
    host.interfaces["eth0"].up = False
    assert [a.interface for a in host.local_addresses()] == ["lo", "lo", "six"]
    assert network.host(ipv6=False).addresses == ("101.0.3.1",)


@simulated()
async def test_private_segments(network):
    home = network.segment("home")
    hosts = [
        network.host(name, addresses=["192.168.1.1"] if name == "a" else None) for name in "ab"
    ]
    hosts[0].interfaces["eth0"].up = True
    boxes = []
    for number, host in enumerate(hosts):
        host.add_interface("wlan0", addresses=[f"10.0.0.{number + 1}"], segment=home)
        boxes.append(Box(host))
        boxes[-1].bind(port=7)
    boxes[0].send(("10.0.0.2", 7), b"at home", source="10.0.0.1")
    boxes[0].send(("10.0.0.2", 7), b"not on the internet")
    await asyncio.sleep(1)
    assert boxes[1].data == [b"at home"]


@simulated()
async def test_ports(network):
    host = network.host()
    box = Box(host)
    taken = box.bind().port
    assert taken >= 49152
    assert box.bind().port != taken
    assert box.bind("::", taken).port == taken
    for ip in ("0.0.0.0", "127.0.0.1", host.addresses[0]):
        with pytest.raises(OSError) as failure:
            box.bind(ip, taken)
        assert failure.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError) as failure:
        box.bind("101.7.7.7")
    assert failure.value.errno == errno.EADDRNOTAVAIL
    box.close(0)
    assert box.bind(host.addresses[0], taken).port == taken
    assert box.bind("127.0.0.1", taken).port == taken


@simulated()
async def test_an_owner_that_went_away_frees_its_port(network):
    host = network.host()
    port = Box(host).bind().port
    sender = Box(host)
    sender.bind()
    sender.send((host.addresses[0], port), b"?")
    await asyncio.sleep(1)
    assert network.log.totals() == {"sent": 1, "port closed": 1}
    assert Box(host).bind(port=port).port == port


@simulated()
async def test_names_and_addresses_are_unique(network):
    network.host("a", addresses=["101.1.1.1"])
    with pytest.raises(ValueError, match="host a already"):
        network.host("a")
    with pytest.raises(ValueError, match="taken"):
        network.host("b", addresses=["101.1.1.1"])
    with pytest.raises(ValueError, match="interface eth0 already"):
        network.hosts["a"].add_interface("eth0")


@simulated()
async def test_clocks_and_secrets(network):
    host = network.host("a")
    await asyncio.sleep(3)
    assert host.monotonic() == host.engine_clock() == 3.0
    assert host.wall_clock() == 1_767_225_603.0
    assert len(host.secret(32)) == 32
    assert host.secret(32) != host.secret(32)
    again = VirtualNetwork(seed=network.seed)
    other = VirtualNetwork(seed=network.seed + 1)
    assert again.host("a").secret(16) == VirtualNetwork(seed=network.seed).host("a").secret(16)
    assert again.host("b").secret(16) != other.host("b").secret(16)
    assert (
        again.host("c").random.random()
        == VirtualNetwork(seed=network.seed).host("c").random.random()
    )


async def test_a_network_in_real_time():
    network = VirtualNetwork(link=Link(latency=0.01))
    near, far, address = two(network, latency=0.02)
    start = asyncio.get_running_loop().time()
    near.send(address, b"slow")
    while not far.received:
        await asyncio.sleep(0.001)
    assert far.times[0] - start >= 0.0199


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": 1.1},
        {"duplicate": -0.1},
        {"latency": -1.0},
        {"jitter": float("inf")},
        {"bandwidth": 0.0},
        {"queue": 100},
    ],
)
def test_links_that_make_no_sense(wrong):
    with pytest.raises(ValueError):
        Link(**wrong)


def test_a_pipe_without_limits_has_no_backlog():
    pipe = Pipe(Link(latency=0.0), Random(0))
    assert pipe.send(1.0, 1000, 0) == ((1.0,), 0)
    assert pipe.backlog(1.0) == 0
    pipe.link = Link(bandwidth=8000.0)
    pipe.send(1.0, 1000, 0)
    assert (pipe.backlog(1.0), pipe.backlog(1.5), pipe.backlog(3.0)) == (1000, 500, 0)


def test_the_log():
    log = PacketLog(limit=2)
    records = [
        PacketRecord(1.5, ("101.0.0.1", 1), ("2a0a:101::2", 2), 1200, event)
        for event in ("sent", "lost", "received")
    ]
    for record in records:
        log.add(record)
    assert list(log) == records[1:]
    assert (len(log), log.count) == (2, 3)
    assert log.text() == (
        "1.500000000 101.0.0.1:1 > [2a0a:101::2]:2 1200 lost\n"
        "1.500000000 101.0.0.1:1 > [2a0a:101::2]:2 1200 received"
    )
    assert log.totals() == {"lost": 1, "received": 1}
    fingerprint = log.fingerprint()
    assert fingerprint == log.fingerprint()
    log.add(records[0])
    assert fingerprint != log.fingerprint()
