"""Counting the progress of a get."""

from __future__ import annotations

from aioiroh.blobs.getting.tally import Arriving, Progress, Tally
from aioiroh.blobs.ranges import ChunkRanges
from aioiroh.blobs.rangeseq import ChunkRangesSeq
from aioiroh.blobs.store.interface import BlobState, BlobStatus

MISSING = BlobStatus.missing()


def test_a_blob_nobody_knows_anything_of() -> None:
    tally = Tally()
    tally.local(ChunkRangesSeq.blob(), MISSING, None)
    assert tally.progress() == Progress(0, None, 0, 1, 0)
    tally.arrived(0, 5000, 0, False)
    assert tally.progress() == Progress(0, 5000, 0, 1, 0)
    tally.arrived(0, 5000, 4096, False)
    assert tally.progress() == Progress(4096, 5000, 0, 1, 4096)
    tally.arrived(0, 5000, 5000, True)
    assert tally.progress() == Progress(5000, 5000, 1, 1, 5000)
    tally.local(ChunkRangesSeq.blob(), BlobStatus.complete(5000), None)
    assert tally.progress() == Progress(5000, 5000, 1, 1, 5000)


def test_a_part_is_there_already() -> None:
    part = BlobStatus(BlobState.PARTIAL, 100_000, True, ChunkRanges((0, 16, 97)))
    tally = Tally()
    tally.local(ChunkRangesSeq.blob(), part, None)
    assert tally.progress() == Progress(16384 + 672, 100_000, 0, 1, 0)


def test_what_is_on_its_way() -> None:
    part = BlobStatus(BlobState.PARTIAL, 100_000, True, ChunkRanges((0, 16)))
    tally = Tally()
    tally.local(ChunkRangesSeq.all(), BlobStatus.complete(64), [part, MISSING])
    assert tally.arriving == []
    tally.arrived(1, 100_000, 1024, False)
    tally.arrived(2, None, 0, False)
    assert tally.arriving == [Arriving(1, 16384 + 1024, 100_000), Arriving(2, 0, None)]
    tally.arrived(1, 100_000, 100_000 - 16384, True)
    assert tally.arriving == [Arriving(2, 0, None)]


def test_only_some_chunks_are_wanted() -> None:
    tally = Tally()
    tally.local(ChunkRangesSeq.blob(ChunkRanges((0, 2))), MISSING, None)
    tally.arrived(0, 100_000, 1024, False)
    assert tally.progress() == Progress(1024, 2048, 0, 1, 1024)


def test_a_hash_sequence_without_sizes() -> None:
    tally = Tally()
    tally.local(ChunkRangesSeq.all(), MISSING, None)
    assert tally.progress() == Progress(0, None, 0, None, 0)
    tally.arrived(0, 64, 64, True)
    # Now the number of blobs is known, their sizes are not.
    assert tally.progress() == Progress(64, None, 1, 3, 64)
    tally.arrived(1, 10, 10, True)
    tally.arrived(2, 20, 20, True)
    assert tally.progress() == Progress(94, 94, 3, 3, 94)


def test_a_hash_sequence_with_sizes() -> None:
    tally = Tally()
    tally.local(ChunkRangesSeq.all(), BlobStatus.complete(64), [MISSING, BlobStatus.complete(7)])
    tally.sizes([10, 7])
    assert tally.progress() == Progress(71, 81, 2, 3, 0)
    tally.arrived(1, 10, 10, True)
    assert tally.progress() == Progress(81, 81, 3, 3, 10)


def test_a_size_that_turns_out_to_be_another() -> None:
    tally = Tally()
    tally.local(ChunkRangesSeq.blob(), MISSING, None)
    tally.arrived(0, 9000, 0, False)
    tally.arrived(0, 5000, 0, False)
    assert tally.progress().total == 5000
