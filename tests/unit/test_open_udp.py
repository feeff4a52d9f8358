"""UDP sockets that belong to no engine, and the router of the local network."""

from __future__ import annotations

import asyncio
import errno
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.net import Network, SystemNetwork
from aioiroh.net.gateway import gateway_in
from aioiroh.testing import VirtualNetwork, simulated

HEAD = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"


class Collector(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.got: asyncio.Queue[tuple[bytes, tuple[str, int]]] = asyncio.Queue()
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.got.put_nowait((data, addr))

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


async def talk(network: Network, other: Network, ip: str, other_ip: str) -> None:
    """Both ways, until one of them is closed."""
    server = await network.open_udp(Collector, ip, 0)
    place = server.transport.get_extra_info("sockname")
    client = await other.open_udp(Collector, other_ip, 0)
    client.transport.sendto(b"question", place)
    data, source = await server.got.get()
    assert data == b"question"
    server.transport.sendto(b"answer", source)
    assert await client.got.get() == (b"answer", place)
    with pytest.raises(OSError) as taken:
        await network.open_udp(Collector, *place)
    assert taken.value.errno == errno.EADDRINUSE
    server.transport.close()
    await server.ended.wait()
    again = await network.open_udp(Collector, *place)
    again.transport.close()
    client.transport.close()
    await asyncio.gather(again.ended.wait(), client.ended.wait())


@pytest.mark.loops
async def test_system() -> None:
    network = SystemNetwork()
    await talk(network, network, "127.0.0.1", "127.0.0.1")


@simulated()
async def test_virtual(network: VirtualNetwork) -> None:
    one, other = network.host("one", ipv6=False), network.host("other", ipv6=False)
    assert one.gateway() is None
    await talk(one, other, one.addresses[0], "0.0.0.0")


@pytest.mark.skipif(
    sys.byteorder != "little", reason="platform: the table is in the order of bytes"
)
def test_gateway() -> None:
    home = "eth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0\n"
    other = "eth1 00000000 0102A8C0 0003 0 0 50 00000000 0 0 0\n"
    inner = "eth0 0001A8C0 0101A8C0 0003 0 0 0 00FFFFFF 0 0 0\n"
    direct = "eth0 00000000 00000000 0001 0 0 0 00000000 0 0 0\n"
    assert gateway_in(HEAD) is None
    assert gateway_in(HEAD + inner + direct) is None
    assert gateway_in(HEAD + inner + home) == "192.168.1.1"
    assert gateway_in(HEAD + home + other + home) == "192.168.2.1"


@given(st.text(max_size=300))
def test_no_table_is_too_strange(text: str) -> None:
    gateway_in(HEAD + text)
