"""Our getter and upstream's provider of blobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aioiroh import blobs
from aioiroh.blobs import (
    BlobFormat,
    BlobState,
    BlobTicket,
    ChunkRanges,
    ChunkRangesSeq,
    FileStore,
    Hash,
    HashAndFormat,
    HashSeq,
    MemoryStore,
    NotAvailableError,
    ProviderBusyError,
    ProviderRefusedError,
)
from meeting import address, pattern
from sharing import BIG, QUERIES, SIZES, FromThem, from_them, hash_of, hex_of, one_blob, to_them


async def test_whole_blobs(blobs_peer: Callable[..., Any]) -> None:
    async with from_them(blobs_peer) as link, MemoryStore() as store:
        for size in SIZES:
            hash = await link.they_add(size)
            assert hash == Hash.of(pattern(size))
            got = await blobs.get(link.connection, hash, into=store)
            assert got.received == size
            assert await store.read_bytes(hash, limit=size) == pattern(size)
            # What is here is not asked for again.
            assert (await blobs.get(link.connection, hash, into=store)).received == 0


async def test_into_files(blobs_peer: Callable[..., Any], tmp_path: Path) -> None:
    async with (
        from_them(blobs_peer, path=str(tmp_path / "theirs")) as link,
        await FileStore.open(tmp_path / "ours") as store,
    ):
        for size in SIZES:
            hash = await link.they_add(size)
            await blobs.get(link.connection, hash, into=store)
            assert await store.read_bytes(hash, limit=size) == pattern(size)


async def test_many_at_once(blobs_peer: Callable[..., Any]) -> None:
    async with from_them(blobs_peer) as link, MemoryStore() as store:
        hashes = [await link.they_add(20_000 + 100 * i) for i in range(50)]
        await asyncio.gather(*(blobs.get(link.connection, hash, into=store) for hash in hashes))
        for i, hash in enumerate(hashes):
            assert await store.read_bytes(hash, limit=1 << 20) == pattern(20_000 + 100 * i)


async def test_a_ticket_of_theirs(blobs_peer: Callable[..., Any]) -> None:
    async with from_them(blobs_peer) as link, MemoryStore() as store:
        hash = await link.they_add(BIG)
        ticket = (await link.peer("blob_ticket", hash=hex_of(hash)))["ticket"]
        got = await blobs.get(link.endpoint, ticket, into=store)
        assert got.content == HashAndFormat(hash)
        assert str(BlobTicket.parse(ticket)) == ticket


# --- ranges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
async def test_ranges(blobs_peer: Callable[..., Any], query: tuple[int, ...]) -> None:
    async with from_them(blobs_peer) as link:
        for size in (BIG, 17_408, 1025, 1, 0):
            async with MemoryStore() as store:
                await check_ranges(link, store, size, query)


async def check_ranges(
    link: FromThem, store: MemoryStore, size: int, query: tuple[int, ...]
) -> None:
    """Exactly what was asked for arrives, and the proof of the size where the last chunk is in it."""
    hash = await link.they_add(size)
    wanted = ChunkRanges(query).select(size)
    got = await blobs.get(link.connection, hash, into=store, ranges=one_blob(query))
    assert got.received == wanted.byte_count(size)
    status = await store.status(hash)
    chunks = max(1, -(-size // 1024))
    everything = ChunkRanges.chunks(0, chunks)
    assert status.present & everything == wanted
    assert status.size_verified == (chunks - 1 in wanted)
    if status.size_verified:
        assert status.size == size
    if wanted == everything:
        assert status.state is BlobState.COMPLETE
    data = pattern(size)
    handle = await store.handle(hash)
    for start, end in wanted.spans():
        assert end is not None and handle is not None
        piece = data[start * 1024 : end * 1024]
        assert handle.read(start * 1024, len(piece)) == piece
    # Then the rest, and only that.
    rest = await blobs.get(link.connection, hash, into=store)
    assert rest.received == size - got.received
    assert await store.read_bytes(hash, limit=size) == data


async def test_sizes(blobs_peer: Callable[..., Any]) -> None:
    async with from_them(blobs_peer) as link:
        for size in SIZES:
            assert await blobs.get_size(link.connection, await link.they_add(size)) == size


# --- hash sequences -------------------------------------------------------------------------------


async def they_add_sequence(link: FromThem, sizes: tuple[int, ...]) -> tuple[Hash, list[Hash]]:
    children = [await link.they_add(size) for size in sizes]
    added = await link.peer("blob_add_hash_seq", hashes=[hex_of(hash) for hash in children])
    return hash_of(added), children


async def test_hash_sequences(blobs_peer: Callable[..., Any]) -> None:
    async with from_them(blobs_peer) as link, MemoryStore() as store:
        for sizes in ((), (0,), SIZES, (5,) * 4, tuple(range(300))):
            root, children = await they_add_sequence(link, sizes)
            content = HashAndFormat(root, BlobFormat.HASH_SEQ)
            await blobs.get(link.connection, content, into=store)
            data = await store.read_bytes(root, limit=1 << 20)
            assert list(HashSeq.from_bytes(data)) == children
            for size, child in zip(sizes, children, strict=True):
                assert await store.read_bytes(child, limit=size) == pattern(size)
            found = await blobs.get_sizes(link.connection, root)
            assert found.sizes == sizes


async def test_a_sequence_larger_than_a_group(blobs_peer: Callable[..., Any]) -> None:
    async with from_them(blobs_peer) as link, MemoryStore() as store:
        root, children = await they_add_sequence(link, tuple(range(1, 1200)))
        content = HashAndFormat(root, BlobFormat.HASH_SEQ)
        got = await blobs.get(link.connection, content, into=store, totals=True)
        assert got.received == 32 * len(children) + sum(range(1, 1200))


SEQUENCE_QUERIES = {
    "only the root": ((0, (0,)), (1, ())),
    "root and two children": ((0, (0,)), (1, ()), (2, (0,)), (3, ()), (5, (0,)), (6, ())),
    "the first chunk of each": ((0, (0,)), (1, (0, 1))),
    "the sizes": ((0, (0,)), (1, (2**64 - 1,))),
    "some chunks of one": ((0, (0,)), (1, ()), (4, (3, 5, 20, 30)), (5, ())),
    "further than there are children": ((0, (0,)), (1, ()), (7, (0,)), (100, ())),
}


@pytest.mark.parametrize("entries", SEQUENCE_QUERIES.values(), ids=SEQUENCE_QUERIES.keys())
async def test_ranges_of_sequences(
    blobs_peer: Callable[..., Any], entries: tuple[tuple[int, tuple[int, ...]], ...]
) -> None:
    sizes = (0, 1000, 5000, 50_000, 100_000, 16_384, 16_385, 40_000)
    ranges = ChunkRangesSeq((index, ChunkRanges(query)) for index, query in entries)
    async with from_them(blobs_peer) as link, MemoryStore() as store:
        root, children = await they_add_sequence(link, sizes)
        content = HashAndFormat(root, BlobFormat.HASH_SEQ)
        got = await blobs.get(link.connection, content, into=store, ranges=ranges)
        expected = 32 * len(sizes)
        for index, size, child in zip(range(1, 9), sizes, children, strict=True):
            wanted = ranges[index].select(size)
            expected += wanted.byte_count(size)
            present = (await store.status(child)).present
            assert size == 0 or present & ChunkRanges.chunks(0, -(-size // 1024)) == wanted
        assert got.received == expected
        # The rest follows, and nothing twice.
        rest = await blobs.get(link.connection, content, into=store)
        assert got.received + rest.received == 32 * len(sizes) + sum(sizes)


async def test_collections(blobs_peer: Callable[..., Any]) -> None:
    names = ["a", "b/c", "größe.txt", "日本語/🎈", ""]
    async with from_them(blobs_peer) as link, MemoryStore() as store:
        hashes = [await link.they_add(1000 * i) for i in range(len(names))]
        added = await link.peer(
            "blob_add_collection", names=names, hashes=[hex_of(hash) for hash in hashes]
        )
        content = HashAndFormat(hash_of(added), BlobFormat.HASH_SEQ)
        await blobs.get(link.connection, content, into=store)
        collection = await blobs.load_collection(store, content.hash)
        assert list(collection) == list(zip(names, hashes, strict=True))
        # And written by us it has the same hash.
        sequence, metadata = collection.to_parts()
        assert Hash.of(bytes(sequence)) == content.hash
        assert Hash.of(metadata) == sequence[0]


# --- what is not there, and what is not allowed ---------------------------------------------------


async def test_a_blob_they_do_not_have(blobs_peer: Callable[..., Any]) -> None:
    missing = Hash.of(b"nobody has this")
    async with from_them(blobs_peer) as link, MemoryStore() as store:
        with pytest.raises(NotAvailableError):
            await blobs.get(link.connection, missing, into=store)
        with pytest.raises(NotAvailableError):
            await blobs.get(
                link.connection, HashAndFormat(missing, BlobFormat.HASH_SEQ), into=store
            )
        with pytest.raises(NotAvailableError):
            await blobs.get_size(link.connection, missing)
        # The connection is as good as before.
        hash = await link.they_add(5)
        assert await blobs.get_bytes(link.connection, hash, limit=5) == pattern(5)


async def test_a_sequence_of_which_they_lack_a_child(blobs_peer: Callable[..., Any]) -> None:
    async with from_them(blobs_peer) as link, MemoryStore() as store:
        here = [await link.they_add(size) for size in (30_000, 40_000)]
        hashes = [here[0], Hash.of(b"nobody has this"), here[1]]
        added = await link.peer("blob_add_hash_seq", hashes=[hex_of(hash) for hash in hashes])
        content = HashAndFormat(hash_of(added), BlobFormat.HASH_SEQ)
        with pytest.raises(NotAvailableError):
            await blobs.get(link.connection, content, into=store)
        # Upstream resets, which may throw away what was on its way; the rest can be asked for.
        only_third = ChunkRangesSeq(
            (
                (0, ChunkRanges.all()),
                (1, ChunkRanges.empty()),
                (3, ChunkRanges.all()),
                (4, ChunkRanges.empty()),
            )
        )
        await blobs.get(link.connection, content, into=store, ranges=only_third)
        assert await store.read_bytes(here[1], limit=40_000) == pattern(40_000)
        with pytest.raises(NotAvailableError):
            await blobs.get_sizes(link.connection, content.hash)


async def test_a_blob_of_which_they_have_a_part(blobs_peer: Callable[..., Any]) -> None:
    """The peer got a part from our provider, and now provides it."""
    async with to_them(blobs_peer) as link:
        hash = (await link.store.add_bytes(pattern(BIG))).hash
        await link.they("get", hash, ranges=[[16, 64, 1024]])
        assert (await link.peer("blob_state", hash=hex_of(hash)))["status"] == "partial"
        async with (
            link.endpoint.connect(address(link.peer), alpn=blobs.ALPN) as connection,
            MemoryStore() as store,
        ):
            assert await blobs.get_size(connection, hash) == BIG
            with pytest.raises(NotAvailableError):
                await blobs.get(connection, hash, into=store)
            got = await blobs.get(connection, hash, into=store, ranges=one_blob((20, 50)))
            assert got.received == 30 * 1024
            # Half of this is there; what comes of it is up to upstream, but it is an end.
            with pytest.raises(NotAvailableError):
                await blobs.get(connection, hash, into=store, ranges=one_blob((48, 100)))
            handle = await store.handle(hash)
            assert handle is not None
            assert handle.read(20 << 10, 30 << 10) == pattern(30 << 10, 20 << 10)


async def test_an_odd_sequence(blobs_peer: Callable[..., Any]) -> None:
    """33 bytes are no list of hashes."""
    async with from_them(blobs_peer) as link, MemoryStore() as store:
        hash = await link.they_add(33)
        with pytest.raises((NotAvailableError, ValueError)):
            await blobs.get(link.connection, HashAndFormat(hash, BlobFormat.HASH_SEQ), into=store)


@pytest.mark.parametrize(
    ("deny", "error"), [("permission", ProviderRefusedError), ("limit", ProviderBusyError)]
)
async def test_they_refuse(
    blobs_peer: Callable[..., Any], deny: str, error: type[Exception]
) -> None:
    async with from_them(blobs_peer, deny=deny) as link, MemoryStore() as store:
        hash = await link.they_add(5)
        with pytest.raises(error):
            await blobs.get(link.connection, hash, into=store)
        with pytest.raises(error):
            await blobs.get_size(link.connection, hash)


async def test_they_go_away_in_the_middle(blobs_peer: Callable[..., Any]) -> None:
    async with from_them(blobs_peer) as link, MemoryStore() as store:
        hash = await link.they_add(50 << 20)
        transfer = blobs.get(link.connection, hash, into=store)
        with pytest.raises(ConnectionError):
            async for progress in transfer:
                if progress.received > 1 << 20:
                    await link.peer("shut_down")
        assert (await store.status(hash)).state is BlobState.PARTIAL


async def test_a_cancelled_get_goes_on_where_it_was(blobs_peer: Callable[..., Any]) -> None:
    size = 30 << 20
    async with from_them(blobs_peer) as link, MemoryStore() as store:
        hash = await link.they_add(size)
        async with blobs.get(link.connection, hash, into=store) as transfer:
            async for progress in transfer:
                if progress.received > 1 << 20:
                    break
        assert (await store.status(hash)).state is BlobState.PARTIAL
        rest = await blobs.get(link.connection, hash, into=store)
        assert 0 < rest.received < size - (1 << 20)
        assert await store.read_bytes(hash, limit=size) == pattern(size)
