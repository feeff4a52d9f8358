"""What a download still has to ask for, and cutting it into requests. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ..ranges import CHUNK_SIZE, ChunkRanges, chunk_count

__all__ = ["SMALLEST_PIECE", "Backlog", "Lacks", "Part"]

SMALLEST_PIECE: Final = 1 << 20
"""Bytes; pieces are this or a power of two more."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one request asks of one blob. Index 0 is the content itself, i + 1 child i."""

    index: int
    ranges: ChunkRanges

    @property
    def is_whole(self) -> bool:
        return self.ranges.is_all

    @property
    def is_proof(self) -> bool:
        """Whether it is only the last chunk, whatever the size."""
        return self.ranges == ChunkRanges.last_chunk()


Lacks = Callable[[int], ChunkRanges]
"""The chunks of a blob that a provider does not have, as far as is known."""


@dataclass(slots=True)
class _Divided:
    """A blob that is fetched in pieces: what of it nobody fetches now.

    Nothing is cut before the size is proved: until then there is the proof to be had, and the head.
    """

    size: int | None
    missing: ChunkRanges
    proof: bool
    """Whether the proof of the size is to be asked for."""

    def offer(self, lacking: ChunkRanges, piece: int) -> ChunkRanges:
        """What a provider can be asked for at once: pieces are aligned and have `piece` chunks."""
        if self.size is None:
            if self.proof and lacking.isdisjoint(ChunkRanges.last_chunk()):
                return ChunkRanges.last_chunk()
            return (self.missing & ChunkRanges.chunks(0, piece)) - lacking
        free = self.missing - lacking
        if not free:
            return free
        start = free.boundaries[0] // piece * piece
        return free & ChunkRanges.chunks(start, start + piece)


class Backlog:
    """The parts that nobody fetches now.

    Small blobs are kept as runs of indexes and asked for whole, many in one request; others are
    divided. Memory grows with the number of divided blobs and of runs, not of small blobs.
    """

    def __init__(self) -> None:
        self._divided: dict[int, _Divided] = {}
        # Of the divided ones those that have something to give, in order.
        self._giving: dict[int, None] = {}
        self._runs: deque[tuple[int, int]] = deque()

    def __bool__(self) -> bool:
        return bool(self._giving or self._runs)

    def is_divided(self, index: int) -> bool:
        return index in self._divided

    def size(self, index: int) -> int | None:
        """The proved size of a divided blob in bytes."""
        divided = self._divided.get(index)
        return None if divided is None else divided.size

    # --- putting in -------------------------------------------------------------------------------

    def add_whole(self, runs: Iterable[tuple[int, int]]) -> None:
        """Small blobs, or such of unknown size, of which nothing is here: runs of indexes."""
        self._runs.extend((start, end) for start, end in runs if start < end)

    def divide(self, index: int, missing: ChunkRanges, size: int | None) -> None:
        """A blob to be fetched in pieces; `size` in bytes if it is proved."""
        divided = self._divided[index] = _Divided(size, missing, proof=size is None)
        if size is not None:
            divided.missing &= ChunkRanges.chunks(0, chunk_count(size))
        self._note(index, divided)

    def prove(self, index: int, size: int) -> None:
        """The size of a divided blob is proved, and with it the last chunk is here."""
        divided = self._divided.get(index)
        if divided is None or divided.size is not None:
            return
        divided.size, divided.proof = size, False
        divided.missing &= ChunkRanges.chunks(0, chunk_count(size) - 1)
        self._note(index, divided)

    def put_back(self, parts: Iterable[Part]) -> None:
        """Parts that were taken and did not arrive."""
        for part in parts:
            divided = self._divided.get(part.index)
            if divided is None and part.is_whole:
                self._put_back_whole(part.index)
            elif divided is None:
                self.divide(part.index, part.ranges, None)
            elif part.is_proof:
                divided.proof = divided.size is None
                self._note(part.index, divided)
            else:
                divided.missing |= part.ranges
                if divided.size is not None:
                    divided.missing &= ChunkRanges.chunks(0, chunk_count(divided.size))
                self._note(part.index, divided)

    def _put_back_whole(self, index: int) -> None:
        # Neighbours come back one after the other: one run of them.
        if self._runs:
            start, end = self._runs[-1]
            if end == index:
                self._runs[-1] = start, index + 1
                return
        self._runs.append((index, index + 1))

    def _note(self, index: int, divided: _Divided) -> None:
        if divided.missing or divided.proof:
            self._giving.setdefault(index)
        else:
            self._giving.pop(index, None)

    # --- taking out -------------------------------------------------------------------------------

    def has_for(self, lacks: Lacks) -> bool:
        """Whether a provider that `lacks` this can be asked for anything."""
        piece = SMALLEST_PIECE // CHUNK_SIZE
        return bool(self._find_divided(lacks, piece)) or any(True for _ in self._find_whole(lacks))

    def take(self, piece: int, count: int, lacks: Lacks) -> tuple[Part, ...]:
        """The parts for one request: a piece of at most `piece` bytes, or up to `count` whole blobs.

        Empty if there is nothing that the provider may have.
        """
        part = self._find_divided(lacks, piece // CHUNK_SIZE)
        if part is not None:
            divided = self._divided[part.index]
            if part.is_proof:
                divided.proof = False
            else:
                divided.missing -= part.ranges
            self._note(part.index, divided)
            return (part,)
        indexes = []
        for index in self._find_whole(lacks):
            indexes.append(index)
            if len(indexes) == count:
                break
        self._remove(indexes)
        return tuple(Part(index, ChunkRanges.all()) for index in indexes)

    def _find_divided(self, lacks: Lacks, piece: int) -> Part | None:
        for index in self._giving:
            ranges = self._divided[index].offer(lacks(index), piece)
            if ranges:
                return Part(index, ranges)
        return None

    def _find_whole(self, lacks: Lacks) -> Iterator[int]:
        # What is skipped is bounded by what is noted as lacking.
        for start, end in self._runs:
            for index in range(start, end):
                if not lacks(index):
                    yield index

    def _remove(self, indexes: list[int]) -> None:
        """Takes indexes, which come in the order of the runs, out of them."""
        kept: list[tuple[int, int]] = []
        wanted = deque(indexes)
        while wanted:
            start, end = self._runs.popleft()
            while wanted and start <= wanted[0] < end:
                index = wanted.popleft()
                if start < index:
                    kept.append((start, index))
                start = index + 1
            if start < end:
                kept.append((start, end))
        self._runs.extendleft(reversed(kept))
