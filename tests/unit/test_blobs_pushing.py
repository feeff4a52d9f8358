"""Pushing over a real connection on loopback: what is taken, what is refused, and hostile pushers."""

from __future__ import annotations

import asyncio
import random
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import pytest
from blob_serving import Pairs, pattern, serving

from aioiroh import _native, blobs
from aioiroh.blobs import (
    BlobFormat,
    ChunkRanges,
    ChunkRangesSeq,
    FileStore,
    Hash,
    HashAndFormat,
    HashSeq,
    IncompleteBlobError,
    Limits,
    MemoryStore,
    NotFoundError,
    Provider,
    ProviderError,
    ProviderRefusedError,
    PushReceived,
    PushRequest,
    RequestKind,
)
from aioiroh.blobs.messages import encode_request
from aioiroh.errors import StreamResetError
from aioiroh.quic import Connection

EVERYTHING = frozenset(RequestKind)
SIZES = (0, 1, 1024, 16_385, 300_000)


def taking(
    quic_pair: Pairs, store: blobs.Store, **options: Any
) -> AbstractAsyncContextManager[Connection]:
    """The pusher's end of a connection to a provider that takes pushes into `store`."""
    options.setdefault("serve", EVERYTHING)
    return serving(quic_pair, Provider(store, **options))


async def add_sequence(store: blobs.Store, sizes: tuple[int, ...] = SIZES) -> HashAndFormat:
    children = [(await store.add_bytes(pattern(size))).hash for size in sizes]
    root = await store.add_bytes(bytes(HashSeq(children)), BlobFormat.HASH_SEQ)
    return HashAndFormat(root.hash, BlobFormat.HASH_SEQ)


def push_of(data: bytes, ranges: ChunkRangesSeq | None = None) -> bytes:
    """A push of one blob, as on the stream."""
    request = PushRequest(Hash.of(data), ranges or ChunkRangesSeq.blob())
    return encode_request(request) + _native.encode_blob(data, (0,))


async def send_raw(connection: Connection, data: bytes) -> int | None:
    """How the provider ends a push of these bytes: the code of its reset, None if it took it."""
    async with connection.open_bi() as stream:
        with suppress(ConnectionError):
            await stream.write(data)
            await stream.finish()
        try:
            assert await stream.read_all(limit=0) == b""
        except StreamResetError as reset:
            return reset.code
        return None


# --- ours with ours -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "files"])
async def test_everything_arrives(quic_pair: Pairs, tmp_path: Path, kind: str) -> None:
    pushes: list[PushReceived] = []
    async with MemoryStore() as ours, MemoryStore() as memory:
        store = memory if kind == "memory" else await FileStore.open(tmp_path / "store")
        async with store, taking(quic_pair, store, on_push=pushes.append) as connection:
            content = await add_sequence(ours)
            for expected in (1, 2):
                pushed = await blobs.push(connection, content, store=ours, confirm=True)
                assert pushed.content == content and pushed.is_confirmed
                assert pushed.sent == 32 * len(SIZES) + sum(SIZES)
                assert len(pushes) == expected
                assert pushes[-1].content == content
                assert pushes[-1].payload_bytes == pushed.sent
                assert pushes[-1].blobs == 1 + len(SIZES)
            for size in SIZES:
                hash = Hash.of(pattern(size))
                assert await store.read_bytes(hash, limit=size) == pattern(size)


async def test_the_same_blob_many_times(quic_pair: Pairs) -> None:
    """More often than blobs are announced at a time, so that some come after it is complete."""
    sizes = (70_000, *[5000] * 300, 70_000)
    async with MemoryStore() as ours, MemoryStore() as store:
        content = await add_sequence(ours, sizes)
        async with taking(quic_pair, store) as connection:
            pushed = await blobs.push(connection, content, store=ours, confirm=True)
            assert pushed.sent == 32 * len(sizes) + sum(sizes)


