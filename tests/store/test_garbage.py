"""Garbage collection while everything else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from aioiroh import Endpoint, Router, blobs
from aioiroh.blobs import (
    BlobFormat,
    FileStore,
    Hash,
    HashAndFormat,
    HashSeq,
    ImportMode,
    MemoryStore,
)
from aioiroh.testing import Link, simulated


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[FileStore | MemoryStore]:
    if kind == "memory":
        async with MemoryStore() as memory:
            yield memory
    else:
        async with await FileStore.open(folder / "store") as files:
            yield files


@asynccontextmanager
async def collecting(store: FileStore | MemoryStore) -> AsyncIterator[list[int]]:
    """Within, garbage is collected all the time; gives how much each time."""
    collected: list[int] = []

    async def collect() -> None:
        while True:
            collected.append(await store.collect_garbage())
            await asyncio.sleep(0.001)

    task = asyncio.create_task(collect())
    try:
        yield collected
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("kind", ["memory", "files"])
@simulated()
async def test_what_is_being_received_is_spared(network, kind, tmp_path):
    random = Random(1)
    data = [random.randbytes(random.choice([10, 5000, 40_000, 200_000])) for _ in range(60)]
    link = Link(latency=0.01, bandwidth=10_000_000)
    async with (
        Endpoint.bind(network=network.host("provider", link=link)) as provider,
        Endpoint.bind(network=network.host("getter", link=link)) as getter,
        MemoryStore() as theirs,
        opened(kind, tmp_path) as ours,
        Router(provider, {blobs.ALPN: blobs.Provider(theirs)}),
    ):
        children = await theirs.add_many(data)
        sequence = bytes(HashSeq(child.hash for child in children))
        root = await theirs.add_bytes(sequence, BlobFormat.HASH_SEQ)
        # Some of it is here already, and held by nothing.
        for added in await ours.add_many(data[:20]):
            added.tag.release()
        content = HashAndFormat(root.hash, BlobFormat.HASH_SEQ)
        async with collecting(ours) as collected:
            await asyncio.sleep(0.005)
            assert collected.pop(0) == 20
            with ours.hold(content):
                got = await blobs.get(getter, content, into=ours, provider=provider.addr)
                assert got.received == len(sequence) + sum(map(len, data))
                assert sum(collected) == 0 and len(collected) > 10
                for child, one in zip(children, data, strict=True):
                    assert await ours.read_bytes(child.hash, limit=len(one)) == one
        assert await ours.collect_garbage() == 61


@pytest.mark.parametrize("kind", ["memory", "files"])
async def test_what_is_being_imported_is_spared(kind: str, tmp_path: Path) -> None:
    random = Random(1)
    paths = [tmp_path / f"file {number}" for number in range(40)]
    for path in paths:
        path.write_bytes(random.randbytes(random.choice([10, 5000, 40_000, 200_000])))
    kept = []
    async with opened(kind, tmp_path) as store, collecting(store) as collected:
        for mode in ImportMode:
            kept += await store.add_files(paths, mode=mode)
            kept += await store.add_many([random.randbytes(100) for _ in range(300)])
            await asyncio.sleep(0.01)
            statuses = await store.statuses([added.hash for added in kept])
            assert all(status.is_complete for status in statuses)
        assert sum(collected) == 0


@pytest.mark.parametrize("kind", ["memory", "files"])
async def test_what_is_named_meanwhile_is_spared(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as store:
        child = await store.add_bytes(b"a child")
        root = await store.add_bytes(bytes(HashSeq([child.hash])), BlobFormat.HASH_SEQ)
        held = await store.add_bytes(b"held")
        dead = await store.add_bytes(b"dead")
        for added in (child, root, held, dead):
            added.tag.release()
        tags = []

        async def protect() -> list[Hash]:
            # What is named so far has been looked at by now.
            await asyncio.sleep(0)
            store.tags.set(b"late", HashAndFormat(root.hash, BlobFormat.HASH_SEQ))
            tags.append(store.hold(HashAndFormat(held.hash)))
            tags.append((await store.add_bytes(b"added")).tag)
            return []

        assert await store.collect_garbage(protect) == 1
        assert not (await store.status(dead.hash)).is_complete
        for added in (child, root, held):
            assert (await store.status(added.hash)).is_complete


async def test_what_is_being_written_is_spared(tmp_path: Path) -> None:
    async with await FileStore.open(tmp_path / "store") as store:
        hash = Hash.of(b"x" * 100_000)
        async with await store.writer(hash, max_size=100_000):
            assert await store.collect_garbage() == 0
            assert await store.delete([hash]) == 0


@simulated()
async def test_again_and_again(network):
    async with MemoryStore() as store:
        times: list[float] = []

        async def protect() -> list[Hash]:
            times.append(asyncio.get_running_loop().time())
            if len(times) == 2:
                raise RuntimeError("once")
            return []

        task = asyncio.create_task(blobs.collect_every(store, 60.0, protect))
        await asyncio.sleep(200)
        assert [round(time) for time in times] == [60, 120, 180]
        task.cancel()
        await asyncio.wait([task])
        with pytest.raises(ValueError, match="seconds"):
            await blobs.collect_every(store, 0)
