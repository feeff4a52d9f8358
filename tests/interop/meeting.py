"""Both ends of a connection in one hand: ours as objects, the upstream peer's by requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aioiroh import Connection, Endpoint, EndpointAddr, EndpointId, IpAddr, TransportConfig
from aioiroh.quic import RecvStream

ALPN = b"interop/1"
LOOPBACK = "127.0.0.1:0"
CYCLE = bytes(range(251))


def pattern(length: int, start: int = 0) -> bytes:
    """`length` bytes of the peers' test pattern: byte `i` is `i mod 251`."""
    skip = start % 251
    return (CYCLE * ((skip + length) // 251 + 1))[skip : skip + length]


async def read_pattern(stream: RecvStream, on_bytes: Callable[[int], object] = int) -> int:
    """Reads to the end and checks every byte; how many there were."""
    total = 0
    while data := await stream.read(1 << 18):
        assert data == pattern(len(data), total), f"wrong bytes after {total}"
        total += len(data)
        on_bytes(total)
    return total


def where(endpoint: Endpoint) -> dict[str, Any]:
    """What an upstream peer's `connect` needs to know of our endpoint."""
    addrs = [IpAddr.from_pair((slot.host, slot.port)).text for slot in endpoint.bound_sockets]
    return {"peer": bytes(endpoint.id).hex(), "addrs": addrs}


def address(peer: Any, more: Iterable[str] = ()) -> EndpointAddr:
    """What our `connect` needs to know of an upstream peer."""
    addrs = map(IpAddr.parse, [*more, *peer.addrs])
    return EndpointAddr(EndpointId(bytes.fromhex(peer.id)), addrs)


@dataclass
class Link:
    """One connection, and who is at its ends."""

    endpoint: Endpoint
    ours: Connection
    peer: Any
    conn: int | None

    async def theirs(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Asks the peer something about its end of the connection."""
        answer: dict[str, Any] = await self.peer(do, conn=self.conn, **arguments)
        return answer

    async def they_open(self, *, uni: bool = False) -> int:
        """A stream that the peer opens; its number there."""
        stream: int = (await self.theirs("open", uni=uni))["stream"]
        return stream

    async def they_accept(self, *, uni: bool = False) -> int:
        """The next stream that we opened, as the peer's number."""
        stream: int = (await self.theirs("accept_stream", uni=uni))["stream"]
        return stream


async def join(we_dial: bool, endpoint: Endpoint, peer: Any, **options: Any) -> Link:
    """A connection between the two. `options` go to the `connect` of ours, if we dial."""
    if we_dial:
        ours = await endpoint.connect(address(peer), alpn=ALPN, **options)
        # A peer that serves the protocol itself does not hand the connection out.
        known = await peer("accept") if peer.alpns[ALPN.decode()] == "queue" else {"conn": None}
    else:
        dialling = asyncio.create_task(peer("connect", alpn=ALPN.decode(), **where(endpoint)))
        ours = await (await endpoint.accept())
        known = await dialling
    return Link(endpoint, ours, peer, known["conn"])


Meet = Callable[..., AbstractAsyncContextManager[Link]]
"""`meet(make_peer, transport=None, transport_of_peer=None, **bind)`; see `meeting`."""


def meeting(we_dial: bool) -> Meet:
    """Makes connections with fresh peers; who dials is fixed."""

    @asynccontextmanager
    async def meet(
        make_peer: Callable[..., Any],
        *,
        transport: TransportConfig | None = None,
        transport_of_peer: dict[str, Any] | None = None,
        **bind: Any,
    ) -> AsyncIterator[Link]:
        bind.setdefault("alpns", {ALPN.decode(): "queue"})
        if transport_of_peer is not None:
            bind["transport"] = transport_of_peer
        async with (
            Endpoint.bind(bind=LOOPBACK, alpns=[ALPN], transport=transport) as endpoint,
            make_peer(**bind) as peer,
        ):
            link = await join(we_dial, endpoint, peer)
            async with link.ours:
                yield link

    return meet
