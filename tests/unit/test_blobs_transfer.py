"""Getting and providing over a real connection on loopback."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aioiroh import _native, blobs
from aioiroh.blobs import (
    BlobFormat,
    BlobTooLargeError,
    ChunkRanges,
    ChunkRangesSeq,
    Collection,
    FileStore,
    GetRequest,
    Hash,
    HashAndFormat,
    HashSeq,
    MemoryStore,
    NotAvailableError,
    Provider,
    ProviderBusyError,
    ProviderError,
    ProviderRefusedError,
    VerificationError,
)
from aioiroh.blobs.messages import ObserveItem, encode_request
from aioiroh.blobs.transfer import plan
from aioiroh.errors import ApplicationClosedError, DecodeError, StreamResetError
from aioiroh.keys import EndpointId
from aioiroh.quic import BiStream, Connection, TransportConfig

Pairs = Callable[..., AbstractAsyncContextManager[Any]]
SIZES = [0, 1, 1024, 1025, 16384, 16385, 32769, 100_000, 1_500_007]


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


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

FILES = {
    "a.txt": b"hello",
    "dir/b.bin": pattern(20_000),
    "empty": b"",
    "big": pattern(700_001),
    "same": pattern(20_000),
    "also empty": b"",
}


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


# --- the provider's answers -----------------------------------------------------------------------


async def test_answers_are_the_vectors(quic_pair: Pairs) -> None:
    sample = {"a.txt": b"hello", "dir/b.bin": pattern(20_000), "empty": b""}
    async with MemoryStore() as source:
        root = await add_collection(source, sample)
        for size in (1, 1025, 100_000):
            await source.add_bytes(pattern(size))
        many = blobs.GetManyRequest(
            (Hash.of(pattern(1)), Hash.of(pattern(1025))),
            ChunkRangesSeq(((0, ChunkRanges.all()), (2, ChunkRanges.empty()))),
        )
        blob = Hash.of(pattern(100_000))
        expected: list[tuple[GetRequest | blobs.GetManyRequest, int, str]] = [
            (
                GetRequest(root, ChunkRangesSeq.all()),
                20273,
                "9b701ac74b3a541fbcc2b9f81a9f09ec74be24f6e18a97c2ee0859ef57788906",
            ),
            (
                GetRequest(root, ChunkRangesSeq.sizes()),
                945,
                "3ddba72adfbf7e5fb8f1cddf844f238f4a9dd75c718c7a78719c973efcb1082f",
            ),
            (many, 1042, "119cee57d7f7b6da4026272c67c019e0d9483574ca4d3b27fdc7071ae454991c"),
            (
                GetRequest(blob, ChunkRangesSeq.blob(ChunkRanges((0, 2, 20, 21, 97)))),
                4520,
                "49d9bdcd91998b58485d012c3dbe81ded132c67db87cc05c0d697c14a39e8bc6",
            ),
            (
                GetRequest(blob, ChunkRangesSeq.empty()),
                0,
                "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
            ),
        ]
        async with serving(quic_pair, Provider(source)) as connection:
            for request, size, digest in expected:
                answer = await ask(connection, encode_request(request))
                assert (len(answer), Hash.of(answer).hex()) == (size, digest)


async def test_an_unknown_blob_resets_with_3(quic_pair: Pairs) -> None:
    async with MemoryStore() as source, MemoryStore() as target:
        async with serving(quic_pair, Provider(source)) as connection:
            for format in BlobFormat:
                unknown = HashAndFormat(Hash(b"x" * 32), format)
                with pytest.raises(NotAvailableError):
                    await blobs.get(connection, unknown, into=target)
            with pytest.raises(NotAvailableError):
                await blobs.get_size(connection, unknown.hash)
            with pytest.raises(StreamResetError) as caught:
                await ask(
                    connection, encode_request(GetRequest(unknown.hash, ChunkRangesSeq.all()))
                )
            assert caught.value.code == 3
        assert (await target.status(unknown.hash)).state is blobs.BlobState.MISSING


async def test_a_missing_child_does_not_cost_the_others(quic_pair: Pairs) -> None:
    async with MemoryStore() as source, MemoryStore() as target:
        here = (await source.add_bytes(pattern(50_000))).hash
        sequence = HashSeq([here, Hash(b"x" * 32), Hash.EMPTY])
        root = (await source.add_bytes(bytes(sequence), BlobFormat.HASH_SEQ)).hash
        async with serving(quic_pair, Provider(source)) as connection:
            with pytest.raises(NotAvailableError):
                await blobs.get(connection, HashAndFormat(root, BlobFormat.HASH_SEQ), into=target)
        assert (await target.status(root)).is_complete
        assert (await target.status(here)).is_complete


async def test_partial_blobs_are_served_as_far_as_they_go(quic_pair: Pairs) -> None:
    size = 200_000
    async with MemoryStore() as source, MemoryStore() as middle, MemoryStore() as target:
        hash = (await source.add_bytes(pattern(size))).hash
        async with serving(quic_pair, Provider(source)) as connection:
            some = ChunkRangesSeq.blob(ChunkRanges((0, 32, 2**64 - 1)))
            await blobs.get(connection, hash, into=middle, ranges=some)
        async with serving(quic_pair, Provider(middle)) as connection:
            fine = ChunkRangesSeq.blob(ChunkRanges((3, 30)))
            got = await blobs.get(connection, hash, into=target, ranges=fine)
            assert got.received == 27 * 1024
            with pytest.raises(NotAvailableError):
                await blobs.get(connection, hash, into=target)


async def test_gaps_cost_nothing(quic_pair: Pairs) -> None:
    async with MemoryStore() as source:
        root = await add_collection(source, FILES)
        seq = ChunkRangesSeq(((2**62, ChunkRanges.all()), (2**63, ChunkRanges.empty())))
        async with serving(quic_pair, Provider(source)) as connection:
            async with asyncio.timeout(2):
                assert await ask(connection, encode_request(GetRequest(root, seq))) == b""


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"\x00",
        b"\x00" + bytes(31),
        b"\x02" + bytes(40),
        b"\xff" + bytes(40),
        b"\x08\xff\xff\xff\xff\x7f",
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x00" + bytes(32) + b"\x01\x00\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01",
        b"\x00" + bytes(1024 * 1024 + 1),
    ],
)
async def test_malformed_requests_get_nothing(quic_pair: Pairs, request_bytes: bytes) -> None:
    async with MemoryStore() as source:
        hash = (await source.add_bytes(b"fine")).hash
        async with serving(quic_pair, Provider(source)) as connection:
            async with connection.open_bi() as stream:
                try:
                    await stream.write(request_bytes)
                    await stream.finish()
                except ConnectionError:
                    pass  # stopped already
                assert await stream.read_all(limit=10) == b""
            assert await blobs.get_bytes(connection, hash, limit=4) == b"fine"


async def test_a_request_that_does_not_end(quic_pair: Pairs) -> None:
    async with MemoryStore() as source:
        provider = Provider(source, limits=blobs.Limits(request_time=0.1))
        async with serving(quic_pair, provider) as connection, connection.open_bi() as stream:
            await stream.write(b"\x00")
            assert await stream.read_all(limit=10) == b""


async def test_authorize(quic_pair: Pairs) -> None:
    asked = []

    async def authorize(request: blobs.IncomingRequest) -> blobs.Verdict | bool:
        asked.append(request)
        return answers.pop(0)

    answers: list[blobs.Verdict | bool] = [False, blobs.Verdict.DENY, blobs.Verdict.LATER, True]
    async with MemoryStore() as source:
        hash = (await source.add_bytes(b"secret")).hash
        async with serving(quic_pair, Provider(source, authorize=authorize)) as connection:
            for kind in (ProviderRefusedError, ProviderRefusedError, ProviderBusyError):
                with pytest.raises(kind):
                    await blobs.get_bytes(connection, hash, limit=6)
            assert await blobs.get_bytes(connection, hash, limit=6) == b"secret"
            all_of_it = ChunkRangesSeq.blob()
            requests: list[blobs.ObserveRequest | blobs.PushRequest] = [
                blobs.ObserveRequest(hash, ChunkRanges.all()),
                blobs.PushRequest(hash, all_of_it),
            ]
            for request in requests:
                with pytest.raises(StreamResetError) as caught:
                    await ask(connection, encode_request(request))
                assert caught.value.code == 1
    assert len(asked) == 4
    assert {type(request.request) for request in asked} == {GetRequest}
    assert asked[0].kind is blobs.RequestKind.GET


@pytest.mark.parametrize("limits", [{"requests": 1}, {"requests_per_peer": 1}])
async def test_too_many_requests(quic_pair: Pairs, limits: dict[str, int]) -> None:
    async with MemoryStore() as source:
        hash = (await source.add_bytes(b"x")).hash
        provider = Provider(source, limits=blobs.Limits(**limits))
        async with serving(quic_pair, provider) as connection, connection.open_bi() as waiting:
            await waiting.write(b"\x00")
            await asyncio.sleep(0.05)
            with pytest.raises(ProviderBusyError):
                await blobs.get_bytes(connection, hash, limit=1)


async def test_a_reader_that_sleeps_is_given_up(quic_pair: Pairs) -> None:
    async with MemoryStore() as source:
        hash = (await source.add_bytes(pattern(20_000_000))).hash
        given_up = asyncio.Event()
        provider = Provider(
            source,
            limits=blobs.Limits(stall_time=0.2),
            on_transfer=lambda event: (
                given_up.set() if isinstance(event, blobs.TransferAborted) else None
            ),
        )
        async with serving(quic_pair, provider) as connection, connection.open_bi() as stream:
            await stream.write(encode_request(GetRequest(hash, ChunkRangesSeq.blob())))
            await stream.finish()
            await given_up.wait()
            with pytest.raises(StreamResetError) as caught:
                await stream.read_all(limit=1 << 30)
            assert caught.value.code == 2


@pytest.mark.parametrize(
    ("leave", "reason"),
    [
        (None, "the peer takes too little data"),
        (lambda stream: stream.recv.stop(7), "the peer stopped the stream with code 7"),
        (lambda stream: stream.connection.close(), "the connection ended"),
    ],
    ids=["sleeps", "stops", "goes"],
)
async def test_a_small_answer_that_nobody_takes(
    quic_pair: Pairs, leave: Callable[[BiStream], None] | None, reason: str
) -> None:
    """It is written at once where there is room, and here there is not."""
    async with MemoryStore() as source:
        hash = (await source.add_bytes(pattern(20_000))).hash
        events: asyncio.Queue[blobs.TransferEvent] = asyncio.Queue()
        provider = Provider(
            source,
            limits=blobs.Limits(stall_time=0.2 if leave is None else 30),
            on_transfer=events.put_nowait,
        )
        narrow = TransportConfig(stream_receive_window=1000)
        served = serving(lambda: quic_pair(narrow), provider)
        async with served as connection, connection.open_bi() as stream:
            await stream.write(encode_request(GetRequest(hash, ChunkRangesSeq.blob())))
            await stream.finish()
            while not isinstance(event := await events.get(), blobs.TransferStarted):
                pass
            if leave is not None:
                leave(stream)
            while not isinstance(event := await events.get(), blobs.TransferAborted):
                pass
            assert event.reason == reason
            assert event.stats.payload_bytes == event.stats.blobs == 0
            if leave is None:
                with pytest.raises(StreamResetError) as caught:
                    await stream.read_all(limit=1 << 20)
                assert caught.value.code == 2


@pytest.mark.parametrize(
    ("verdict", "code", "reason"),
    [
        (False, 1, b"permission"),
        (blobs.Verdict.LATER, 2, b"limit"),
        (RuntimeError("oh"), 3, b"internal"),
    ],
)
async def test_connections_are_let_in_or_not(
    quic_pair: Pairs, verdict: Any, code: int, reason: bytes
) -> None:
    events: list[blobs.ConnectionEvent] = []
    asked = []

    async def admit(peer: EndpointId) -> Any:
        asked.append(peer)
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers.pop(0)

    answers: list[Any] = [True, verdict]
    async with MemoryStore() as source:
        hash = (await source.add_bytes(b"hello")).hash
        provider = Provider(source, admit=admit, on_connection=events.append)
        async with serving(quic_pair, provider) as connection:
            assert await blobs.get_bytes(connection, hash, limit=5) == b"hello"
            (connected,) = events
        assert isinstance(connected, blobs.ClientConnected)
        assert [connected.remote_id] == asked
        assert events[1:] == [blobs.ConnectionClosed(connected.remote_id, connected.connection)]
        async with serving(quic_pair, provider) as connection:
            lost = await connection.closed()
            assert isinstance(lost, ApplicationClosedError)
            assert (lost.code, lost.reason) == (code, reason)
        # Who was not let in is not told of.
        assert len(events) == 2


async def test_transfer_events(quic_pair: Pairs) -> None:
    events: list[blobs.TransferEvent] = []
    async with MemoryStore() as source:
        hash = (await source.add_bytes(pattern(3_000_000))).hash
        provider = Provider(source, on_transfer=events.append)
        async with serving(quic_pair, provider) as connection:
            await blobs.get_bytes(connection, hash, limit=3_000_000)
            with pytest.raises(NotAvailableError):
                await blobs.get_bytes(connection, Hash(b"x" * 32), limit=10)
    received, started, *progress, completed, again, aborted = events
    assert isinstance(received, blobs.RequestReceived) and isinstance(again, blobs.RequestReceived)
    assert isinstance(started, blobs.TransferStarted) and started.size == 3_000_000
    assert all(isinstance(event, blobs.TransferProgress) for event in progress)
    assert isinstance(completed, blobs.TransferCompleted)
    assert completed.stats.payload_bytes == 3_000_000 and completed.stats.blobs == 1
    pairs = -(-3_000_000 // 16384) - 1
    assert completed.stats.other_bytes_sent == 8 + 64 * pairs
    assert completed.stats.other_bytes_read == 39
    assert isinstance(aborted, blobs.TransferAborted) and aborted.stats.payload_bytes == 0


async def test_a_file_that_changed_is_not_sent(quic_pair: Pairs, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(pattern(300_000))
    async with await FileStore.open(tmp_path / "s") as source, MemoryStore() as target:
        hash = (await source.add_file(file)).hash
        file.write_bytes(pattern(200_000) + b"!" + pattern(300_000)[200_001:])
        async with serving(quic_pair, Provider(source)) as connection:
            with pytest.raises(NotAvailableError):
                await blobs.get(connection, hash, into=target)


async def test_observe(quic_pair: Pairs) -> None:
    size = 100_000
    async with MemoryStore() as source, MemoryStore() as middle:
        hash = (await source.add_bytes(pattern(size))).hash
        serve = {blobs.RequestKind.OBSERVE}
        async with (
            serving(quic_pair, Provider(source)) as provider,
            serving(quic_pair, Provider(middle, serve=serve)) as connection,
            connection.open_bi() as stream,
        ):
            await stream.write(b"\x01" + bytes(hash) + b"\x01\x00")
            await stream.finish()
            assert await stream.read_exactly(3) == bytes.fromhex("020000")
            some = ChunkRangesSeq.blob(ChunkRanges((0, 16, 2**64 - 1)))
            await blobs.get(provider, hash, into=middle, ranges=some)
            change = await stream.read_exactly(8)
            assert change[1:] == bytes.fromhex("a08d0603001061")
            await blobs.get(provider, hash, into=middle)
            known = ChunkRanges((0, 16, 97))
            while not known.is_all:
                item = ObserveItem.decode(await stream.read_exactly((await stream.read(1))[0]))
                assert item.size == size and item.ranges
                known = known ^ item.ranges


# --- providers that misbehave ---------------------------------------------------------------------


def answering(answer: bytes, *, reset: int | None = None) -> Callable[[BiStream], Any]:
    async def handler(stream: BiStream) -> None:
        await stream.read_all(limit=1 << 21)
        await stream.write(answer)
        if reset is not None:
            await asyncio.sleep(0.05)
            stream.send.reset(reset)

    return handler


DATA = pattern(100_000)
HASH = Hash(bytes.fromhex("d93c23eedaf165a7e0be908ba86f1a7a520d568d2d13cde787c8580c5c72cc54"))


def encoded() -> bytes:
    from aioiroh import _native

    return _native.encode_blob(DATA, (0,))


def flipped(at: int) -> bytes:
    answer = bytearray(encoded())
    answer[at] ^= 1
    return bytes(answer)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: flipped(0), ProviderError),  # one byte more than there is
        (lambda: flipped(2), VerificationError),
        (lambda: flipped(20), VerificationError),
        (lambda: flipped(50_000), VerificationError),
        (lambda: flipped(100_391), VerificationError),
        (lambda: b"", NotAvailableError),
        (lambda: encoded()[:4], ProviderError),
        (lambda: encoded()[:8], NotAvailableError),
        (lambda: encoded()[: 8 + 64], NotAvailableError),
        (lambda: encoded()[:50_000], ProviderError),
        (lambda: bytes(8), NotAvailableError),
        (lambda: b"\xff" * 8, BlobTooLargeError),
    ],
)
async def test_bad_answers(quic_pair: Pairs, make: Callable[[], bytes], kind: type) -> None:
    async with MemoryStore() as target, serving(quic_pair, answering(make())) as connection:
        with pytest.raises(kind):
            await blobs.get(connection, HASH, into=target)
        assert not (await target.status(HASH)).is_complete


async def test_what_was_verified_before_a_break_is_kept(quic_pair: Pairs) -> None:
    async with MemoryStore() as target:
        async with serving(quic_pair, answering(encoded()[:50_000])) as connection:
            with pytest.raises(ProviderError):
                await blobs.get(connection, HASH, into=target)
        assert (await target.status(HASH)).present == ChunkRanges((0, 48))


async def test_an_outboard_has_a_file_only_if_it_needs_one(
    quic_pair: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outboards() -> list[str]:
        return [path.name for path in (tmp_path / "store").rglob("*.outboard")]

    folder = tmp_path / "store"
    large = pattern(1_100_000)
    async with MemoryStore() as source, await FileStore.open(folder) as store:
        await source.add_many((DATA, large))
        async with serving(quic_pair, Provider(source)) as connection:
            with monkeypatch.context() as patch:
                # Parts that are noted have to be found again; this one shall arrive as if at once.
                patch.setattr(FileStore, "_progressed", lambda *_: None)
                await blobs.get(connection, HASH, into=store)
            assert outboards() == []
            await blobs.get(connection, Hash.of(large), into=store)
            assert outboards() == [f"{Hash.of(large)}.outboard"]
        for data in (DATA, large):
            handle = await store.handle(Hash.of(data))
            assert handle is not None and handle.response((0,)) is None
    async with await FileStore.open(folder) as store:
        # It can be served, which takes the outboards.
        async with serving(quic_pair, Provider(store)) as connection:
            for data in (DATA, large):
                assert await blobs.get_bytes(connection, Hash.of(data), limit=1 << 21) == data
        await store.delete([HASH])
        # A part of a blob is found again by its outboard.
        async with serving(quic_pair, answering(encoded()[:50_000])) as connection:
            with pytest.raises(ProviderError):
                await blobs.get(connection, HASH, into=store)
        assert len(outboards()) == 2
    async with await FileStore.open(folder) as store:
        assert (await store.status(HASH)).present == ChunkRanges((0, 48))
        async with MemoryStore() as source:
            await source.add_bytes(DATA)
            async with serving(quic_pair, Provider(source)) as connection:
                await blobs.get(connection, HASH, into=store)
        assert await store.read_bytes(HASH, limit=1 << 20) == DATA
        assert [finding async for finding in store.verify() if not finding.is_good] == []


async def test_trailing_bytes_are_tolerated(quic_pair: Pairs) -> None:
    async with MemoryStore() as target:
        async with serving(quic_pair, answering(encoded() + b"more")) as connection:
            await blobs.get(connection, HASH, into=target)
        assert await target.read_bytes(HASH, limit=1 << 20) == DATA


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, ProviderRefusedError),
        (2, ProviderBusyError),
        (3, NotAvailableError),
        (9, StreamResetError),
    ],
)
@pytest.mark.parametrize("sent", [0, 4, 40_000])
async def test_resets(quic_pair: Pairs, code: int, kind: type, sent: int) -> None:
    async with (
        MemoryStore() as target,
        serving(quic_pair, answering(encoded()[:sent], reset=code)) as connection,
    ):
        with pytest.raises(kind):
            await blobs.get(connection, HASH, into=target)


async def test_a_blob_over_the_limit(quic_pair: Pairs) -> None:
    async with MemoryStore() as target, serving(quic_pair, answering(encoded())) as connection:
        with pytest.raises(BlobTooLargeError):
            await blobs.get(connection, HASH, into=target, max_blob_size=99_999)
        with pytest.raises(BlobTooLargeError):
            await blobs.get_bytes(connection, HASH, limit=10)


async def test_false_sizes(quic_pair: Pairs) -> None:
    async with serving(quic_pair, answering(flipped(1)[:872])) as connection:
        with pytest.raises(ProviderError):
            await blobs.get_size(connection, HASH)


async def test_a_connection_that_breaks(quic_pair: Pairs) -> None:
    async def close(stream: BiStream) -> None:
        await stream.read_all(limit=1 << 21)
        await stream.write(encoded()[:40_000])
        await asyncio.sleep(0.05)
        stream.connection.close(5, b"bye")

    async with MemoryStore() as target, serving(quic_pair, close) as connection:
        with pytest.raises(ConnectionError, match="bye"):
            await blobs.get(connection, HASH, into=target)
        assert (await target.status(HASH)).present


async def test_the_end_of_a_transfer_is_acknowledged(quic_pair: Pairs) -> None:
    async with MemoryStore() as source, quic_pair() as pair:
        added = await source.add_bytes(pattern(100_000))
        handle = await source.handle(added.hash)
        assert handle is not None
        sender = _native.BlobSender(source.worker.native)
        over = asyncio.Event()
        stream = await pair.server.open_uni()
        stream.attach(sender, over.set)
        sender.push([(handle, (0,))])
        sender.finish()
        received = await pair.client.accept_uni()
        await received.read_all(limit=200_000)
        await over.wait()
        await asyncio.sleep(0.05)  # the acknowledgement is here before anybody waits for it
        stream.detach(finished=True)
        async with asyncio.timeout(2):
            await stream.acked()
            assert await pair.server.settled()
