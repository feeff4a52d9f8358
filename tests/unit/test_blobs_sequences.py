"""What is known of the children of a hash sequence that is here only in part."""

from __future__ import annotations

import pytest

from aioiroh.blobs import ChunkRanges, ChunkRangesSeq, Hash, HashSeq, MemoryStore, NotFoundError
from aioiroh.blobs.store.sequences import KnownChildren, read_known_children
from aioiroh.errors import DecodeError

HASHES = [Hash.of(bytes([number])) for number in range(100)]
ALL, NONE = ChunkRanges.all(), ChunkRanges.empty()


def children(first: int, end: int | None = None) -> ChunkRangesSeq:
    entries = [(first + 1, ALL)]
    if end is not None:
        entries.append((end + 1, NONE))
    return ChunkRangesSeq(entries)


@pytest.mark.parametrize(
    ("present", "is_end", "asked", "reaches", "knows"),
    [
        ((0,), True, children(0), True, True),
        ((1, 2), False, children(32, 64), True, True),
        ((1, 2), False, children(31, 33), True, False),
        ((1, 2), False, children(63, 65), False, False),
        ((1, 2), False, children(40), False, False),
        ((1, 2, 3), True, children(96), True, True),
        ((1, 2, 3), True, children(90), True, False),
        ((1, 2, 3), True, children(100), True, True),
        ((1, 2), False, ChunkRangesSeq.blob(), True, True),
    ],
)
def test_what_is_known(
    present: tuple[int, ...], is_end: bool, asked: ChunkRangesSeq, reaches: bool, knows: bool
) -> None:
    hashes = HASHES if is_end else HASHES[:64]
    known = KnownChildren(HashSeq(hashes), ChunkRanges(present), is_end)
    assert known.reaches(asked) == reaches
    assert known.knows_all(asked) == knows


async def test_reading_what_is_here() -> None:
    async with MemoryStore() as store:
        whole = await store.add_bytes(bytes(HashSeq(HASHES)))
        known = await read_known_children(store, whole.hash)
        assert list(known.hashes) == HASHES and known.is_end and known.knows_all(children(0))
        odd = await store.add_bytes(bytes(33))
        with pytest.raises(DecodeError):
            await read_known_children(store, odd.hash)
        with pytest.raises(NotFoundError):
            await read_known_children(store, Hash.of(b"unknown"))
