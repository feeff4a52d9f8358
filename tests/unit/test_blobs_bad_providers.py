"""Getting from providers that lie, break off or say too much."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from blob_serving import Pairs, answering, pattern, serving

from aioiroh import _native, blobs
from aioiroh.blobs import (
    BlobTooLargeError,
    ChunkRanges,
    Hash,
    MemoryStore,
    NotAvailableError,
    ProviderBusyError,
    ProviderError,
    ProviderRefusedError,
    VerificationError,
)
from aioiroh.errors import StreamResetError
from aioiroh.quic import BiStream

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
