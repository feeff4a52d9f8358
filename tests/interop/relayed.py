"""Endpoints of ours at a relay: what the tests with relays have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aioiroh import (
    BiStream,
    Connection,
    Endpoint,
    EndpointAddr,
    EndpointId,
    RelayAddr,
    RelayState,
    Router,
)
from aioiroh.aio import Pending
from relay_server import CERTIFICATE, RelayServer

ALPN = b"echo"
NOWHERE = "127.0.0.1:0"

Server = Callable[..., RelayServer]


async def echo(stream: BiStream) -> None:
    await stream.write(await stream.read_all(limit=1 << 24))
    await stream.finish()


async def serve(connection: Connection) -> None:
    await connection.serve(echo, limit=10)


@asynccontextmanager
async def at(relay: RelayServer, **options: Any) -> AsyncIterator[Endpoint]:
    """An endpoint at the relay."""
    options = {"bind": NOWHERE, "relays": [relay.url], "relay_ca": CERTIFICATE, **options}
    async with Endpoint.bind(**options) as endpoint:
        async with asyncio.timeout(20):
            await endpoint.online()
        yield endpoint


def echoing(endpoint: Endpoint) -> Router:
    return Router(endpoint, {ALPN: serve})


def behind(relay: RelayServer, id: EndpointId) -> EndpointAddr:
    """The peer where only the relay is known."""
    return EndpointAddr(id, [RelayAddr(relay.url)])


async def refused(bound: Pending[Endpoint]) -> str:
    """Why the home relay cannot be used."""
    async with bound as endpoint, asyncio.timeout(20):
        status = await endpoint.watch_home_relay.wait_for(
            lambda status: status and status.state is RelayState.DISCONNECTED
        )
        assert status is not None and status.problem is not None
        return status.problem


async def exchange(connection: Connection, size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    async with connection.open_bi() as stream:
        await stream.write(data)
        await stream.finish()
        assert await stream.read_all(limit=1 << 24) == data


@asynccontextmanager
async def two(
    relay: RelayServer, **options: Any
) -> AsyncIterator[tuple[Endpoint, Endpoint, Connection]]:
    """Two endpoints at the relay, and a connection from the first to the second, which echoes."""
    async with (
        at(relay, **options) as client,
        at(relay, **options) as server,
        echoing(server),
        client.connect(behind(relay, server.id), alpn=ALPN, timeout=20) as connection,
    ):
        yield client, server, connection
