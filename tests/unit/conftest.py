"""Two engines on loopback, for the tests of rooms that need a connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from aioiroh import _native
from aioiroh.net import UdpOptions, UdpSlot
from aioiroh.quic import Connection, Driver, TransportConfig

CLIENT_SECRET, SERVER_SECRET = b"\1" * 32, b"\2" * 32
ALPN = b"test/1"


@dataclass
class Node:
    """An engine with one socket on loopback."""

    driver: Driver
    slot: UdpSlot
    id: bytes

    @property
    def address(self) -> tuple[str, int]:
        return self.slot.host, self.slot.port


@dataclass
class Pair:
    """Two ends of one connection, and the engines they live in."""

    client: Connection
    server: Connection
    client_node: Node
    server_node: Node

    async def connect(self, **options: Any) -> tuple[Connection, Connection]:
        """Another connection between the two."""
        return await connect(self.client_node, self.server_node, **options)


def open_node(secret: bytes, transport: TransportConfig | None = None, **options: Any) -> Node:
    options.setdefault("alpns", [ALPN])
    engine = _native.Engine(
        secret, transport=None if transport is None else transport.native(), **options
    )
    driver = Driver(engine)
    return Node(driver, driver.add_udp("127.0.0.1", 0, UdpOptions()), _native.public_key(secret))


async def connect(client: Node, server: Node, **options: Any) -> tuple[Connection, Connection]:
    dialled = client.driver.connect(server.address, server.id, [ALPN], **options)
    accepted = (await server.driver.accept()).accept()
    await accepted.handshake_completed()
    await dialled.handshake_completed()
    return dialled, accepted


@asynccontextmanager
async def _pair(
    transport: TransportConfig | None = None, server_transport: TransportConfig | None = None
) -> AsyncIterator[Pair]:
    server = open_node(SERVER_SECRET, server_transport)
    client = open_node(CLIENT_SECRET, transport)
    try:
        dialled, accepted = await connect(client, server)
        yield Pair(dialled, accepted, client, server)
    finally:
        await client.driver.aclose(timeout=0)
        await server.driver.aclose(timeout=0)


@pytest.fixture
def quic_pair() -> Callable[..., AbstractAsyncContextManager[Pair]]:
    """`async with quic_pair(transport, server_transport) as pair`: a connection on loopback."""
    return _pair


@pytest.fixture
def quic_node() -> Callable[..., Node]:
    """`quic_node(secret, transport, alpns=...)`: one engine; close its driver at the end."""
    return open_node


@pytest.fixture
def quic_connect() -> Callable[..., Any]:
    """`await quic_connect(client, server, transport=..., early_data=...)`: both ends."""
    return connect
