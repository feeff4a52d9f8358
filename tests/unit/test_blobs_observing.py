"""Watching a blob at a provider: what is told, whatever a provider tells, and where it ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from blob_serving import Pairs, pattern, serving
from hypothesis import given
from hypothesis import strategies as st

from aioiroh import blobs
from aioiroh.blobs import (
    BlobState,
    BlobStatus,
    ChunkRanges,
    ChunkRangesSeq,
    Hash,
    MemoryStore,
    Provider,
    ProviderError,
    ProviderRefusedError,
    RequestKind,
)
from aioiroh.blobs.getting.observe import MAX_BOUNDARIES
from aioiroh.blobs.messages import MAX_REQUEST_SIZE, ObserveItem
from aioiroh.blobs.transfer.frames import FrameReader
from aioiroh.errors import DecodeError, IncompleteReadError
from aioiroh.quic import BiStream

OBSERVABLE = frozenset((RequestKind.GET, RequestKind.OBSERVE))
HASH = Hash(b"h" * 32)


def telling(*pieces: bytes, hold: bool = False) -> Callable[[BiStream], Any]:
    """A provider that says this, and then ends or (`hold`) waits."""

    async def tell(stream: BiStream) -> None:
        await stream.read_all(limit=1000)
        for piece in pieces:
            await stream.write(piece)
        if hold:
            await stream.send.stopped()

    return tell


# --- ours with ours -------------------------------------------------------------------------------


async def test_a_blob_that_arrives_is_followed(quic_pair: Pairs) -> None:
    size = 500_000
    async with MemoryStore() as origin, MemoryStore() as middle:
        hash = (await origin.add_bytes(pattern(size))).hash
        async with (
            serving(quic_pair, Provider(origin)) as source,
            serving(quic_pair, Provider(middle, serve=OBSERVABLE)) as observed,
            blobs.observe(observed, hash) as states,
        ):
            assert await anext(states) == BlobStatus.missing()
            present = ChunkRanges.empty()
            for query in ((3, 5), (100, 200), (400, 2**64 - 1)):
                ranges = ChunkRangesSeq.blob(ChunkRanges(query))
                await blobs.get(source, hash, into=middle, ranges=ranges)
                here = (await middle.status(hash)).present
                async for status in states:
                    assert present <= status.present
                    present = status.present
                    if present == here:
                        break
            assert status == await middle.status(hash)
            assert status.state is BlobState.PARTIAL and status.size_verified
            waiting = asyncio.create_task(states.until_complete())
            await blobs.get(source, hash, into=middle)
            assert await waiting == BlobStatus.complete(size)


async def test_what_is_deleted_is_told_too(quic_pair: Pairs) -> None:
    async with MemoryStore() as store:
        added = await store.add_bytes(pattern(50_000))
        provider = Provider(store, serve=OBSERVABLE)
        async with (
            serving(quic_pair, provider) as connection,
            blobs.observe(connection, added.hash) as states,
        ):
            assert (await anext(states)).is_complete
            added.tag.release()
            assert await store.collect_garbage() == 1
            assert (await anext(states)).state is BlobState.MISSING


async def test_nobody_observes_by_default(quic_pair: Pairs) -> None:
    async with MemoryStore() as store, serving(quic_pair, Provider(store)) as connection:
        with pytest.raises(ProviderRefusedError):
            async with blobs.observe(connection, HASH) as states:
                await anext(states)


async def test_leaving_the_block_ends_it(quic_pair: Pairs) -> None:
    ended = asyncio.Event()

    async def serve(stream: BiStream) -> None:
        await telling(ObserveItem(0, ChunkRanges.empty()).encode_framed(), hold=True)(stream)
        ended.set()

    async with serving(quic_pair, serve) as connection:
        states = blobs.observe(connection, HASH)
        with pytest.raises(RuntimeError, match="async with"):
            await anext(states)
        async with states:
            await anext(states)
        async with asyncio.timeout(10):
            await ended.wait()


async def test_a_cancelled_wait_loses_nothing(quic_pair: Pairs) -> None:
    items = [ObserveItem(90_000, ChunkRanges((0, n))).encode_framed() for n in (1, 2, 3)]
    go_on = asyncio.Event()

    async def serve(stream: BiStream) -> None:
        await stream.read_all(limit=1000)
        # Cut in the middle of a length and of a message.
        for piece in (items[0] + items[1][:1], items[1][1:4], items[1][4:] + items[2]):
            await stream.write(piece)
            await go_on.wait()
            go_on.clear()
        await stream.send.stopped()

    async with serving(quic_pair, serve) as connection, blobs.observe(connection, HASH) as states:
        assert (await anext(states)).present == ChunkRanges((0, 1))
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await anext(states)
            go_on.set()
        assert (await anext(states)).present == ChunkRanges((1, 2))
        assert (await anext(states)).present == ChunkRanges((0, 1, 2, 3))


# --- whatever a provider tells --------------------------------------------------------------------


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"\x05",),
        (b"\x02\x00",),
        (b"\xff" * 11,),
        (b"\x81\x80\x40",),
        (b"\x01\x00",),
        (b"\x03\x00\x05\x01",),
        (ObserveItem(5, ChunkRanges((3, 4))).encode_framed(),),
    ],
)
async def test_an_answer_that_is_none(quic_pair: Pairs, pieces: tuple[bytes, ...]) -> None:
    async with serving(quic_pair, telling(*pieces)) as connection:
        with pytest.raises(ProviderError):
            async with blobs.observe(connection, HASH) as states:
                async for _ in states:
                    pass


async def test_an_endless_observation_is_bounded(quic_pair: Pairs) -> None:
    """Ever more pieces: only so many are kept in mind."""
    step = 100_000

    async def serve(stream: BiStream) -> None:
        await stream.read_all(limit=1000)
        for number in range(1000):
            first = number * step
            bounds = ChunkRanges(range(first, first + step))
            await stream.write(ObserveItem(1 << 40, bounds).encode_framed())

    async with serving(quic_pair, serve) as connection:
        seen = 0
        with pytest.raises(ProviderError, match="more pieces"):
            async with blobs.observe(connection, HASH) as states:
                async for _ in states:
                    seen += 1
        assert seen == MAX_BOUNDARIES // step


async def test_any_answer_ends_in_a_documented_way(quic_pair: Pairs) -> None:
    chance = random.Random(4)
    good = b"".join(
        ObserveItem(size, ChunkRanges(bounds)).encode_framed()
        for size, bounds in ((100_000, (0, 16)), (100_000, (16, 30)), (100_000, (30,)))
    )

    async def serve(stream: BiStream) -> None:
        await stream.read_all(limit=1000)
        answer = bytearray(good)
        for _ in range(chance.randint(0, 4)):
            answer[chance.randrange(len(answer))] = chance.randrange(256)
        await stream.write(answer[: chance.randint(0, len(answer) * 2)])
        if chance.random() < 0.3:
            stream.send.reset(chance.randrange(6))

    async with serving(quic_pair, serve) as connection:
        ends = set()
        for _ in range(300):
            try:
                async with blobs.observe(connection, HASH) as states:
                    async for status in states:
                        assert isinstance(status, BlobStatus)
                ends.add(None)
            except (blobs.BlobsError, ConnectionError) as error:
                ends.add(type(error))
        assert None in ends and ProviderError in ends


# --- the pieces -----------------------------------------------------------------------------------

bounds = st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=8).map(sorted)
items = st.builds(ObserveItem, st.integers(0, 2**64 - 1), bounds.map(ChunkRanges))


@given(items)
def test_items_round_trip(item: ObserveItem) -> None:
    assert ObserveItem.decode(item.encode()) == item


@given(st.binary(max_size=60))
def test_the_decoder_of_items_is_total(data: bytes) -> None:
    try:
        item = ObserveItem.decode(data)
    except DecodeError:
        return
    assert ObserveItem.decode(item.encode()) == item


class Pieces:
    """A stream that gives its bytes as they are asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def read_exactly(self, n: int) -> bytes:
        taken, self.data = self.data[:n], self.data[n:]
        if len(taken) < n:
            raise IncompleteReadError(taken, n)
        return taken


@given(st.lists(items, max_size=5), st.binary(max_size=12))
def test_frames_come_one_after_the_other(sent: list[ObserveItem], rest: bytes) -> None:
    async def read() -> None:
        framed = b"".join(item.encode_framed() for item in sent)
        frames: Any = FrameReader(Pieces(framed + rest), MAX_REQUEST_SIZE)  # type: ignore[arg-type]
        for item in sent:
            assert ObserveItem.decode(await frames.read()) == item
        assert frames.received == len(framed)
        try:
            while True:
                await frames.read()
        except (DecodeError, IncompleteReadError):
            pass

    asyncio.run(read())
