"""A provider that lies, made of our own pieces below the provider, and both kinds of getters.

Whoever gets a blob from it keeps the groups of chunks that verified, and nothing from the first bad
one on. (iroh wire format: size as 8 bytes, then hash pairs and groups of 16 KiB in pre-order.)
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from aioiroh import BiStream, Connection, Endpoint, Router, blobs
from aioiroh._native import encode_blob
from aioiroh.blobs import (
    BlobFormat,
    BlobTooLargeError,
    ChunkRanges,
    Hash,
    HashAndFormat,
    HashSeq,
    MemoryStore,
    ProviderError,
    VerificationError,
)
from meeting import LOOPBACK, address, pattern, where
from remote_peer import PeerError
from sharing import ALPN, hex_of, to_them

GROUP = 16 << 10
DATA = random.Random(1).randbytes(20 * GROUP + 5)
HONEST = encode_blob(DATA, (0,))
CHUNKS = 20 * 16 + 1


def place(group: int) -> int:
    """Where the data of a group begin in the answer to a request for everything."""
    return HONEST.index(DATA[group * GROUP : (group + 1) * GROUP])


def flipped(at: int) -> bytes:
    """The honest answer with one bit changed."""
    return HONEST[:at] + bytes([HONEST[at] ^ 1]) + HONEST[at + 1 :]


def sized(size: int) -> bytes:
    """The honest answer behind another size."""
    return size.to_bytes(8, "little") + HONEST[8:]


# What comes instead of the honest answer, and how many groups of it can be kept.
LIES: dict[str, tuple[bytes, int]] = {
    "a bit in the first group": (flipped(place(0) + 100), 0),
    "a bit in the sixth group": (flipped(place(5)), 5),
    "the last bit of the eighth group": (flipped(place(7) + GROUP - 1), 7),
    "a bit at the very end": (flipped(len(HONEST) - 1), 20),
    "a bit in the root's hashes": (flipped(8), 0),
    "a bit in hashes further down": (flipped(place(4) - 1), 4),
    "a smaller size": (sized(len(DATA) - 1), 20),
    "a tiny size": (sized(1), 0),
    "other data with the right size": (sized(len(DATA))[:8] + encode_blob(DATA[::-1], (0,))[8:], 0),
    "twice the first group": (HONEST[: place(1)] + HONEST[place(0) :], 1),
}
CUTS: dict[str, tuple[bytes, int]] = {
    "half a size": (HONEST[:4], 0),
    "only the size": (HONEST[:8], 0),
    "half a group": (HONEST[: place(3) + 1000], 3),
    "all but a byte": (HONEST[:-1], 20),
    "a larger size": (sized(len(DATA) + 1), 20),
    "a size with another tree": (sized(len(DATA) + GROUP), 20),
}


def lying(answer: bytes) -> Callable[[Connection], Any]:
    """A protocol handler that answers every request with the same bytes."""

    async def tell(stream: BiStream) -> None:
        await stream.read_all(limit=1 << 20)
        await stream.write(answer)

    async def serve(connection: Connection) -> None:
        await connection.serve(tell)

    return serve


@pytest.mark.parametrize(("answer", "kept"), {**LIES, **CUTS}.values(), ids=[*LIES, *CUTS])
async def test_they_notice(blobs_peer: Callable[..., Any], answer: bytes, kept: int) -> None:
    """Upstream's getter says so and keeps no wrong byte: it is the measure for ours."""
    hash = Hash.of(DATA)
    async with to_them(blobs_peer, lying(answer)) as link:
        with pytest.raises(PeerError):
            await link.they("get", hash, ranges=[[0]])
        state = await link.peer("blob_state", hash=hex_of(hash))
        present = ChunkRanges(state["ranges"])
        assert present <= ChunkRanges.chunks(0, kept * 16)


@pytest.mark.parametrize(("answer", "kept"), LIES.values(), ids=LIES)
async def test_we_notice(answer: bytes, kept: int) -> None:
    await get_from_liar(answer, kept, VerificationError)


@pytest.mark.parametrize(("answer", "kept"), CUTS.values(), ids=CUTS)
async def test_we_notice_an_early_end(answer: bytes, kept: int) -> None:
    await get_from_liar(answer, kept, ProviderError)


async def test_we_refuse_an_impossible_size() -> None:
    await get_from_liar(sized(2**63 + 1), 0, BlobTooLargeError)


async def get_from_liar(answer: bytes, kept: int, error: type[Exception]) -> None:
    hash = Hash.of(DATA)
    async with (
        Endpoint.bind(bind=LOOPBACK) as server,
        Router(server, {blobs.ALPN: lying(answer)}),
        Endpoint.bind(bind=LOOPBACK) as client,
        MemoryStore() as store,
        client.connect(server.addr, alpn=blobs.ALPN) as connection,
    ):
        with pytest.raises(error):
            await blobs.get(connection, hash, into=store)
        present = (await store.status(hash)).present & ChunkRanges.chunks(0, CHUNKS)
        assert present == ChunkRanges.chunks(0, kept * 16)
        if kept:
            handle = await store.handle(hash)
            assert handle is not None
            assert handle.read(0, kept * GROUP) == DATA[: kept * GROUP]


async def test_an_honest_upstream_mends_what_a_liar_left(blobs_peer: Callable[..., Any]) -> None:
    hash = Hash.of(DATA)
    answer, kept = LIES["a bit in the sixth group"]
    async with (
        Endpoint.bind(bind=LOOPBACK) as liar,
        Router(liar, {blobs.ALPN: lying(answer)}),
        Endpoint.bind(bind=LOOPBACK) as client,
        blobs_peer(alpns={ALPN: "blobs"}) as honest,
        MemoryStore() as store,
    ):
        await honest("store")
        await honest("blob_add", hex=DATA.hex())
        with pytest.raises(VerificationError):
            await blobs.get(client, hash, into=store, provider=liar.addr)
        got = await blobs.get(client, hash, into=store, provider=address(honest))
        assert got.received == len(DATA) - kept * GROUP
        assert await store.read_bytes(hash, limit=len(DATA)) == DATA


async def test_a_wrong_child(blobs_peer: Callable[..., Any]) -> None:
    """The root is right, one of its children is another blob: both getters keep the ones before."""
    children = [pattern(1000), pattern(2000), pattern(3000)]
    root = bytes(HashSeq(map(Hash.of, children)))
    wrong = [children[0], b"\0" * 2000, children[2]]
    answer = b"".join(encode_blob(data, (0,)) for data in (root, *wrong))
    hashes = [Hash.of(data) for data in (root, *children)]
    async with (
        Endpoint.bind(bind=LOOPBACK) as server,
        Router(server, {blobs.ALPN: lying(answer)}),
        Endpoint.bind(bind=LOOPBACK) as client,
        blobs_peer() as peer,
        MemoryStore() as store,
    ):
        with pytest.raises(VerificationError):
            await blobs.get(
                client,
                HashAndFormat(hashes[0], BlobFormat.HASH_SEQ),
                into=store,
                provider=server.addr,
            )
        ours = [(await store.status(hash)).is_complete for hash in hashes]

        await peer("store")
        known = await peer("connect", alpn=ALPN, **where(server))
        with pytest.raises(PeerError):
            await peer(
                "blob_get", conn=known["conn"], hash=hex_of(hashes[0]), ranges=[[0]], open=True
            )
        states = [await peer("blob_state", hash=hex_of(hash)) for hash in hashes]
        assert ours == [state["status"] == "complete" for state in states]
        assert ours == [True, True, False, False]