async def test_nothing_is_pushed_that_is_not_here(quic_pair: Pairs) -> None:
    asked: list[Any] = []
    async with MemoryStore() as ours, MemoryStore() as store, MemoryStore() as part:
        hash = (await ours.add_bytes(pattern(100_000))).hash
        async with taking(quic_pair, store, on_transfer=asked.append) as connection:
            with pytest.raises(NotFoundError):
                await blobs.push(connection, Hash.of(b"x"), store=ours)
            sequence = HashSeq([hash, Hash.of(b"x")])
            root = await ours.add_bytes(bytes(sequence), BlobFormat.HASH_SEQ)
            with pytest.raises(NotFoundError):
                await blobs.push(
                    connection, HashAndFormat(root.hash, BlobFormat.HASH_SEQ), store=ours
                )
            assert not asked
            await blobs.push(connection, hash, store=ours)
            some = ChunkRangesSeq.blob(ChunkRanges((16, 32, 96)))
            await blobs.get(connection, hash, into=part, ranges=some)
            with pytest.raises(IncompleteBlobError):
                await blobs.push(connection, hash, store=part)
            pushed = await blobs.push(connection, hash, store=part, ranges=some, confirm=True)
            assert pushed.sent == 16 * 1024 + 100_000 - 96 * 1024


async def test_a_peer_that_cannot_be_observed_confirms_all_the_same(quic_pair: Pairs) -> None:
    kinds = frozenset((RequestKind.GET, RequestKind.PUSH))
    async with MemoryStore() as ours, MemoryStore() as store:
        content = await add_sequence(ours)
        async with taking(quic_pair, store, serve=kinds) as connection:
            assert (await blobs.push(connection, content, store=ours, confirm=True)).is_confirmed


async def test_pushes_are_refused_unless_they_are_served(quic_pair: Pairs) -> None:
    async with MemoryStore() as ours, MemoryStore() as store:
        hash = (await ours.add_bytes(b"hello")).hash
        reads = frozenset(RequestKind) - {RequestKind.PUSH}
        for options in (
            {"serve": reads},
            {"authorize": lambda request: request.kind is not RequestKind.PUSH},
        ):
            async with taking(quic_pair, store, **options) as connection:
                with pytest.raises(ProviderRefusedError, match="no pushes"):
                    await blobs.push(connection, hash, store=ours)
            assert await store.handle(hash) is None


async def test_a_hook_that_fails_is_the_applications_affair(quic_pair: Pairs) -> None:
    async def fail(push: PushReceived) -> None:
        raise RuntimeError("no room for names")

    async with MemoryStore() as ours, MemoryStore() as store:
        hash = (await ours.add_bytes(b"hello")).hash
        async with taking(quic_pair, store, on_push=fail) as connection:
            with pytest.raises(ProviderError):
                await blobs.push(connection, hash, store=ours)


# --- hostile pushers ------------------------------------------------------------------------------


async def test_a_push_that_lies(quic_pair: Pairs) -> None:
    data = pattern(300_000)
    good = push_of(data)
    async with MemoryStore() as store, taking(quic_pair, store) as connection:
        for at in (len(good) - 1, len(good) - 200_000, 200):
            lie = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
            assert await send_raw(connection, lie) == 3
            assert not (await store.status(Hash.of(data))).is_complete
        # A size that is too large; none at all; less than was announced.
        header = good.index(len(data).to_bytes(8, "little"))
        huge = good[:header] + (2**63).to_bytes(8, "little") + good[header + 8 :]
        for push in (huge, good[:header], good[:-1]):
            assert await send_raw(connection, push) == 3
        assert await send_raw(connection, good) is None
        assert (await store.status(Hash.of(data))).is_complete


async def test_more_than_was_announced(quic_pair: Pairs) -> None:
    data = pattern(50_000)
    async with MemoryStore() as store, taking(quic_pair, store) as connection:
        for more in (1, 1000, 1_000_000):
            assert await send_raw(connection, push_of(data) + bytes(more)) is None
        assert await store.read_bytes(Hash.of(data), limit=50_000) == data


