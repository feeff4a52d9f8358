"""Downloads in real time, from providers on loopback into each kind of store."""

from __future__ import annotations

import asyncio
import errno
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from blob_serving import pattern

from aioiroh import Endpoint, Router, blobs, sync
from aioiroh.blobs import (
    ChunkRanges,
    ChunkRangesSeq,
    Downloader,
    FileStore,
    Hash,
    MemoryStore,
    Provider,
)

LOOPBACK = ("127.0.0.1", 0)


@asynccontextmanager
async def providers(count: int, *contents: bytes) -> AsyncIterator[list[Any]]:
    """Addresses of providers that have these blobs."""
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(count):
            store = await stack.enter_async_context(MemoryStore())
            for data in contents:
                await store.add_bytes(data)
            endpoint = await stack.enter_async_context(Endpoint.bind(bind=LOOPBACK))
            await stack.enter_async_context(Router(endpoint, {blobs.ALPN: Provider(store)}))
            found.append(endpoint.addr)
        yield found


@asynccontextmanager
async def downloader(store: blobs.Store, **options: Any) -> AsyncIterator[Downloader]:
    async with (
        Endpoint.bind(bind=LOOPBACK) as endpoint,
        Downloader(endpoint, store, **options) as made,
    ):
        yield made


@pytest.mark.loops
@pytest.mark.parametrize("kind", ["memory", "files"])
async def test_large_and_small_from_three(kind: str, tmp_path: Path) -> None:
    large = pattern(20_000_000)
    small = [bytes([n % 256]) * (n + 1) for n in range(400)]
    async with AsyncExitStack() as stack:
        addrs = await stack.enter_async_context(providers(3, large, *small))
        store: blobs.Store
        if kind == "memory":
            store = await stack.enter_async_context(MemoryStore())
        else:
            store = await stack.enter_async_context(await FileStore.open(tmp_path / "store"))
        get = await stack.enter_async_context(downloader(store))
        hashes = [Hash.of(data) for data in (large, *small)]
        sequence = bytes(blobs.HashSeq(hashes))
        root = await store.add_bytes(sequence, blobs.BlobFormat.HASH_SEQ)
        content = blobs.HashAndFormat(root.hash, blobs.BlobFormat.HASH_SEQ)
        seen = []
        download = get.download(content, providers=addrs)
        async for progress in download:
            seen.append(progress.bytes)
        got = await download
        assert seen == sorted(seen)
        total = len(large) + sum(map(len, small))
        assert total <= got.received < 1.5 * total
        assert download.progress.total == download.progress.bytes == total + len(sequence)
        for hash, data in zip(hashes, (large, *small), strict=True):
            assert await store.read_bytes(hash, limit=len(data)) == data
        assert len([p for p in download.progress.providers if p.received]) > 1


async def test_parts_of_a_blob() -> None:
    large, small = pattern(20_000_000), pattern(3_000)
    chunks = ChunkRanges.bytes
    async with (
        providers(2, large, small) as addrs,
        MemoryStore() as store,
        downloader(store) as get,
    ):
        wanted = chunks(1_000_000, 4_000_000) | chunks(12_345_678, 12_345_679)
        download = get.download(Hash.of(large), providers=addrs, ranges=ChunkRangesSeq.blob(wanted))
        got = await download
        size = wanted.byte_count(len(large))
        # The last chunk proves the size.
        assert size <= got.received < size + 200_000
        assert (download.progress.bytes, download.progress.total) == (size, size)
        assert (download.progress.blobs, download.progress.total_blobs) == (1, 1)
        status = await store.status(Hash.of(large))
        assert wanted <= status.present and not status.is_complete
        handle = await store.handle(Hash.of(large))
        assert handle is not None and handle.read(2_000_000, 1000) == large[2_000_000:][:1000]
        # Nothing is asked for twice, and what lies behind the end is nothing.
        again = get.download(Hash.of(large), ranges=ChunkRangesSeq.blob(wanted))
        assert (await again).received == 0
        beyond = ChunkRangesSeq.blob(chunks(1_000_000, 2_000_000))
        await get.download(Hash.of(small), providers=addrs, ranges=beyond)
        assert (await store.status(Hash.of(small))).size_verified


