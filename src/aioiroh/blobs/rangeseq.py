"""Which chunks of which blobs a request wants: one set per blob, the last of them holding forever."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from .ranges import MAX_CHUNK, ChunkRanges

__all__ = ["ChunkRangesSeq"]


class ChunkRangesSeq:
    """A set of chunks for each blob index from 0 to 2**64 - 1, immutable.

    Kept as entries `(index, ranges)`: an entry holds from its index to the next entry's, the last
    one forever, and before the first entry nothing is selected. Canonical: indexes increase
    strictly, and each entry differs from the one before (the first from empty).
    """

    __slots__ = ("_entries",)
    _entries: tuple[tuple[int, ChunkRanges], ...]

    def __init__(self, entries: Iterable[tuple[int, ChunkRanges]] = ()) -> None:
        """Brings `entries` into canonical form; with equal indexes the later entry wins.

        Raises ValueError if an index descends or does not fit in 64 bits.
        """
        kept: list[tuple[int, ChunkRanges]] = []
        last = 0
        for index, ranges in entries:
            if index < last or index > MAX_CHUNK:
                raise ValueError("blob indexes must ascend and fit in 64 bits")
            last = index
            if kept and kept[-1][0] == index:
                kept.pop()
            if ranges != (kept[-1][1] if kept else ChunkRanges.empty()):
                kept.append((index, ranges))
        self._entries = tuple(kept)

    @classmethod
    def from_sets(
        cls, sets: Iterable[ChunkRanges], rest: ChunkRanges | None = None
    ) -> ChunkRangesSeq:
        """From one set per blob; `rest` (default: nothing) is for all blobs after the last."""
        entries = list(enumerate(sets))
        entries.append((len(entries), rest if rest is not None else ChunkRanges.empty()))
        return cls(entries)

    @classmethod
    def empty(cls) -> ChunkRangesSeq:
        return cls()

    @classmethod
    def blob(cls, ranges: ChunkRanges | None = None) -> ChunkRangesSeq:
        """Only the first blob: all of it, or just `ranges`."""
        return _BLOB if ranges is None else cls.from_sets((ranges,))

    @classmethod
    def all(cls) -> ChunkRangesSeq:
        """A hash sequence and all of its children."""
        return cls(((0, ChunkRanges.all()),))

    @classmethod
    def sizes(cls) -> ChunkRangesSeq:
        """A hash sequence, and of every child the last chunk, which proves its size."""
        return cls.from_sets((ChunkRanges.all(),), rest=ChunkRanges.last_chunk())

    @property
    def entries(self) -> tuple[tuple[int, ChunkRanges], ...]:
        return self._entries

    @property
    def is_infinite(self) -> bool:
        """True if something is selected in all blobs from some index on."""
        return bool(self._entries) and bool(self._entries[-1][1])

    @property
    def is_blob(self) -> bool:
        """True if only the first blob is selected."""
        entries = self._entries
        return len(entries) == 2 and entries[0][0] == 0 and entries[1][0] == 1 and not entries[1][1]

    @property
    def span_count(self) -> int:
        """Number of chunk boundaries in all entries together: what it costs to keep."""
        return sum(len(ranges.boundaries) for _, ranges in self._entries)

    def __bool__(self) -> bool:
        return bool(self._entries)

    def __getitem__(self, index: int) -> ChunkRanges:
        """The set for blob `index`."""
        low, high = 0, len(self._entries)
        while low < high:
            middle = (low + high) // 2
            if self._entries[middle][0] <= index:
                low = middle + 1
            else:
                high = middle
        return self._entries[low - 1][1] if low else ChunkRanges.empty()

    def runs(self, count: int | None = None) -> Iterator[tuple[int, int | None, ChunkRanges]]:
        """`(start, end, ranges)` for each run of blobs with the same, non-empty set.

        Steps from entry to entry, so that a gap of 2**63 blobs costs nothing. `count` cuts the
        runs off at that many blobs; without it the end of an infinite last run is None.
        """
        for at, (start, ranges) in enumerate(self._entries):
            end = self._entries[at + 1][0] if at + 1 < len(self._entries) else None
            if count is not None:
                end = count if end is None else min(end, count)
                if start >= count:
                    return
            if ranges:
                yield start, end, ranges

    def items(self, count: int) -> Iterator[tuple[int, ChunkRanges]]:
        """`(index, ranges)` of every selected blob below `count`, in ascending order."""
        for start, end, ranges in self.runs(count):
            assert end is not None
            for index in range(start, end):
                yield index, ranges

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChunkRangesSeq) and self._entries == other._entries

    def __hash__(self) -> int:
        return hash(self._entries)

    def __repr__(self) -> str:
        return f"ChunkRangesSeq({', '.join(f'{i}: {r!r}' for i, r in self._entries)})"


_BLOB: Final = ChunkRangesSeq.from_sets((ChunkRanges.all(),))
