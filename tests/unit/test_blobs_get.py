"""Getting what a provider has: blobs, parts of them, hash sequences, into every store."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from pathlib import Path

import pytest
from blob_serving import FILES, Pairs, add_collection, ask, pattern, serving

from aioiroh import _native, blobs
from aioiroh.blobs import (
    BlobFormat,
    BlobTooLargeError,
    ChunkRanges,
    ChunkRangesSeq,
    FileStore,
    Hash,
    HashAndFormat,
    HashSeq,
    MemoryStore,
    Provider,
)
from aioiroh.blobs.messages import encode_request
from aioiroh.blobs.transfer import plan
from aioiroh.errors import DecodeError
from aioiroh.quic import BiStream

SIZES = [0, 1, 1024, 1025, 16384, 16385, 32769, 100_000, 1_500_007]


# --- whole blobs ----------------------------------------------------------------------------------


@pytest.mark.loops
async def test_blobs_of_many_sizes(quic_pair: Pairs) -> None:
    async with MemoryStore() as source, MemoryStore() as target:
        hashes = [(await source.add_bytes(pattern(size))).hash for size in SIZES]
        async with serving(quic_pair, Provider(source)) as connection:
            for size, hash in zip(SIZES, hashes, strict=True):
                got = await blobs.get(connection, hash, into=target)
                assert got.received == size
                assert await target.read_bytes(hash, limit=size) == pattern(size)
                assert (await target.status(hash)).is_complete
                assert await blobs.get_size(connection, hash) == size
                assert await blobs.get_bytes(connection, hash, limit=size) == pattern(size)


async def test_what_is_there_is_not_asked_for(quic_pair: Pairs) -> None:
    async def refuse(stream: BiStream) -> None:
        raise AssertionError("a request was made")

    async with MemoryStore() as store, serving(quic_pair, refuse) as connection:
        hash = (await store.add_bytes(b"hello")).hash
        assert (await blobs.get(connection, hash, into=store)).received == 0
        assert (await blobs.get(connection, Hash.EMPTY, into=store)).received == 0


async def test_parts_add_up(quic_pair: Pairs) -> None:
    size = 100_000
    async with MemoryStore() as source, MemoryStore() as target:
        hash = (await source.add_bytes(pattern(size))).hash
        async with serving(quic_pair, Provider(source)) as connection:
            first = ChunkRangesSeq.blob(ChunkRanges((3, 20)))
            got = await blobs.get(connection, hash, into=target, ranges=first)
            assert got.received == 17 * 1024
            status = await target.status(hash)
            assert status.present == ChunkRanges((3, 20)) and not status.size_verified
            with pytest.raises(blobs.IncompleteBlobError):
                await target.read_bytes(hash, limit=size)
            last = ChunkRangesSeq.blob(ChunkRanges.last_chunk())
            assert (await blobs.get(connection, hash, into=target, ranges=last)).received == 672
            status = await target.status(hash)
            assert status.size == size and status.size_verified
            async with target.reader(hash) as reader:
                assert reader.size == size
                reader.seek(4000)
                assert await reader.read(1000) == pattern(size)[4000:5000]
                reader.seek(-5, 2)
                assert await reader.read() == pattern(size)[-5:]
                assert await reader.read() == b""
                with pytest.raises(blobs.IncompleteBlobError):
                    await reader.read_at(0, 10)
            rest = await blobs.get(connection, hash, into=target)
            assert rest.received == size - 17 * 1024 - 672
            assert await target.read_bytes(hash, limit=size) == pattern(size)


async def test_progress(quic_pair: Pairs) -> None:
    size = 8_000_000
    async with MemoryStore() as source, MemoryStore() as target:
        hash = (await source.add_bytes(pattern(size))).hash
        async with serving(quic_pair, Provider(source)) as connection:
            transfer = blobs.get(connection, hash, into=target)
            seen = [progress async for progress in transfer]
            assert (await transfer).received == size
    assert [p.bytes for p in seen] == sorted(p.bytes for p in seen)
    assert seen[-1] == blobs.Progress(size, size, 1, 1, size)
    assert len(seen) > 2


async def test_cancelling_loses_nothing(quic_pair: Pairs, tmp_path: Path) -> None:
    size = 30_000_000
    async with MemoryStore() as source, await FileStore.open(tmp_path / "in") as target:
        hash = (await source.add_bytes(pattern(size))).hash
        async with serving(quic_pair, Provider(source)) as connection:
            transfer = blobs.get(connection, hash, into=target)
            with pytest.raises(asyncio.CancelledError):
                async for progress in transfer:
                    if progress.bytes > 1_000_000:
                        transfer.cancel()
            assert transfer.progress.bytes < size
            with pytest.raises(asyncio.CancelledError):
                await transfer
            have = (await target.status(hash)).present.byte_count(size)
            assert have >= 1_000_000
            rest = await blobs.get(connection, hash, into=target)
            assert rest.received <= size - 1_000_000
            assert await target.read_bytes(hash, limit=size) == pattern(size)


async def test_a_disk_that_takes_no_more(quic_pair: Pairs, tmp_path: Path) -> None:
    size = 5_000_000
    async with MemoryStore() as source, await FileStore.open(tmp_path / "in") as target:
        hash = (await source.add_bytes(pattern(size))).hash
        async with serving(quic_pair, Provider(source)) as connection:
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, limits[1]))
            try:
                with pytest.raises(OSError) as caught:
                    await blobs.get(connection, hash, into=target)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            assert caught.value.errno == errno.EFBIG
            kept = (await target.status(hash)).present.byte_count(size)
            assert kept > 1_000_000
            assert (await blobs.get(connection, hash, into=target)).received == size - kept


async def test_two_gets_fill_one_blob(quic_pair: Pairs) -> None:
    size = 4_000_000
    async with MemoryStore() as source, MemoryStore() as target:
        hash = (await source.add_bytes(pattern(size))).hash
        async with serving(quic_pair, Provider(source)) as connection:
            halves = [ChunkRanges((0, 2048)), ChunkRanges((2048,))]
            await asyncio.gather(
                *(
                    blobs.get(connection, hash, into=target, ranges=ChunkRangesSeq.blob(half))
                    for half in halves
                )
            )
        assert await target.read_bytes(hash, limit=size) == pattern(size)


# --- hash sequences -------------------------------------------------------------------------------


@pytest.mark.parametrize("totals", [False, True])
async def test_a_collection(quic_pair: Pairs, totals: bool) -> None:
    async with MemoryStore() as source, MemoryStore() as target:
        root = await add_collection(source, FILES)
        async with serving(quic_pair, Provider(source)) as connection:
            content = HashAndFormat(root, BlobFormat.HASH_SEQ)
            transfer = blobs.get(connection, content, into=target, totals=totals)
            seen = [progress async for progress in transfer]
        collection = await blobs.load_collection(target, root)
        assert collection.names == tuple(FILES)
        for name, hash in collection:
            assert await target.read_bytes(hash, limit=1 << 20) == FILES[name]
        assert seen[-1].blobs == seen[-1].total_blobs == len(FILES) + 2
        assert seen[-1].bytes == seen[-1].total
        if totals:
            assert any(p.total == seen[-1].total and p.bytes < 100_000 for p in seen)


async def test_many_small_children(quic_pair: Pairs) -> None:
    files = {f"f{number}": b"%d" % number * (number % 50) for number in range(700)}
    async with MemoryStore() as source, MemoryStore() as target:
        root = await add_collection(source, files)
        async with serving(quic_pair, Provider(source)) as connection:
            await blobs.get(connection, HashAndFormat(root, BlobFormat.HASH_SEQ), into=target)
        for name, hash in await blobs.load_collection(target, root):
            assert await target.read_bytes(hash, limit=1 << 20) == files[name]


@pytest.mark.parametrize("totals", [False, True], ids=["unseen", "sizes known"])
async def test_small_and_large_children(quic_pair: Pairs, totals: bool, tmp_path: Path) -> None:
    """Small ones come many at a time, large ones through writers, whatever follows what."""
    sizes = [10, 16_384, 16_385, 0, 70_000, 9, 8, 200_000, 200_001, 7, *range(40_000, 40_600), 6, 5]
    async with MemoryStore() as source, await FileStore.open(tmp_path / "into") as into:
        added = await source.add_many(pattern(size) for size in sizes)
        sequence = HashSeq([one.hash for one in added])
        root = await source.add_bytes(bytes(sequence), BlobFormat.HASH_SEQ)
        content = HashAndFormat(root.hash, BlobFormat.HASH_SEQ)
        async with serving(quic_pair, Provider(source)) as connection:
            transfer = blobs.get(connection, content, into=into, totals=totals)
            got = await transfer
        assert got.received == sum(sizes) + len(bytes(sequence))
        assert transfer.progress.bytes == transfer.progress.total == got.received
        assert transfer.progress.blobs == transfer.progress.total_blobs == len(sizes) + 1
        for one, size in zip(added, sizes, strict=True):
            assert await into.read_bytes(one.hash, limit=size) == pattern(size)


async def test_children_that_are_there_are_spared(quic_pair: Pairs) -> None:
    async with MemoryStore() as source, MemoryStore() as target:
        root = await add_collection(source, FILES)
        await target.add_bytes(FILES["big"])
        async with serving(quic_pair, Provider(source)) as connection:
            got = await blobs.get(connection, HashAndFormat(root, BlobFormat.HASH_SEQ), into=target)
        assert got.received < 50_000
        await blobs.load_collection(target, root)
        assert (await target.status(Hash.of(FILES["dir/b.bin"]))).is_complete


async def test_probes_and_many(quic_pair: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MAX_HASHES", 3)
    async with MemoryStore() as source, MemoryStore() as target:
        hashes = [(await source.add_bytes(pattern(size))).hash for size in SIZES]
        async with serving(quic_pair, Provider(source)) as connection:
            for size, hash in zip(SIZES, hashes, strict=True):
                last = max(0, -(-size // 1024) - 1)
                for chunk in {0, 1, 15, 16, last // 2, max(0, last - 1), last, last + 1, 2**63}:
                    assert await blobs.probe(connection, hash, chunk) == size
            # In several requests, each of which is as long as one may be.
            transfer = blobs.get_many(connection, hashes, into=target)
            progress = [now async for now in transfer]
            assert (
                (await transfer).received == progress[-1].bytes == progress[-1].total == sum(SIZES)
            )
            assert progress[-1].blobs == progress[-1].total_blobs == len(SIZES)
            for size, hash in zip(SIZES, hashes, strict=True):
                assert await target.read_bytes(hash, limit=size) == pattern(size)
            assert (await blobs.get_many(connection, (), into=target)).received == 0


async def test_the_same_blob_asked_for_many_times(quic_pair: Pairs) -> None:
    async with MemoryStore() as source:
        hash = (await source.add_bytes(pattern(100))).hash
        many = encode_request(blobs.GetManyRequest((hash,) * 20_000, ChunkRangesSeq.all()))
        async with serving(quic_pair, Provider(source)) as connection:
            answer = await ask(connection, many)
            assert answer == _native.encode_blob(pattern(100), (0,)) * 20_000


async def test_sizes(quic_pair: Pairs) -> None:
    async with MemoryStore() as source:
        root = await add_collection(source, FILES)
        async with serving(quic_pair, Provider(source)) as connection:
            found = await blobs.get_sizes(connection, root)
            assert found.sizes[1:] == tuple(len(data) for data in FILES.values())
            assert len(found.sequence) == len(FILES) + 1
            with pytest.raises(BlobTooLargeError):
                await blobs.get_sizes(connection, root, max_children=3)


async def test_a_plain_blob_is_no_hash_sequence(quic_pair: Pairs) -> None:
    async with MemoryStore() as source, MemoryStore() as target:
        hash = (await source.add_bytes(pattern(1000))).hash
        async with serving(quic_pair, Provider(source)) as connection:
            with pytest.raises(DecodeError):
                await blobs.get(connection, HashAndFormat(hash, BlobFormat.HASH_SEQ), into=target)
            # Its bytes arrived, and stay.
            assert await target.read_bytes(hash, limit=1000) == pattern(1000)


async def test_files_to_files(quic_pair: Pairs, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    for number in range(120):
        path = shared / f"d{number % 7}" / f"träger {number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pattern(number * number * 100))
    (shared / "copy").write_bytes(pattern(640_000))
    target_directory = tmp_path / "target"
    target_directory.mkdir()
    async with (
        await FileStore.open(tmp_path / "out") as source,
        await FileStore.open(target_directory / ".private") as target,
    ):
        imported = await blobs.import_paths(source, [shared])
        assert imported.size == sum(p.stat().st_size for p in shared.rglob("*") if p.is_file())
        content = HashAndFormat(imported.root.hash, BlobFormat.HASH_SEQ)
        async with serving(quic_pair, Provider(source)) as connection:
            await blobs.get(connection, content, into=target, totals=True)
            collection = await blobs.load_collection(target, content.hash)
            paths = await blobs.export_collection(target, collection, target_directory)
            # What was exported is still served, from where it is now.
            for path, hash in zip(paths, collection.hashes, strict=True):
                assert await target.read_bytes(hash, limit=1 << 24) == path.read_bytes()
        await target.destroy()
    assert not (target_directory / ".private").exists()
    mask = os.umask(0)
    os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o666 & ~mask}
    sent = {p.relative_to(tmp_path / "shared") for p in shared.rglob("*")}
    assert {
        p.relative_to(target_directory / "shared") for p in target_directory.rglob("shared/*")
    } | {
        p.relative_to(target_directory / "shared") for p in target_directory.rglob("shared/*/*")
    } == sent
    for path in shared.rglob("*"):
        if path.is_file():
            there = target_directory / path.relative_to(tmp_path)
            assert there.read_bytes() == path.read_bytes()
