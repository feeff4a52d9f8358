"""What is special about the store in a bucket; what it shares with the others: test_blobs_store.py."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import obstore.store
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from obstore.exceptions import GenericError

from aioiroh import _native, blobs, presets, serve
from aioiroh.blobs import (
    BlobFormat,
    BlobState,
    BlobStatus,
    BucketStore,
    ChunkRanges,
    Hash,
    HashAndFormat,
)
from aioiroh.blobs.ranges import GROUP_SIZE
from aioiroh.blobs.store.bucket import cache, objects, proof, uploads
from aioiroh.blobs.store.bucket.streaming import Streamed
from aioiroh.endpoint import Endpoint
from aioiroh.errors import BusyError

Open = Callable[..., Any]


class Faulty:
    """obstore, which fails where it is told to."""

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.good = 0
        """So many calls succeed before they fail."""
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        value = getattr(obstore, name)
        if name == "exceptions":
            return value

        def call(store: Any, *args: Any, **options: Any) -> Any:
            self.calls.append((name, args[0] if args else options))
            self.good -= name in self.failing
            if name in self.failing and self.good < 0:
                raise GenericError(f"503 from {name}")
            return value(store, *args, **options)

        return call


@pytest.fixture
def memory() -> obstore.store.MemoryStore:
    return obstore.store.MemoryStore()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Faulty:
    api = Faulty()
    prepare = objects.Bucket.__init__

    def init(self: Any, *args: Any) -> None:
        prepare(self, *args)
        self._api = api

    monkeypatch.setattr(objects.Bucket, "__init__", init)
    monkeypatch.setattr(uploads, "RETRY", (60.0, 60.0))
    return api


@pytest.fixture
def opened(memory: Any, tmp_path: Path) -> Open:
    def make(staging: str = "staging", **options: Any) -> Any:
        return BucketStore.open(memory, staging=tmp_path / staging, **options)

    return make


def names(memory: Any) -> list[str]:
    return sorted(meta["path"] for page in obstore.list(memory) for meta in page)


# --- the proof


@given(size=st.integers(0, 40 * GROUP_SIZE), data=st.data())
def test_any_range_of_groups_is_verified(size: int, data: st.DataObject) -> None:
    content = (bytes(range(251)) * (size // 251 + 1))[:size]
    blob = _native.Blob.from_bytes(content)
    outboard, hash = blob.outboard(), Hash(blob.hash)
    groups = proof.groups_of(size)
    first = data.draw(st.integers(0, groups - 1))
    end = data.draw(st.integers(first + 1, groups))
    pairs = [
        outboard[start * proof.PAIR : stop * proof.PAIR]
        for start, stop in proof.pairs_for(groups, first, end)
    ]
    part = content[first * GROUP_SIZE : end * GROUP_SIZE]
    assert proof.verified(hash, size, first, end, part, pairs) == part
    if part:
        at = data.draw(st.integers(0, len(part) - 1))
        bad = bytearray(part)
        bad[at] ^= 1
        with pytest.raises(ValueError, match="verify"):
            proof.verified(hash, size, first, end, bytes(bad), pairs)
    if pairs:
        broken = [bytes([pairs[0][0] ^ 1]) + pairs[0][1:], *pairs[1:]]
        with pytest.raises(ValueError, match="verify"):
            proof.verified(hash, size, first, end, part, broken)


@given(size=st.integers(0, 40 * GROUP_SIZE), data=st.data())
def test_pieces_make_the_answer(size: int, data: st.DataObject) -> None:
    content = (bytes(range(251)) * (size // 251 + 1))[:size]
    outboard = _native.Blob.from_bytes(content).outboard()
    groups = proof.groups_of(size)
    edges = data.draw(st.lists(st.integers(0, groups), unique=True, max_size=6).map(sorted))
    if len(edges) % 2:
        edges.append(groups)
    wanted = ChunkRanges(edge * proof.CHUNKS for edge in dict.fromkeys(edges))
    assume(wanted and Streamed.fits(size, wanted))
    step = data.draw(st.integers(1, 9))
    answer, before = size.to_bytes(8, "little"), -1
    for start, stop in wanted.select(size).spans():
        last = -(-stop // proof.CHUNKS)
        for first in range(start // proof.CHUNKS, last, step):
            end = min(first + step, last)
            pairs = [
                outboard[start * proof.PAIR : stop * proof.PAIR]
                for start, stop in proof.pairs_for(groups, first, end)
            ]
            part = content[first * GROUP_SIZE : end * GROUP_SIZE]
            answer += proof.answered(size, first, end, before, part, pairs)
            before = end - 1
    assert answer == _native.encode_blob(content, wanted.boundaries)


def test_the_least_used_are_given_up_first() -> None:
    kept = cache.Cache(100 * cache.IN_USE)
    hashes = [Hash.of(b"%d" % number) for number in range(cache.IN_USE + 3)]
    for hash in hashes:
        kept.add(hash, 100)
    kept.use(hashes[0])
    assert list(kept.overflow()) == hashes[1:4]
    assert list(kept.overflow()) == []


# --- where things are


async def test_content_is_in_the_bucket_and_can_be_read_from_anywhere(
    opened: Open, memory: Any
) -> None:
    large, small = os.urandom(1_000_000), b"small"
    async with await opened(prefix="some/where") as store:
        first = await store.add_bytes(large)
        second = await store.add_bytes(small)
        await store.flush()
        assert store.pending == 0
    assert names(memory) == sorted(
        [
            "some/where/aioiroh.json",
            f"some/where/data/{first.hash.hex()[:2]}/{first.hash.hex()}",
            f"some/where/data/{second.hash.hex()[:2]}/{second.hash.hex()}",
            f"some/where/outboard/{first.hash.hex()[:2]}/{first.hash.hex()}",
        ]
    )
    async with await opened("another machine", prefix="/some/where/") as other:
        assert {hash async for hash, _ in other.blobs()} == {first.hash, second.hash}
        assert await other.read_bytes(first.hash, limit=len(large)) == large
        async with other.reader(first.hash) as reader:
            assert reader.size == len(large)
            assert await reader.read_at(500_001, 20) == large[500_001:500_021]
            reader.seek(-3, os.SEEK_END)
            assert await reader.read() == large[-3:]
            assert await reader.read() == b""
        assert (await other._local.status(first.hash)).state is BlobState.MISSING
        for attempt in (other.collect_garbage(), other.delete([first.hash])):
            with pytest.raises(BusyError, match="another staging folder"):
                await attempt


async def test_a_range_is_all_that_is_fetched(opened: Open, memory: Any, faulty: Faulty) -> None:
    async with await opened() as store:
        added = await store.add_bytes(os.urandom(3_000_000))
    async with await opened("elsewhere") as store, store.reader(added.hash) as reader:
        faulty.calls.clear()
        await reader.read_at(1_000_000, 10)
    assert [name for name, _ in faulty.calls] == ["get_range_async", "get_ranges_async"]


async def test_damage_in_the_bucket_is_noticed_and_repaired(opened: Open, memory: Any) -> None:
    data = os.urandom(200_000)
    async with await opened(cache_size=0) as store:
        added = await store.add_bytes(data)
        await store.flush()
        hex = added.hash.hex()
        damaged = bytearray(data)
        damaged[100_000] ^= 1
        obstore.put(memory, f"data/{hex[:2]}/{hex}", bytes(damaged))
        await store._local.delete([added.hash])
        async with store.reader(added.hash) as reader:
            assert await reader.read_at(0, 10) == data[:10]
            with pytest.raises(blobs.StorageError, match="damaged"):
                await reader.read_at(100_000, 10)
        with pytest.raises(blobs.StorageError, match="damaged"):
            await store.handle(added.hash)
        [finding] = [finding async for finding in store.verify()]
        assert not finding.is_good and finding.hash == added.hash
        [finding] = [finding async for finding in store.repair()]
        assert finding.after.state is BlobState.MISSING
        assert (await store.status(added.hash)).state is BlobState.MISSING
        assert (await store.add_bytes(data)).hash == added.hash
        await store.flush()
        assert [f.is_good async for f in store.verify([added.hash])] == [True, True]


async def test_what_belongs_to_somebody_else(opened: Open, memory: Any) -> None:
    obstore.put(memory, "aioiroh.json", b"{}")
    with pytest.raises(blobs.StoreFormatError, match="prefix"):
        await opened()
    obstore.put(memory, "aioiroh.json", b'{"format": 9, "owner": "x"}')
    with pytest.raises(blobs.StoreFormatError, match="format 9"):
        await opened()
    async with await opened(prefix="free"):
        with pytest.raises(BusyError):
            await opened(prefix="free")


async def test_the_folder_keeps_only_so_much(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "IN_USE", 2)
    async with await opened(cache_size=100_000) as store:
        added = [await store.add_bytes(os.urandom(60_000)) for _ in range(5)]
        await store.flush()
        here = [(await store._local.status(one.hash)).is_complete for one in added]
        assert sum(here) == 2
        gone = added[here.index(False)]
        handle = await store.handle(gone.hash)
        assert handle is not None and handle.is_complete
        assert (await store._local.status(gone.hash)).is_complete


async def test_tags_protect_and_garbage_goes(opened: Open, memory: Any) -> None:
    async with await opened() as store:
        kept = await store.add_bytes(b"kept")
        child = await store.add_bytes(os.urandom(50_000))
        root = await store.add_bytes(bytes(child.hash), BlobFormat.HASH_SEQ)
        dead = await store.add_bytes(b"dead")
        store.tags.set(b"kept", HashAndFormat(kept.hash))
        store.tags.set(b"tree", HashAndFormat(root.hash, BlobFormat.HASH_SEQ))
        for one in (kept, child, root, dead):
            one.tag.release()
        await store.flush()
        assert await store.collect_garbage() == 1
        assert {hash async for hash, _ in store.blobs()} == {kept.hash, child.hash, root.hash}
        again = await store.add_bytes(b"dead")
        await store.flush()
        assert again.hash in {hash async for hash, _ in store._bucket.blobs()}


async def test_what_is_added_while_it_is_deleted_stays(opened: Open) -> None:
    async with await opened() as store:
        added = await store.add_bytes(b"again")
        await store.flush()
        added.tag.release()
        deleting = asyncio.create_task(store.delete([added.hash]))
        while added.hash not in store._deletions:
            await asyncio.sleep(0)
        third = await store.add_bytes(b"again")
        await deleting
        await store.flush()
        assert await store.read_bytes(third.hash, limit=5) == b"again"
        assert [hash async for hash, _ in store._bucket.blobs()] == [third.hash]


# --- when the storage fails


async def test_what_cannot_be_moved_is_kept_and_moved_later(
    opened: Open, memory: Any, faulty: Faulty
) -> None:
    data = os.urandom(300_000)
    store = await opened()
    faulty.failing = {"put_async"}
    added = await store.add_bytes(data)
    with pytest.raises(blobs.StorageError, match="503 from put_async"):
        await store.flush()
    assert store.pending == 1
    assert await store.read_bytes(added.hash, limit=len(data)) == data
    with pytest.raises(blobs.StorageError):
        await store.aclose()
    assert not [name for name in names(memory) if name.startswith("data")]
    faulty.failing = set()
    async with await opened() as store:
        await store.flush()
        assert store.pending == 0
    assert [name for name in names(memory) if name.startswith("data")]


async def test_uploads_are_tried_again_by_themselves(
    opened: Open, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "RETRY", (0.01, 0.01))
    async with await opened() as store:
        faulty.failing = {"put_async"}
        await store.add_bytes(b"again")
        while store._uploads.failure is None:
            await store._uploads._change()
        faulty.failing = set()
        while store.pending:
            await store._uploads._change()


async def test_too_much_may_not_wait(opened: Open, faulty: Faulty) -> None:
    store = await opened(pending_size=1000)
    faulty.failing = {"put_async"}
    await store.add_bytes(bytes(2000))
    with pytest.raises(blobs.StorageError):
        await store.flush()
    with pytest.raises(blobs.StorageError, match="wait for the bucket"):
        await store.add_bytes(b"more")
    with pytest.raises(blobs.StorageError, match="wait for the bucket"):
        await store.writer(Hash.of(b"x"), max_size=10)
    faulty.failing = set()
    await store.flush()
    await store.add_bytes(b"more")
    await store.aclose()


async def test_reading_while_the_storage_fails(opened: Open, faulty: Faulty) -> None:
    async with await opened() as store:
        added = await store.add_bytes(b"x" * 100_000)
    async with await opened("elsewhere") as store:
        faulty.failing = {"head_async"}
        with pytest.raises(blobs.StorageError, match="503 from head_async"):
            await store.status(added.hash)
        faulty.failing = {"get_range_async"}
        async with store.reader(added.hash) as reader:
            with pytest.raises(blobs.StorageError, match="503 from get_range_async"):
                await reader.read(10)
            faulty.failing = {"get_async"}
            assert await reader.read(10) == b"x" * 10
        with pytest.raises(blobs.StorageError, match="503 from get_async"):
            await store.handle(added.hash)
        faulty.failing = set()
        assert (await store.handle(added.hash)).is_complete


# --- receiving and serving


async def test_receive_and_serve(opened: Open, memory: Any, tmp_path: Path) -> None:
    contents = [os.urandom(size) for size in (10, 20_000, 700_000)]
    async with (
        blobs.MemoryStore() as source,
        Endpoint.bind(preset=presets.loopback) as endpoint,
    ):
        added = [await source.add_bytes(content) for content in contents]
        root = await source.add_bytes(
            b"".join(bytes(one.hash) for one in added), BlobFormat.HASH_SEQ
        )
        content = HashAndFormat(root.hash, BlobFormat.HASH_SEQ)
        async with (
            serve({blobs.ALPN: blobs.Provider(source)}, preset=presets.loopback) as router,
            await opened() as store,
        ):
            got = await blobs.get(endpoint, content, provider=router.endpoint.addr, into=store)
            assert got.received >= sum(map(len, contents))
            await store.flush()
        # Another machine, with nothing here, serves the same from the bucket.
        async with (
            await opened("second", cache_size=0) as store,
            serve({blobs.ALPN: blobs.Provider(store)}, preset=presets.loopback) as router,
            blobs.MemoryStore() as target,
        ):
            await blobs.get(endpoint, content, provider=router.endpoint.addr, into=target)
            for one, data in zip(added, contents, strict=True):
                assert await target.read_bytes(one.hash, limit=len(data)) == data
            # What is in the bucket is not asked for again.
            again = await blobs.get(endpoint, content, provider=router.endpoint.addr, into=store)
            assert again.received == 0


async def test_a_part_is_served_without_bringing_the_rest(opened: Open, faulty: Faulty) -> None:
    data = os.urandom(12_000_000)
    async with await opened() as store:
        hash = (await store.add_bytes(data)).hash
    async with (
        await opened("elsewhere") as store,
        Endpoint.bind(preset=presets.loopback) as endpoint,
        serve({blobs.ALPN: blobs.Provider(store)}, preset=presets.loopback) as router,
        blobs.MemoryStore() as target,
    ):
        provider = router.endpoint.addr
        for start, end in (
            (5_000_000, 5_300_000),
            (5_100_000, 5_400_000),
            (11_999_999, 12_000_000),
        ):
            wanted = ChunkRanges.bytes(start, end) | ChunkRanges.last_chunk()
            ranges = blobs.ChunkRangesSeq.blob(wanted)
            await blobs.get(endpoint, hash, provider=provider, into=target, ranges=ranges)
            async with target.reader(hash) as reader:
                assert await reader.read_at(start, end - start) == data[start:end]
        assert "get_async" not in [name for name, path in faulty.calls if "data" in str(path)]
        assert (await store._local.status(hash)).state is BlobState.MISSING
        asked = len(faulty.calls)
        again = blobs.ChunkRangesSeq.blob(ChunkRanges.bytes(5_000_000, 5_400_000))
        async with blobs.MemoryStore() as other:
            await blobs.get(endpoint, hash, provider=provider, into=other, ranges=again)
        assert len(faulty.calls) == asked
        await blobs.get(endpoint, hash, provider=provider, into=target)
        assert await target.read_bytes(hash, limit=len(data)) == data


async def test_a_whole_blob_is_sent_without_being_brought_here(
    opened: Open, faulty: Faulty
) -> None:
    large = [os.urandom(size) for size in (9_000_000, 12_345_678)]
    contents = [large[0], os.urandom(20_000), large[1], b"last"]
    async with await opened() as store:
        added = await store.add_many(contents)
        sequence = b"".join(bytes(one.hash) for one in added)
        root = (await store.add_bytes(sequence, BlobFormat.HASH_SEQ)).hash
    sent: list[Any] = []
    async with (
        await opened("elsewhere") as store,
        Endpoint.bind(preset=presets.loopback) as endpoint,
        serve(
            {blobs.ALPN: blobs.Provider(store, on_transfer=sent.append)}, preset=presets.loopback
        ) as router,
    ):
        provider = router.endpoint.addr
        async with blobs.MemoryStore() as target:
            await blobs.get(
                endpoint, HashAndFormat(root, BlobFormat.HASH_SEQ), provider=provider, into=target
            )
            for one, data in zip(added, contents, strict=True):
                assert await target.read_bytes(one.hash, limit=len(data)) == data
        for one, data in zip(added, contents, strict=True):
            here = (await store.status(one.hash)), (await store._local.status(one.hash)).is_complete
            assert here == (BlobStatus.complete(len(data)), len(data) < 1_000_000)
        ends = [
            e.end_offset for e in sent if isinstance(e, blobs.TransferProgress) and e.index == 3
        ]
        assert ends == sorted(ends) and ends[-1] == 12_345_678 and len(ends) > 5
        completed = [e.stats for e in sent if isinstance(e, blobs.TransferCompleted)]
        assert sum(stats.payload_bytes for stats in completed) == sum(map(len, contents)) + len(
            sequence
        )

        # What came before the storage failed is kept, and the rest is got later.
        async with blobs.MemoryStore() as target:
            faulty.failing = {"get_range_async"}
            faulty.good = 4
            with pytest.raises(blobs.ProviderError):
                await blobs.get(endpoint, added[0].hash, provider=provider, into=target)
            faulty.failing = set()
            assert (await target.status(added[0].hash)).state is BlobState.PARTIAL
            await blobs.get(endpoint, added[0].hash, provider=provider, into=target)
            assert await target.read_bytes(added[0].hash, limit=1 << 24) == large[0]


async def test_parts_are_bounded(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "IN_USE", 1)
    few = [ChunkRanges.bytes(0, 100_000)]
    async with await opened() as store:
        hashes = [(await store.add_bytes(os.urandom(9_000_000))).hash for _ in range(3)]
    async with await opened("elsewhere", cache_size=200_000) as store:
        for hash in hashes:
            [handle] = await store.outgoing([hash], few)
            assert handle.read(0, 100) and handle.size_verified
        files = {path.stem for path in (store._copies._parts._folder).iterdir()}
        assert files == {str(hashes[2])}
        store._copies._parts.forget(hashes[2])
        assert not list(store._copies._parts._folder.iterdir())


async def test_a_part_that_was_received_stays(opened: Open) -> None:
    data = os.urandom(2_000_000)
    async with (
        blobs.MemoryStore() as source,
        Endpoint.bind(preset=presets.loopback) as endpoint,
        serve({blobs.ALPN: blobs.Provider(source)}, preset=presets.loopback) as router,
    ):
        added = await source.add_bytes(data)
        provider = router.endpoint.addr
        ranges = blobs.ChunkRangesSeq.blob(ChunkRanges.bytes(0, 500_000))
        async with await opened() as store:
            await blobs.get(endpoint, added.hash, provider=provider, into=store, ranges=ranges)
            assert (await store.status(added.hash)).state is BlobState.PARTIAL
        async with await opened() as store:
            got = await blobs.get(endpoint, added.hash, provider=provider, into=store)
            assert got.received < 1_600_000
            await store.flush()
            assert [hash async for hash, _ in store._bucket.blobs()] == [added.hash]


# --- installing


def test_without_obstore_the_extra_is_named(tmp_path: Path) -> None:
    code = (
        "import sys, asyncio; sys.modules['obstore'] = None; from aioiroh import blobs; "
        f"asyncio.run(blobs.BucketStore.open('memory:///', staging={str(tmp_path)!r}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr.splitlines()[-1] == "ImportError: obstore is missing; install aioiroh[s3]"


def test_the_bucket_store_has_the_methods_of_every_store() -> None:
    wanted = {name for name in vars(blobs.Store) if not name.startswith("_")}
    assert wanted <= set(dir(BucketStore))