async def test_too_many_blobs(quic_pair: Pairs) -> None:
    async with MemoryStore() as ours, MemoryStore() as store:
        content = await add_sequence(ours, tuple(range(1, 300)))
        limits = Limits(push_blobs=150)
        async with taking(quic_pair, store, limits=limits) as connection:
            with pytest.raises(ProviderError, match="code 3"):
                await blobs.push(connection, content, store=ours)
            # Their number was known when the sequence had come.
            assert [hash async for hash, _ in store.blobs()] == [content.hash]
        async with taking(quic_pair, store, limits=Limits(push_blobs=300)) as connection:
            await blobs.push(connection, content, store=ours, confirm=True)


@pytest.mark.parametrize("ranges", [None, ChunkRangesSeq.sizes()])
async def test_not_a_byte_too_much(quic_pair: Pairs, ranges: ChunkRangesSeq | None) -> None:
    sizes = (10, 3_000_000, 5, 40_000, 16_384, 7)
    wanted = ChunkRanges.all() if ranges is None else ChunkRanges.last_chunk()
    carried = [wanted.selected_bytes(size) for size in sizes]
    for enough in range(1, len(sizes) + 1):
        async with MemoryStore() as ours, MemoryStore() as store:
            content = await add_sequence(ours, sizes)
            limit = 32 * len(sizes) + sum(carried[:enough]) + (enough < len(sizes))
            limits = Limits(push_size=limit)
            async with taking(quic_pair, store, limits=limits) as connection:
                try:
                    await blobs.push(connection, content, store=ours, ranges=ranges, confirm=True)
                except ProviderError:
                    assert enough < len(sizes)
                else:
                    assert enough == len(sizes)
                statuses = await store.statuses([Hash.of(pattern(size)) for size in sizes])
                assert [bool(status.present) for status in statuses] == [
                    number < enough for number in range(len(sizes))
                ]


async def test_children_of_nothing(quic_pair: Pairs) -> None:
    """The sequence is neither here nor in the push."""
    child = pattern(1000)
    ranges = ChunkRangesSeq(((1, ChunkRanges.all()), (2, ChunkRanges.empty())))
    request = encode_request(PushRequest(Hash.of(b"unknown"), ranges))
    async with MemoryStore() as store, taking(quic_pair, store) as connection:
        assert await send_raw(connection, request + _native.encode_blob(child, (0,))) == 3
        assert not (await store.status(Hash.of(child))).present
        # And one that is none.
        assert await send_raw(connection, push_of(pattern(33), ChunkRangesSeq.all())) == 3


@pytest.mark.parametrize("seed", range(3))
async def test_any_push_ends_and_nothing_false_is_kept(quic_pair: Pairs, seed: int) -> None:
    chance = random.Random(seed)
    parts = [pattern(40_000), pattern(5), b""]
    sequence = b"".join(bytes(Hash.of(part)) for part in parts)
    whole = [sequence, *parts]
    request = encode_request(PushRequest(Hash.of(sequence), ChunkRangesSeq.all()))
    good = request + b"".join(_native.encode_blob(part, (0,)) for part in whole)
    ends = set()
    for _ in range(25):
        async with MemoryStore() as store, taking(quic_pair, store) as connection:
            for _ in range(4):
                push = bytearray(good)
                for _ in range(chance.randint(0, 3)):
                    at = chance.randrange(len(push))
                    match chance.randrange(3):
                        case 0:
                            push[at] ^= 1 << chance.randrange(8)
                        case 1:
                            del push[at : at + chance.randint(1, 200)]
                        case _:
                            push[at:at] = chance.randbytes(chance.randint(1, 50))
                async with asyncio.timeout(20):
                    ends.add(await send_raw(connection, bytes(push)))
                for part in whole:
                    if (await store.status(Hash.of(part))).is_complete:
                        assert await store.read_bytes(Hash.of(part), limit=1 << 20) == part
    assert None in ends and 3 in ends
