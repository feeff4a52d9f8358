"""Our end of the measurements with blobs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from aioiroh import EndpointAddr, IpAddr
from aioiroh.blobs import (
    BlobFormat,
    BlobTicket,
    ChunkRanges,
    ChunkRangesSeq,
    Downloader,
    FileStore,
    Hash,
    HashAndFormat,
    HashSeq,
    MemoryStore,
    Provider,
    get,
    get_bytes,
)
from benchmarks.our_streams import OurStreams, Request, spread


class OurBlobs(OurStreams):
    """One store and what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.store: FileStore | MemoryStore | None = None

    def handler(self, role: str) -> Any:
        if role != "blobs":
            return super().handler(role)
        assert self.store is not None
        return Provider(self.store)

    async def do_store(self, request: Request) -> dict[str, Any]:
        """A store at `path`, else in memory."""
        path = request.get("path")
        self.store = MemoryStore() if path is None else await FileStore.open(path)
        return {}

    async def do_blob_add(self, request: Request) -> dict[str, Any]:
        assert self.store is not None
        started = time.perf_counter()
        added = await self.store.add_file(Path(request["path"]))
        seconds = time.perf_counter() - started
        self.store.tags.set(b"source", HashAndFormat(added.hash))
        return {"hash": str(added.hash), "seconds": seconds}

    async def do_bench_small_blobs(self, request: Request) -> dict[str, Any]:
        """`count` different blobs of `size` bytes, and the hash sequence of all of them."""
        assert self.store is not None
        size = request["size"]
        added = await self.store.add_many(
            (index.to_bytes(8, "little") * (size // 8 + 1))[:size]
            for index in range(request["count"])
        )
        sequence = HashSeq([blob.hash for blob in added])
        root = await self.store.add_bytes(bytes(sequence), BlobFormat.HASH_SEQ)
        self.store.tags.set(b"small", HashAndFormat(root.hash, BlobFormat.HASH_SEQ))
        return {"hash": str(root.hash), "first": str(added[0].hash)}

    async def do_blob_ticket(self, request: Request) -> dict[str, Any]:
        assert self.endpoint is not None
        slot = self.endpoint.bound_sockets[0]
        addr = EndpointAddr(self.endpoint.id, [IpAddr.from_pair((slot.host, slot.port))])
        format = BlobFormat.HASH_SEQ if request.get("hash_seq") else BlobFormat.RAW
        return {"ticket": str(BlobTicket(addr, Hash.parse(request["hash"]), format))}

    async def do_blob_fetch(self, request: Request) -> dict[str, Any]:
        """Everything that a ticket names, or the bytes in `ranges` (pairs) of one blob."""
        assert self.endpoint is not None and self.store is not None
        ranges = None
        if "ranges" in request:
            wanted = ChunkRanges.empty()
            for start, end in request["ranges"]:
                wanted |= ChunkRanges.bytes(start, end)
            ranges = ChunkRangesSeq.blob(wanted)
        started = time.perf_counter()
        got = await get(self.endpoint, request["ticket"], into=self.store, ranges=ranges)
        return {"seconds": time.perf_counter() - started, "bytes": got.received}

    async def do_blob_download(self, request: Request) -> dict[str, Any]:
        """A blob from all providers of `tickets` at once."""
        assert self.endpoint is not None and self.store is not None
        tickets = [BlobTicket.parse(text) for text in request["tickets"]]
        started = time.perf_counter()
        async with Downloader(self.endpoint, self.store) as downloader:
            await downloader.download(
                tickets[0].content, providers=[ticket.addr for ticket in tickets]
            )
        return {"seconds": time.perf_counter() - started}

    async def do_bench_gets(self, request: Request) -> dict[str, Any]:
        """One blob again and again over one connection; it is verified, and kept in memory."""
        connection, hash = self.conns[request["conn"]], Hash.parse(request["hash"])

        async def one() -> None:
            await get_bytes(connection, hash, limit=1 << 20)

        return {"seconds": await spread(request["count"], request["in_flight"], one)}
