"""Providers on a connection on loopback, real ones and made-up ones, for tests of blobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from aioiroh import blobs
from aioiroh.blobs import BlobFormat, Collection, Hash, Provider
from aioiroh.quic import BiStream, Connection

Pairs = Callable[..., AbstractAsyncContextManager[Any]]


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


FILES = {
    "a.txt": b"hello",
    "dir/b.bin": pattern(20_000),
    "empty": b"",
    "big": pattern(700_001),
    "same": pattern(20_000),
    "also empty": b"",
}


@asynccontextmanager
async def serving(
    quic_pair: Pairs, provider: Provider | Callable[[BiStream], Any]
) -> AsyncIterator[Connection]:
    """The getter's end of a connection to a provider, or to a handler of single streams."""
    async with quic_pair() as pair:
        if isinstance(provider, Provider):
            task = asyncio.create_task(provider.accept(pair.server))
        else:
            task = asyncio.create_task(pair.server.serve(provider))
        try:
            yield pair.client
        finally:
            pair.client.close()
            await task


async def ask(connection: Connection, request: bytes) -> bytes:
    async with connection.open_bi() as stream:
        await stream.write(request)
        await stream.finish()
        return await stream.read_all(limit=1 << 24)


async def add_collection(store: blobs.Store, files: dict[str, bytes]) -> Hash:
    entries = [(name, (await store.add_bytes(data)).hash) for name, data in files.items()]
    sequence, metadata = Collection(entries).to_parts()
    await store.add_bytes(metadata)
    return (await store.add_bytes(bytes(sequence), BlobFormat.HASH_SEQ)).hash


def answering(answer: bytes, *, reset: int | None = None) -> Callable[[BiStream], Any]:
    async def handler(stream: BiStream) -> None:
        await stream.read_all(limit=1 << 21)
        await stream.write(answer)
        if reset is not None:
            await asyncio.sleep(0.05)
            stream.send.reset(reset)

    return handler
