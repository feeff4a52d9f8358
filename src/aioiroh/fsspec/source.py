"""An endpoint, its connections, and what is kept of what they bring."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from aioiroh.blobs import (
    ALPN,
    ChunkRanges,
    ChunkRangesSeq,
    FileStore,
    Hash,
    HashAndFormat,
    MemoryStore,
    Store,
    get,
    get_size,
    get_sizes,
    load_collection,
)
from aioiroh.endpoint import Endpoint
from aioiroh.errors import ConnectionLostError
from aioiroh.pool import ConnectionPool

from .tree import Tree

if TYPE_CHECKING:
    from aioiroh.address import EndpointAddr
    from aioiroh.quic import Connection

__all__ = ["Source"]

T = TypeVar("T")


class Source:
    """Sizes, listings and ranges of content, from endpoints that provide it.

    Everything is opened at the first use and belongs to the loop that used it first.
    """

    def __init__(
        self, endpoint: dict[str, Any], store: str | os.PathLike[str] | Store | None
    ) -> None:
        """`endpoint`: options of `Endpoint.bind`. `store`: keeps what is fetched; None: nobody does.

        A store that is given open stays open.
        """
        self._endpoint_options = endpoint
        self._store_option = store
        self._opening = asyncio.Lock()
        self._opened: AsyncExitStack | None = None
        self._pool: ConnectionPool
        self._store: Store | None
        self.received = 0
        """Payload bytes that came over the network."""

    async def size(self, hash: Hash, provider: EndpointAddr) -> int:
        """The proved size of a blob in bytes."""
        await self._open()
        if self._store is not None:
            status = await self._store.status(hash)
            if status.size_verified and status.size is not None:
                return status.size
        return await self._ask(provider, lambda connection: get_size(connection, hash))

    async def tree(self, content: HashAndFormat, provider: EndpointAddr) -> Tree:
        """The names, hashes and proved sizes in a collection."""
        async with self._keeping() as store:
            # The hash sequence and the blob with the names; of the files nothing.
            ranges = ChunkRangesSeq([(0, ChunkRanges.all()), (2, ChunkRanges.empty())])
            await self._get(content, provider, ranges, store)
            collection = await load_collection(store, content.hash)
            statuses = await store.statuses(collection.hashes)
        sizes: Sequence[int] = [
            status.size for status in statuses if status.size_verified and status.size is not None
        ]
        if len(sizes) < len(collection):
            found = await self._ask(
                provider, lambda connection: get_sizes(connection, content.hash)
            )
            sizes = found.sizes[1:]
        return Tree(collection, sizes)

    async def read(
        self, hash: Hash, size: int, provider: EndpointAddr, start: int, end: int
    ) -> bytes:
        """Bytes `start` to `end` of a blob of `size` bytes; only what is not kept is fetched."""
        if start >= end:
            return b""
        # The last chunk proves the size, which readers of a store insist on.
        wanted = ChunkRanges.bytes(start, end) | ChunkRanges.bytes(size - 1, size)
        async with self._keeping() as store:
            status = await store.status(hash)
            if not wanted <= status.present:
                await self._get(HashAndFormat(hash), provider, ChunkRangesSeq.blob(wanted), store)
            async with store.reader(hash) as reader:
                return await reader.read_at(start, end - start)

    async def close(self) -> None:
        """Closes what was opened here. The next use opens it again."""
        async with self._opening:
            opened, self._opened = self._opened, None
            if opened is not None:
                await opened.aclose()

    # --- the work

    async def _open(self) -> None:
        async with self._opening:
            if self._opened is not None:
                return
            async with AsyncExitStack() as stack:
                store = self._store_option
                if isinstance(store, (str, os.PathLike)):
                    store = await stack.enter_async_context(await FileStore.open(store))
                self._store = store
                endpoint = await stack.enter_async_context(Endpoint.bind(**self._endpoint_options))
                self._pool = await stack.enter_async_context(ConnectionPool(endpoint))
                self._opened = stack.pop_all()

    @asynccontextmanager
    async def _keeping(self) -> AsyncIterator[Store]:
        """The store, or one that is forgotten at the end of the block."""
        await self._open()
        if self._store is not None:
            yield self._store
            return
        async with MemoryStore() as store:
            yield store

    async def _get(
        self, content: HashAndFormat, provider: EndpointAddr, ranges: ChunkRangesSeq, store: Store
    ) -> None:
        got = await self._ask(
            provider, lambda connection: get(connection, content, into=store, ranges=ranges)
        )
        self.received += got.received

    async def _ask(self, provider: EndpointAddr, ask: Callable[[Connection], Awaitable[T]]) -> T:
        """Asks on a shared connection; a second time if the first one was lost meanwhile."""
        try:
            async with self._pool.connection(provider, ALPN) as connection:
                return await ask(connection)
        except ConnectionLostError:
            async with self._pool.connection(provider, ALPN) as connection:
                return await ask(connection)
