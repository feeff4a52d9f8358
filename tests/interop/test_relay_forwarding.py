"""Much data through our relay alone, between all who may meet there."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aioiroh import BiStream, Connection, Endpoint, EndpointAddr, EndpointId, RelayAddr, Router
from relay_server import CERTIFICATE, RelayServer
from remote_peer import RemotePeer

Server = Callable[..., RelayServer]
Peer = Callable[..., RemotePeer]

MIB = 1 << 20
MUCH = 100 * MIB
ALPN = "bench"
PIECE = bytes(256 * 1024)


async def drain(stream: BiStream) -> int:
    total = 0
    while piece := await stream.read(MIB):
        total += len(piece)
    return total


async def pump(stream: BiStream, size: int) -> None:
    for start in range(0, size, len(PIECE)):
        await stream.write(PIECE[: size - start])
    await stream.finish()


async def answer(stream: BiStream) -> None:
    """One request of the protocol that upstream's peer speaks in the role `bench`."""
    if await stream.read_exactly(1) == b"P":
        size = int.from_bytes(await stream.read_exactly(8), "little")
        await pump(stream, size)
    else:
        await stream.write((await drain(stream)).to_bytes(8, "little"))
        await stream.finish()


async def serve(connection: Connection) -> None:
    await connection.serve(answer, limit=4)


@asynccontextmanager
async def ours(relay: RelayServer, **options: Any) -> AsyncIterator[Endpoint]:
    """An endpoint of ours that has nothing but the relay."""
    options = {"bind": (), "relays": [relay.url], "relay_ca": CERTIFICATE, **options}
    async with (
        Endpoint.bind(**options) as endpoint,
        Router(endpoint, {ALPN.encode(): serve}),
        asyncio.timeout(60),
    ):
        await endpoint.online()
        yield endpoint


def at(relay: RelayServer, peer: str) -> dict[str, Any]:
    return {"peer": peer, "addrs": [], "relay": relay.url, "alpn": ALPN}


async def both_ways(peer: RemotePeer, conn: int, size: int) -> None:
    for down in (False, True):
        moved = await peer("bench_bulk", conn=conn, bytes=size, down=down)
        assert moved["bytes"] == size


async def we_move(connection: Connection, size: int) -> None:
    async with connection.open_bi() as stream:
        await stream.write(b"S")
        await pump(stream, size)
        assert await stream.read_exactly(8) == size.to_bytes(8, "little")
    async with connection.open_bi() as stream:
        await stream.write(b"P" + size.to_bytes(8, "little"))
        await stream.finish()
        assert await drain(stream) == size


async def test_two_upstream_peers(our_relay: Server, iroh_peer: Peer) -> None:
    async with our_relay() as relay:
        options = {"addrs": [], "relay": relay.url, "alpns": {ALPN: "bench"}}
        async with iroh_peer(**options) as client, iroh_peer(**options) as server:
            assert client.relay == server.relay == relay.url
            known = await client("connect", **at(relay, server.id))
            await both_ways(client, known["conn"], MUCH)


async def test_upstream_dials_us_and_we_dial_it(our_relay: Server, iroh_peer: Peer) -> None:
    async with (
        our_relay() as relay,
        ours(relay) as endpoint,
        iroh_peer(addrs=[], relay=relay.url, alpns={ALPN: "bench"}) as peer,
    ):
        known = await peer("connect", **at(relay, str(endpoint.id)))
        await both_ways(peer, known["conn"], MUCH)
        there = EndpointAddr(EndpointId.parse(peer.id), [RelayAddr(relay.url)])
        async with endpoint.connect(there, alpn=ALPN.encode(), timeout=20) as connection:
            await we_move(connection, MUCH)
            [path] = connection.paths.value
            assert path.relay == relay.url


async def test_over_https_with_an_authority_of_our_own(our_relay: Server, iroh_peer: Peer) -> None:
    pem = ssl.PEM_HEADER + CERTIFICATE.read_text().partition(ssl.PEM_HEADER)[2]
    authority = ssl.PEM_cert_to_DER_cert(pem.partition(ssl.PEM_FOOTER)[0] + ssl.PEM_FOOTER).hex()
    async with our_relay(tls=True) as relay, ours(relay) as endpoint:
        options = {"addrs": [], "relay": relay.url, "ca": authority, "alpns": {ALPN: "bench"}}
        async with iroh_peer(**options) as peer, iroh_peer(**options) as other:
            for target in (str(endpoint.id), other.id):
                known = await peer("connect", **at(relay, target))
                await both_ways(peer, known["conn"], 10 * MIB)


@pytest.mark.parametrize("tls", [False, True])
async def test_two_of_ours(our_relay: Server, tls: bool) -> None:
    async with our_relay(tls=tls) as relay, ours(relay) as client, ours(relay) as server:
        there = EndpointAddr(server.id, [RelayAddr(relay.url)])
        async with client.connect(there, alpn=ALPN.encode(), timeout=20) as connection:
            await we_move(connection, 20 * MIB)


async def test_the_wheel(our_relay: Server, wheel_peer: Peer) -> None:
    """Where it trusts the relay: it knows public authorities only, so without TLS."""
    async with (
        our_relay() as relay,
        ours(relay) as endpoint,
        wheel_peer(relay=relay.url, alpns={ALPN: "bench"}) as peer,
    ):
        known = await peer("connect", **at(relay, str(endpoint.id)))
        await both_ways(peer, known["conn"], MIB)
        there = EndpointAddr(EndpointId.parse(peer.id), [RelayAddr(relay.url)])
        async with endpoint.connect(there, alpn=ALPN.encode(), timeout=20) as connection:
            await we_move(connection, MIB)