async def test_parts_of_a_sequence() -> None:
    data = [pattern(size) for size in (5_000_000, 10, 2_000_000, 20, 3_000_000)]
    hashes = [Hash.of(one) for one in data]
    sequence = bytes(blobs.HashSeq((*hashes, hashes[0])))
    content = blobs.HashAndFormat(Hash.of(sequence), blobs.BlobFormat.HASH_SEQ)
    nothing, everything = ChunkRanges.empty(), ChunkRanges.all()
    # Of the first one, which comes again at the end, a part at each place; the third one whole.
    head, tail = ChunkRanges.bytes(0, 1_000_000), ChunkRanges.bytes(4_000_000, 4_500_000)
    ranges = ChunkRangesSeq.from_sets((nothing, head, nothing, everything, nothing, nothing, tail))
    async with (
        providers(2, sequence, *data) as addrs,
        MemoryStore() as store,
        downloader(store) as get,
    ):
        download = get.download(content, providers=addrs, ranges=ranges)
        await download
        statuses = await store.statuses(hashes)
        assert [status.is_complete for status in statuses] == [False, False, True, False, False]
        assert head | tail <= statuses[0].present
        assert [status.size for status in statuses if not status.present] == [None] * 3
        total = (head | tail).byte_count(5_000_000) + 2_000_000 + len(sequence)
        assert (download.progress.bytes, download.progress.total) == (total, total)
        assert (download.progress.blobs, download.progress.total_blobs) == (3, 3)
        await get.download(content, providers=addrs)
        assert all(status.is_complete for status in await store.statuses(hashes))


async def test_a_full_disk_ends_the_download_with_the_systems_error(tmp_path: Path) -> None:
    data = pattern(5_000_000)
    async with (
        providers(2, data) as addrs,
        await FileStore.open(tmp_path / "store") as store,
        downloader(store) as get,
    ):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
        try:
            with pytest.raises(OSError) as failed:
                await get.download(Hash.of(data), providers=addrs)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert failed.value.errno == errno.EFBIG
        assert not isinstance(failed.value, blobs.DownloadError)
        # And it can go on when there is room.
        await get.download(Hash.of(data), providers=addrs)
        assert await store.read_bytes(Hash.of(data), limit=len(data)) == data


async def test_two_downloads_of_the_same(tmp_path: Path) -> None:
    data = pattern(9_000_000)
    async with (
        providers(2, data) as addrs,
        await FileStore.open(tmp_path / "store") as store,
        downloader(store) as get,
    ):
        one, two = (get.download(Hash.of(data), providers=addrs) for _ in range(2))
        await asyncio.gather(one, two)
        assert await store.read_bytes(Hash.of(data), limit=len(data)) == data


class Forgetful(MemoryStore):
    """Keeps nothing that arrives."""

    async def writers(self, hashes: Any, *, max_size: int) -> Any:
        writers = await super().writers(hashes, max_size=max_size)
        for hash in hashes:
            self._entries.pop(hash, None)
        return writers


async def test_a_store_that_keeps_nothing_is_an_error() -> None:
    data = pattern(3_000)
    retries = blobs.Retries(tries=2, first_delay=0.01, patience=2)
    async with (
        providers(1, data) as addrs,
        Forgetful() as store,
        downloader(store, retries=retries) as get,
    ):
        with pytest.raises(blobs.DownloadError):
            await get.download(Hash.of(data), providers=addrs)


async def test_an_endpoint_that_closes_ends_its_downloads() -> None:
    data = pattern(30_000_000)
    async with providers(1, data) as addrs, MemoryStore() as store:
        endpoint = await Endpoint.bind(bind=LOOPBACK)
        async with Downloader(endpoint, store) as get:
            download = get.download(Hash.of(data), providers=addrs)
            async for progress in download:
                if progress.bytes:
                    break
            await endpoint.close()
            with pytest.raises(ConnectionError):
                await download


def test_a_program_that_blocks() -> None:
    data = pattern(3_000_000)
    with (
        sync.blobs.MemoryStore() as source,
        sync.blobs.MemoryStore() as store,
        sync.serve({blobs.ALPN: sync.blobs.Provider(source)}) as router,
        sync.Endpoint.bind(bind=LOOPBACK) as endpoint,
        sync.blobs.Downloader(endpoint, store) as downloader,
    ):
        hash = source.add_bytes(data).hash
        download = downloader.download(hash, providers=[router.endpoint.addr])
        assert [progress.bytes for progress in download][-1] == len(data)
        assert download.result().received >= len(data)
        assert store.read_bytes(hash, limit=len(data)) == data
