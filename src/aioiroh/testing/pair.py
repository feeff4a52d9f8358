"""Two connected endpoints in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aioiroh.endpoint import Endpoint
from aioiroh.quic import Connection, TransportConfig
from aioiroh.testing.link import Link
from aioiroh.testing.network import VirtualNetwork

__all__ = ["Pair", "pair"]

ALPN = b"aioiroh/testing"
NO_LINK = Link(latency=0.0, mtu=65_535)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two endpoints and both ends of a connection between them; unpacks into the two ends."""

    client: Connection
    """The end of the endpoint that dialled."""
    server: Connection
    client_endpoint: Endpoint
    server_endpoint: Endpoint
    network: VirtualNetwork

    def __iter__(self) -> Iterator[Connection]:
        return iter((self.client, self.server))


@asynccontextmanager
async def pair(
    network: VirtualNetwork | None = None,
    *,
    link: Link | None = None,
    alpn: bytes = ALPN,
    transport: TransportConfig | None = None,
) -> AsyncIterator[Pair]:
    """Two endpoints on hosts of their own, `client` and `server`, and a connection between them.

    What passes between them passes one `link` in each direction (by default the one that the network
    gives to hosts). `transport` holds for both. Without `network` a new one is made, in the time of
    the running loop. Leaving the block closes both endpoints. Raises ConnectError if the link is so bad
    that no connection comes about.
    """
    net = VirtualNetwork() if network is None else network
    client_host = net.host(_free_name(net, "client"), link=link)
    server_host = net.host(_free_name(net, "server"), link=NO_LINK)
    async with (
        Endpoint.bind(network=server_host, alpns=[alpn], transport=transport) as server_endpoint,
        Endpoint.bind(network=client_host, transport=transport) as client_endpoint,
    ):
        accepting = asyncio.ensure_future(_accept(server_endpoint))
        try:
            client = await client_endpoint.connect(server_endpoint.addr, alpn=alpn)
            server = await accepting
        finally:
            accepting.cancel()
        yield Pair(client, server, client_endpoint, server_endpoint, net)


async def _accept(endpoint: Endpoint) -> Connection:
    return await (await endpoint.accept()).accept()


def _free_name(network: VirtualNetwork, base: str) -> str:
    names = (base, *(f"{base}{number}" for number in range(2, len(network.hosts) + 2)))
    return next(name for name in names if name not in network.hosts)
