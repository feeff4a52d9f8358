"""Requests as bytes, to upstream's providers and to ours: how each of them ends.

The table is what upstream's providers do; where ours means to differ, it says so. (iroh wire format: the kind as one
byte, hashes as they are, numbers as varints.)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aioiroh import Connection, Endpoint, Router, blobs
from aioiroh.blobs import (
    ChunkRanges,
    ChunkRangesSeq,
    Hash,
    HashSeq,
    MemoryStore,
    Provider,
)
from aioiroh.errors import StreamResetError, StreamStoppedError
from meeting import LOOPBACK, address, pattern, where
from sharing import ALPN, hex_of

SIZES = [1000 * i for i in range(1, 101)]
"""Sizes of the children of a hash sequence that fills four chunks."""
CHILDREN = [Hash.of(pattern(size)) for size in SIZES]
SEQUENCE = HashSeq(CHILDREN)
ODD = pattern(33)

BLOB = bytes(CHILDREN[-1])
ROOT = bytes(Hash.of(bytes(SEQUENCE)))
UNKNOWN = bytes(32)
ALL = bytes.fromhex("020001000100")
FIN, INTERNAL = "fin", "reset 3"

Answer = tuple[int, str]
"""How many bytes came, and how the stream ended."""
# What everybody does, and what the others do where they differ.
Expected = Answer | dict[str, Answer]


def get(hash: bytes, ranges: str) -> bytes:
    return b"\x00" + hash + bytes.fromhex(ranges)


def get_many(hashes: list[bytes], ranges: str) -> bytes:
    return b"\x09" + bytes((len(hashes),)) + b"".join(hashes) + bytes.fromhex(ranges)


def varint(number: int) -> str:
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes((*data, number)).hex()


def children(first: int, end: int | None = None) -> bytes:
    """All of the children from `first` up to and without `end`."""
    if end is None:
        return get(ROOT, "01" + varint(first + 1) + "0100")
    return get(ROOT, "02" + varint(first + 1) + "0100" + varint(end - first) + "00")


REFUSED: Expected = (0, FIN)
# 0.103 takes what 0.104 does not.
LAX = {"0.104": (0, FIN), "ours": (0, FIN)}
WELL_FORMED: dict[str, tuple[bytes, Expected]] = {
    "a blob": (get(BLOB, "020001000100"), (100_392, FIN)),
    "a sequence": (get(ROOT, "01000100"), (5_070_584, FIN)),
    "nothing": (get(BLOB, "00"), (0, FIN)),
    "nothing of an unknown blob": (get(UNKNOWN, "00"), (0, FIN)),
    "an unknown blob": (get(UNKNOWN, "020001000100"), (0, INTERNAL)),
    "numbers that are not minimal": (get(BLOB, "82000001000100"), (100_392, FIN)),
    "bytes behind the request": (get(BLOB, "020001000100") + b"more", (100_392, FIN)),
    "as many bytes as are read": (
        (get(BLOB, "020001000100") + bytes(1 << 20))[: 1 + (1 << 20)],
        (100_392, FIN),
    ),
    "several": (get_many([*map(bytes, CHILDREN[:2])], "020001000200"), (3016, FIN)),
    "the same twice": (get_many([bytes(CHILDREN[0])] * 2, "020001000200"), (2016, FIN)),
    "several without an end": (get_many([*map(bytes, CHILDREN[:2])], "01000100"), (3016, FIN)),
    "more ranges than blobs": (get_many([bytes(CHILDREN[0])], "020001000900"), (1008, FIN)),
    "none of none": (get_many([], "00"), (0, FIN)),
    "an unknown one first": (
        get_many([UNKNOWN, bytes(CHILDREN[0])], "020001000200"),
        (0, INTERNAL),
    ),
    # A reset may take with it what was sent before; ours ends the stream instead.
    "an unknown one second": (
        get_many([bytes(CHILDREN[0]), UNKNOWN], "020001000200"),
        {"ours": (1008, FIN), "upstream": (-1, INTERNAL)},
    ),
    "an odd sequence": (
        get(bytes(Hash.of(ODD)), "01000100"),
        {"ours": (41, FIN), "upstream": (-1, INTERNAL)},
    ),
    "a child of an odd sequence": (get(bytes(Hash.of(ODD)), "020101000100"), (0, INTERNAL)),
    "the last child": (children(99), (100_392, FIN)),
    "behind the last child": (children(100), (0, FIN)),
    "far behind the last child": (children(1 << 20), (0, FIN)),
}
MALFORMED: dict[str, tuple[bytes, Expected]] = {
    "nothing at all": (b"", REFUSED),
    "half a hash": (b"\x00" + BLOB[:20], REFUSED),
    "a width of zero": (get(BLOB, "020004000500050100"), {**LAX, "0.103": (10_632, FIN)}),
    "a distance of zero": (get(BLOB, "030001000002000a0100"), {**LAX, "0.103": (10_632, FIN)}),
    "an empty first set": (get(BLOB, "010000"), REFUSED),
    # There it is a set for the blob and one for its children, which it does not have.
    "the same set again": (get(BLOB, "03000100010100010000"), {**LAX, "0.103": (-1, INTERNAL)}),
    "a chunk over 64 bits": (get(BLOB, "010002ffffffffffffffffff0101"), REFUSED),
    "a byte too many": ((get(BLOB, "020001000100") + bytes(1 << 20))[: 2 + (1 << 20)], REFUSED),
    "a kind that is not taken yet": (b"\x02" + BLOB, REFUSED),
    "a kind that does not exist": (b"\x0a" + BLOB, REFUSED),
}
NOT_FOR_103 = [
    # It takes this for a question that has an answer, and one without an end.
    b"\x01" + BLOB + bytes.fromhex("0400050005"),
    # It counts up to the index, and answers nobody meanwhile.
    get(BLOB, "02ffffffffffffffffff0101000100"),
]
# Of the sequence they have chunk 1, with children 32 to 63, and maybe the last, with 96 to 99.
PARTIAL: dict[str, tuple[bytes, Answer | None, Answer | None]] = {
    "a child that is not known": (children(0, 1), (0, INTERNAL), (0, INTERNAL)),
    "a child that is known": (children(40, 41), (41_136, FIN), (41_136, FIN)),
    "all that are known": (children(32, 64), (1_557_312, FIN), (1_557_312, FIN)),
    "known after an unknown one": (children(31, 33), (0, INTERNAL), (0, INTERNAL)),
    "all": (children(0), (0, INTERNAL), (0, INTERNAL)),
    "the last": (children(99, 100), (0, INTERNAL), (100_392, FIN)),
    "from the last on": (children(99), (0, INTERNAL), (100_392, FIN)),
    # Without the proof of its size nobody knows where the sequence ends.
    "behind the last": (children(100), (0, INTERNAL), (0, FIN)),
    "a part of a group": (get(ROOT, "0200020101" + "0100"), (0, INTERNAL), (0, INTERNAL)),
}


async def ask(connection: Connection, data: bytes, *, finish: bool = True) -> Answer:
    """What comes back to these bytes."""
    async with asyncio.timeout(30), connection.open_bi() as stream:
        try:
            await stream.write(data)
            if finish:
                await stream.finish()
        except StreamStoppedError as stopped:
            assert stopped.code == 0
        length = 0
        try:
            while piece := await stream.read():
                length += len(piece)
        except StreamResetError as reset:
            return length, f"reset {reset.code}"
        if not finish:
            assert await stream.send.stopped() == 0
        return length, FIN


def check(provider: str, answer: Answer, expected: Expected) -> None:
    if isinstance(expected, dict):
        if provider not in expected and "upstream" not in expected:
            return
        expected = expected.get(provider) or expected["upstream"]
    length, end = expected
    assert answer == (answer[0] if length < 0 else length, end)


@asynccontextmanager
async def origin() -> AsyncIterator[Endpoint]:
    """Where everybody gets the blobs from."""
    async with (
        MemoryStore() as store,
        Endpoint.bind(bind=LOOPBACK) as endpoint,
        Router(endpoint, {blobs.ALPN: Provider(store)}),
    ):
        for size in SIZES:
            await store.add_bytes(pattern(size))
        await store.add_bytes(bytes(SEQUENCE))
        await store.add_bytes(ODD)
        yield endpoint


@pytest.fixture(params=["0.104", "0.103", "ours"])
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def asked(
    request: pytest.FixtureRequest, provider: str, peers: dict[str, Callable[..., Any]]
) -> Callable[..., Any]:
    """`async with asked(root=None) as connection`: to a provider that has of the sequence chunks `root`."""
    if provider == "ours":
        return ours
    make = peers[provider]

    @asynccontextmanager
    async def theirs(root: tuple[int, ...] = (0,)) -> AsyncIterator[Connection]:
        async with (
            origin() as source,
            make(alpns={ALPN: "blobs"}) as peer,
            Endpoint.bind(bind=LOOPBACK) as endpoint,
        ):
            await peer("store", push=True)
            conn = (await peer("connect", alpn=ALPN, **where(source)))["conn"]
            for hash in (*CHILDREN, Hash.of(ODD)):
                await peer("blob_get", conn=conn, hash=hex_of(hash), ranges=[[0]])
            await peer("blob_get", conn=conn, hash=ROOT.hex(), ranges=[list(root)])
            async with endpoint.connect(address(peer), alpn=blobs.ALPN) as connection:
                yield connection

    return theirs


@asynccontextmanager
async def ours(root: tuple[int, ...] = (0,)) -> AsyncIterator[Connection]:
    async with origin() as source, Endpoint.bind(bind=LOOPBACK) as endpoint:
        if root == (0,):
            async with endpoint.connect(source.addr, alpn=blobs.ALPN) as connection:
                yield connection
            return
        async with (
            MemoryStore() as part,
            Endpoint.bind(bind=LOOPBACK) as holder,
            Router(holder, {blobs.ALPN: Provider(part)}),
        ):
            for size in SIZES:
                await part.add_bytes(pattern(size))
            async with holder.connect(source.addr, alpn=blobs.ALPN) as connection:
                ranges = ChunkRangesSeq.blob(ChunkRanges(root))
                await blobs.get(connection, Hash(ROOT), into=part, ranges=ranges)
            async with endpoint.connect(holder.addr, alpn=blobs.ALPN) as connection:
                yield connection


async def test_well_formed_requests(provider: str, asked: Callable[..., Any]) -> None:
    async with asked() as connection:
        for meaning, (data, expected) in WELL_FORMED.items():
            print(meaning)
            check(provider, await ask(connection, data), expected)


async def test_malformed_requests(provider: str, asked: Callable[..., Any]) -> None:
    """No answer, and the connection is as good as before."""
    async with asked() as connection:
        for meaning, (data, expected) in MALFORMED.items():
            print(meaning)
            check(provider, await ask(connection, data), expected)
        # Upstream does not wait for the end of what it cannot understand, and neither do we.
        for kind in (b"\x02", b"\x0a", b"\xff", b"\x08\x81\x80\x40"):
            assert await ask(connection, kind, finish=False) == (0, FIN)
        for data in () if provider == "0.103" else NOT_FOR_103:
            assert await ask(connection, data) == (0, FIN)
        assert await ask(connection, get(BLOB, "020001000100")) == (100_392, FIN)


@pytest.mark.parametrize("proved", [False, True])
async def test_children_of_a_partial_sequence(
    provider: str, asked: Callable[..., Any], proved: bool
) -> None:
    """0.103 needs all of the sequence; 0.104 and ours only the hashes that are asked for."""
    async with asked((1, 2, 3) if proved else (1, 2)) as connection:
        for meaning, (data, unproved, with_proof) in PARTIAL.items():
            print(meaning)
            expected = with_proof if proved else unproved
            answer = await ask(connection, data)
            assert answer == ((0, INTERNAL) if provider == "0.103" else expected)
        # Known ones before an unknown one: ours sends them for sure.
        length, end = await ask(connection, children(32, 65))
        if provider == "ours":
            assert (length, end) == (1_557_312, FIN)
        else:
            assert end == INTERNAL
