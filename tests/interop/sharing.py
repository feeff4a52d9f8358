"""Blobs between ours and upstream's store, either of the two being the provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aioiroh import Connection, Endpoint, Router, blobs
from aioiroh.blobs import ChunkRanges, ChunkRangesSeq, Hash, MemoryStore, Provider
from meeting import LOOPBACK, address, where

ALPN = blobs.ALPN.decode()
SIZES = (0, 1, 1023, 1024, 1025, 2048, 16383, 16384, 16385, 17408, 32768, 32769, (1 << 20) + 7)
"""Around a chunk (1 KiB) and around a group of chunks (16 KiB), and one that has a larger tree."""

BIG = (1 << 20) + 7
LAST = 2**64 - 1
QUERIES: dict[str, tuple[int, ...]] = {
    "everything": (0,),
    "the first chunk": (0, 1),
    "one chunk": (5, 6),
    "across groups": (15, 17),
    "one group": (16, 32),
    "a part without an end": (1000,),
    "pieces": (0, 1, 3, 7, 15, 18, 500, 501, 1020, 1024),
    "pieces and the rest": (
        2,
        3,
        900,
    ),
    "every other chunk": tuple(range(1, 201)),
    "the last chunk, by number": (1024, 1025),
    "the last chunk, whatever the size": (LAST,),
    "the last two": (1023,),
    "over the end": (1000, 5000),
    "behind the end": (5000, 6000),
    "far behind the end": (2**63,),
    "the first and the last": (0, 1, LAST),
}


def hex_of(hash: Hash) -> str:
    return bytes(hash).hex()


def hash_of(answer: dict[str, Any]) -> Hash:
    """From what the peer says: it writes hashes in hex."""
    return Hash(bytes.fromhex(answer["hash"]))


def one_blob(boundaries: tuple[int, ...]) -> ChunkRangesSeq:
    return ChunkRangesSeq.blob(ChunkRanges(boundaries))


@dataclass
class FromThem:
    """Our connection to an upstream provider."""

    endpoint: Endpoint
    connection: Connection
    peer: Any

    async def they_add(self, size: int) -> Hash:
        """A blob of the test pattern in their store."""
        return hash_of(await self.peer("blob_add", pattern=size))


@asynccontextmanager
async def from_them(blobs_peer: Callable[..., Any], **store: Any) -> AsyncIterator[FromThem]:
    """An upstream provider and our connection to it. `store`: arguments of its request `store`."""
    async with (
        Endpoint.bind(bind=LOOPBACK) as endpoint,
        blobs_peer(alpns={ALPN: "blobs"}) as peer,
    ):
        await peer("store", **store)
        async with endpoint.connect(address(peer), alpn=blobs.ALPN) as connection:
            yield FromThem(endpoint, connection, peer)


@dataclass
class ToThem:
    """An upstream getter with its own store, connected to our provider."""

    endpoint: Endpoint
    store: MemoryStore
    peer: Any
    conn: int

    async def they(self, do: str, hash: Hash, **arguments: Any) -> dict[str, Any]:
        """A request about a blob, over the connection."""
        told: dict[str, Any] = await self.peer(
            f"blob_{do}", conn=self.conn, hash=hex_of(hash), **arguments
        )
        return told


@asynccontextmanager
async def to_them(
    blobs_peer: Callable[..., Any], handler: Any = None, **options: Any
) -> AsyncIterator[ToThem]:
    """Our provider (or `handler` in its place) and an upstream getter. `options` are a provider's."""
    async with (
        MemoryStore() as store,
        Endpoint.bind(bind=LOOPBACK) as endpoint,
        Router(endpoint, {blobs.ALPN: handler or Provider(store, **options)}),
        blobs_peer(alpns={ALPN: "blobs"}) as peer,
    ):
        await peer("store")
        known = await peer("connect", alpn=ALPN, **where(endpoint))
        yield ToThem(endpoint, store, peer, known["conn"])
