"""Readers over what is still arriving."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from aioiroh import Endpoint, Router, blobs
from aioiroh.blobs import BlobState, ChunkRanges, ChunkRangesSeq, FileStore, Hash, MemoryStore
from aioiroh.testing import Link, simulated

DATA = Random(1).randbytes(1_000_000)


@pytest.mark.parametrize("kind", ["memory", "files"])
@simulated()
async def test_a_reader_waits_for_what_is_missing(network, kind, tmp_path):
    link = Link(latency=0.01, bandwidth=8_000_000)
    store = MemoryStore() if kind == "memory" else await FileStore.open(tmp_path / "store")
    async with (
        Endpoint.bind(network=network.host("provider", link=link)) as provider,
        Endpoint.bind(network=network.host("getter", link=link)) as getter,
        MemoryStore() as theirs,
        store,
        Router(provider, {blobs.ALPN: blobs.Provider(theirs)}),
    ):
        hash = (await theirs.add_bytes(DATA)).hash
        times: list[float] = []

        async def read() -> None:
            async with store.reader(hash, wait=True) as reader:
                assert reader.size == len(DATA)
                for start in (900_000, 0, 400_000):
                    reader.seek(start)
                    assert await reader.read(50_000) == DATA[start : start + 50_000]
                    times.append(asyncio.get_running_loop().time())
                assert await reader.read_at(0, -1) == DATA

        task = asyncio.create_task(read())
        await asyncio.sleep(1)
        assert not times
        # The end first, which proves the size, then the rest.
        for ranges in (ChunkRanges.bytes(850_000), ChunkRanges.all()):
            await blobs.get(
                getter,
                hash,
                into=store,
                provider=provider.addr,
                ranges=ChunkRangesSeq.blob(ranges),
            )
        await task
        # It went on with each part as it came.
        assert times == sorted(times) and times[0] < times[-1]


@pytest.mark.parametrize("kind", ["memory", "files"])
@simulated()
async def test_a_reader_that_does_not_wait(network, kind, tmp_path):
    store = MemoryStore() if kind == "memory" else await FileStore.open(tmp_path / "store")
    async with (
        Endpoint.bind(network=network.host("provider")) as provider,
        Endpoint.bind(network=network.host("getter")) as getter,
        MemoryStore() as theirs,
        store,
        Router(provider, {blobs.ALPN: blobs.Provider(theirs)}),
    ):
        hash = (await theirs.add_bytes(DATA)).hash
        middle = ChunkRangesSeq.blob(ChunkRanges.bytes(200_000, 300_000))
        await blobs.get(getter, hash, into=store, provider=provider.addr, ranges=middle)
        with pytest.raises(blobs.IncompleteBlobError, match="size"):
            await store.reader(hash).__aenter__()
        end = ChunkRangesSeq.blob(ChunkRanges.last_chunk())
        await blobs.get(getter, hash, into=store, provider=provider.addr, ranges=end)
        assert (await store.status(hash)).state is BlobState.PARTIAL
        async with store.reader(hash) as reader:
            assert await reader.read_at(200_000, 100_000) == DATA[200_000:300_000]
            assert reader.seek(-10, 2) == len(DATA) - 10
            assert await reader.read() == DATA[-10:] and await reader.read() == b""
            with pytest.raises(blobs.IncompleteBlobError):
                await reader.read_at(0, 10)


async def test_a_reader_that_waits_when_the_store_is_closed() -> None:
    store = MemoryStore()
    reader = store.reader(Hash.of(DATA), wait=True)
    task = asyncio.create_task(reader.__aenter__())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await store.aclose()
    with pytest.raises(blobs.NotFoundError):
        await task
