"""Two connected endpoints in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from aioiroh import _native
from aioiroh.net import UdpOptions
from aioiroh.quic import Connection, Driver, TransportConfig
from aioiroh.testing.host import Host
from aioiroh.testing.link import Link
from aioiroh.testing.network import VirtualNetwork

__all__ = ["Pair", "pair"]

ALPN = b"aioiroh/testing"


class Pair(NamedTuple):
    """Both ends of a connection."""

    client: Connection
    server: Connection


@asynccontextmanager
async def pair(
    network: VirtualNetwork | None = None,
    *,
    link: Link | None = None,
    alpn: bytes = ALPN,
    transport: TransportConfig | None = None,
) -> AsyncIterator[Pair]:
    """Two endpoints on hosts of their own, and a connection between them.

    Everything that passes between them passes one `link` in each direction (the network's usual one by
    default). Without `network` a new one is made, in the time of the running loop.
    """
    net = VirtualNetwork() if network is None else network
    link = net.link if link is None else link
    client = net.host(_free_name(net, "client"), link=link)
    server = net.host(_free_name(net, "server"), link=Link(latency=0.0, mtu=65_535))
    async with AsyncExitStack() as stack:
        listening = _drive(server, [alpn], transport)
        stack.push_async_callback(listening.aclose)
        dialling = _drive(client, [], transport)
        stack.push_async_callback(dialling.aclose)
        address = (server.addresses[0], 7)
        near = dialling.connect(address, listening.engine.public_key(), [alpn])
        incoming = await listening.accept()
        far = incoming.accept()
        await near.handshake_completed()
        await far.handshake_completed()
        yield Pair(near, far)


def _free_name(network: VirtualNetwork, base: str) -> str:
    names = (base, *(f"{base}{number}" for number in range(2, len(network.hosts) + 2)))
    return next(name for name in names if name not in network.hosts)


def _drive(host: Host, alpns: list[bytes], transport: TransportConfig | None) -> Driver:
    engine = _native.Engine(
        host.secret(32),
        alpns=alpns,
        transport=None if transport is None else transport.native(),
        clock=host.engine_clock,
        seed=host.secret(32),
    )
    driver = Driver(engine, virtual=True)
    host.bind_udp(driver, ("0.0.0.0", 7), UdpOptions())
    return driver
